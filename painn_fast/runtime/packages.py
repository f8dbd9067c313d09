"""Versions of installed packages."""

from __future__ import annotations

import importlib.metadata


def installed(package: str) -> str | None:
    """Version of a package by its name for pip, None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
