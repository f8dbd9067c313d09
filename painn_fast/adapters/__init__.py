"""Other people's engines that run our models."""
