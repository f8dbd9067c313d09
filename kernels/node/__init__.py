"""Everything that one atom does between two messages, in one launch."""
