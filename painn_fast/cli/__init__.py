"""The command `painn-fast`: verbs that read flags, make settings and call the Python of the same name."""

from painn_fast.cli.app import main

__all__ = ["main"]
