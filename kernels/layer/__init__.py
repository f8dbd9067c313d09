"""A message and everything that atoms do until the next one, in one launch."""
