"""Pairs within a cut-off in batches of small molecules in vacuum, where the positions are."""
