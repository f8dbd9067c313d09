"""numba.njit that works wherever the package is installed, and whose cache records source and processor."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import llvmlite.binding as llvm
from numba import njit
from numba.core import config
from numba.core.caching import IndexDataCacheFile
from numba.core.codegen import get_host_cpu_features

FAST = {"reassoc", "contract", "nsz", "arcp"}
"""For `fastmath`: sums may be reordered, the same way at every run; NaN and infinity keep their meaning."""
FEATURES: str = get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES
"""Of the processor that numba compiles for, as LLVM writes them: +avx2,-avx512f,..."""


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """numba.njit with a cache on disk: beside the source, else in the home folder, else none.

    numba checks a function's own file alone, and keeps one index for all processors. Here code is compiled anew when
    a file changes that its file imports from, and each processor has an index of its own. Processes may compile at the
    same time.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            result = njit(cache=True, **options)(function)
            kept = result._cache
            name = f"{kept._impl.filename_base}.{_processor()}"
            kept._cache_file = _CacheFile(kept.cache_path, name, _stamp(function.__module__))
        except (RuntimeError, AttributeError, OSError):  # no folder for a cache, or numba keeps it in another way
            return njit(**options)(function)
        return result

    return decorate


class _CacheFile(IndexDataCacheFile):
    """Compiled code in files named by what they hold.

    numba numbers them and writes the index first: of two processes that compile at the same time, one can find the
    other's code, of another function with arguments of the same types, behind its own entry.
    """

    def save(self, key: Any, data: Any) -> None:
        """Keep compiled code; another process that writes the index at this moment may forget it, not mistake it."""
        digest = sha256(self._dump(data)).hexdigest()[:16]
        name = f"{self._index_name.removesuffix('.nbi')}.{digest}.nbc"
        self._save_data(name, data)
        self._save_index(self._load_index() | {key: name})

    def _load_index(self) -> dict[Any, str]:
        """Names of files; none where another version of the package kept code for types that no longer exist."""
        try:
            found: dict[Any, str] = super()._load_index()
        except (AttributeError, ImportError, EOFError, pickle.UnpicklingError):
            return {}
        return found


@cache
def _processor() -> str:
    name = config.CPU_NAME or llvm.get_host_cpu_name()
    return sha256(f"{llvm.get_process_triple()} {name} {FEATURES}".encode()).hexdigest()[:12]


@cache
def _stamp(module: str) -> str:
    """SHA-256 of a module and of those of its package that it imports from."""
    files = sorted({Path(path) for path in _files(module)})
    return sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _files(module: str) -> Iterator[str]:
    names = vars(sys.modules[module])
    yield names["__file__"]
    package = module.partition(".")[0]
    origins = {value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
               for value in names.values()}  # fmt: skip
    for other in origins - {module}:
        if other is not None and other.partition(".")[0] == package:
            yield from _files(other)
