"""Packages that import what they export on first use, so that a mistyped flag or setting does not wait for torch."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


def lazy(package: str) -> None:
    """Import the names under `if TYPE_CHECKING` of a package's own source when they are first read."""
    module = sys.modules[package]
    homes: dict[str, str] = {}
    for node in ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for line in node.body:
                if isinstance(line, ast.ImportFrom):
                    homes |= {alias.name: str(line.module) for alias in line.names}
    vars(module)["_homes"] = homes
    module.__class__ = _Lazy


class _Lazy(ModuleType):
    _homes: dict[str, str]

    def __getattr__(self, name: str) -> Any:
        if name not in self._homes:
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")
        value = getattr(importlib.import_module(self._homes[name]), name)
        vars(self)[name] = value
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        """Keeps a function that has the name of its module: importing the module would put it in its place."""
        if name in self._homes and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._homes})
