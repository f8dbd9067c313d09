"""numba.njit that works wherever the package is installed, compiles once, and whose cache records source and processor.

numba optimises a function, makes machine code of it, and then does both again for each of its callers, into which it is
linked. Here a function that compiled code calls is only linked; what Python calls is optimised as a whole, and kept.
"""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

import llvmlite.binding as llvm
from numba import njit
from numba.core import config, event
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.codegen import JITCodeLibrary, get_host_cpu_features
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import register_pass
from numba.core.registry import CPUDispatcher
from numba.core.typed_passes import NativeLowering

FAST = {"reassoc", "contract", "nsz", "arcp"}
"""For `fastmath`: sums may be reordered, the same way at every run; NaN and infinity keep their meaning."""
LONG = 4.0
"""Seconds of compilation that are reported where stderr is no terminal, as in a log."""
_compiling: list[float] = []
"""Seconds of each compilation in this process, what it waits for others included."""
FEATURES: str = get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES
"""Of the processor that numba compiles for, as LLVM writes them: +avx2,-avx512f,..."""


def compiled(
    *, allocates: bool = False, notice: tuple[str, float] | None = None, **options: Any
) -> Callable[[Callable[..., Any]], Any]:
    """numba.njit with a cache on disk: beside the source, else in the home folder, else none.

    numba checks a function's own file alone, and keeps one index for all processors. Here code is compiled anew when
    a file changes that its file imports from, and each processor has an index of its own. Of processes that need the
    same code at the same time one compiles it, and the others wait for it.

    Args:
        allocates: the function makes arrays. Others do not count references, a third of the code.
        notice: what is compiled and its time in s, for a line on stderr where that takes long.
        options: nogil, error_model, inline and fastmath, as njit takes them.
    """
    options |= {"_nrt": allocates, "no_cfunc_wrapper": True}

    def decorate(function: Callable[..., Any]) -> Any:
        if "inline" in options:  # copied into the source of its callers
            return njit(**options)(function)
        result = _Function(function, targetoptions={"nopython": True, **options})
        result.notice = notice
        with suppress(RuntimeError, AttributeError, OSError):  # no folder, or numba keeps its cache in another way
            result.enable_caching()
        return result

    return decorate


def working_time() -> float:
    """Seconds on a clock that stands while this process compiles: limits of time count from the first step."""
    return time.monotonic() - sum(_compiling)


def is_kept(function: Any) -> bool:
    """Whether code of a `compiled` function, for some arguments, has been kept for this processor."""
    kept = getattr(function, "_cache", None)
    return isinstance(kept, _Cache) and bool(kept._cache_file._load_index())


def _notify(notice: tuple[str, float] | None, text: str) -> None:
    if notice is not None and (notice[1] >= LONG or (sys.stderr is not None and sys.stderr.isatty())):
        print(text.format(what=notice[0], seconds=notice[1]), file=sys.stderr, flush=True)


class _Notice(event.Listener):
    """A line about a function that is about to be compiled, if someone is likely to wait for it."""

    def __init__(self, function: _Function) -> None:
        self.function = function

    def on_start(self, started: Any) -> None:
        if started.data["dispatcher"] is self.function:
            _notify(self.function.notice, "compiling {what} for this processor, once: about {seconds:.0f} s")

    def on_end(self, ended: Any) -> None:
        """Nothing to report."""


class _Function(CPUDispatcher):
    """What Python calls; compiled code that calls it links its part."""

    notice: tuple[str, float] | None = None

    def __init__(self, function: Callable[..., Any], targetoptions: dict[str, Any]) -> None:
        super().__init__(function, targetoptions=targetoptions, pipeline_class=_WholeCompiler)
        self._part = _Part(function, targetoptions=targetoptions, pipeline_class=_PartCompiler)

    def enable_caching(self) -> None:
        self._cache = _Cache(self)

    def compile(self, sig: Any) -> Any:
        with global_compiler_lock, event.install_listener("numba:compile", _Notice(self)):
            start = time.monotonic()
            try:
                return super().compile(sig)
            finally:
                _compiling.append(time.monotonic() - start)
                if isinstance(self._cache, _Cache):
                    self._cache.release()

    def get_call_template(self, args: Any, kws: Any) -> Any:
        return self._part.get_call_template(args, kws)

    def get_overload(self, sig: Any) -> Any:
        return self._part.get_overload(sig)

    def add_overload(self, cres: Any) -> None:
        for environment in cres._find_referenced_environments():  # of linked parts, for errors that they raise
            cres.library.codegen.set_env(environment.env_name, environment)
        super().add_overload(cres)


class _Part(CPUDispatcher):
    """A function as compiled code calls it: typed and lowered, without machine code."""

    def add_overload(self, cres: Any) -> None:
        self.overloads[tuple(cres.signature.args)] = cres


class _WholeLibrary(JITCodeLibrary):
    """Code with its parts, which nothing else can call.

    numba leaves them open to other code that has parts of the same names, of which the first is taken for all. Names
    number the functions of a process: where code of an earlier one is loaded they can be those of other functions.
    """

    def _optimize_final_module(self) -> None:
        for function in self._final_module.functions:
            if function.linkage == llvm.Linkage.linkonce_odr:
                function.linkage = "internal"
        super()._optimize_final_module()


class _PartLibrary(JITCodeLibrary):
    def finalize(self) -> None:
        for library in dict.fromkeys(self._linking_libraries):
            with suppress(AttributeError):  # older numba has none
                self._reload_init.update(library._reload_init)
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _LowerWhole(NativeLowering):
    _name = "painn_fast_lower_whole"

    def run_pass(self, state: Any) -> bool:
        state.library = _WholeLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()
        return bool(super().run_pass(state))


@register_pass(mutates_CFG=True, analysis_only=False)
class _LowerPart(NativeLowering):
    _name = "painn_fast_lower_part"

    def run_pass(self, state: Any) -> bool:
        state.library = _PartLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags.no_compile = state.flags.no_cpython_wrapper = True
        super().run_pass(state)
        key = object()  # by which calls find it, in place of an address
        state.targetctx.insert_user_function(key, state.cr.fndesc, [state.library])
        state.cr = state.cr._replace(cfunc=key)
        return True


class _WholeCompiler(CompilerBase):
    lowering: type[NativeLowering] = _LowerWhole

    def define_pipelines(self) -> list[Any]:
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.passes = [(self.lowering if one is NativeLowering else one, text) for one, text in passes.passes]
        passes.finalize()
        return [passes]


class _PartCompiler(_WholeCompiler):
    lowering = _LowerPart


class _Cache(FunctionCache):
    """Of one function. A process that does not find code locks it until `release`, so that others wait for it."""

    def __init__(self, function: _Function) -> None:
        super().__init__(function.py_func)
        self._notice = function.notice
        name = f"{self._impl.filename_base}.{_processor()}"
        self._cache_file = _CacheFile(self.cache_path, name, _stamp(function.py_func.__module__))
        self._lock_path = Path(self.cache_path) / f"{name}.lock"
        self._lock: Any = None

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        found = super().load_overload(sig, target_context)
        if found is None and fcntl is not None and self._lock is None:
            with suppress(OSError):  # no locks on this file system: at worst two processes compile the same
                self._lock = self._lock_path.open("w")
                try:
                    fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    _notify(self._notice, "waiting for another process that compiles {what}")
                    fcntl.flock(self._lock, fcntl.LOCK_EX)
                found = super().load_overload(sig, target_context)
        return found

    def release(self) -> None:
        """Let others look for the code, which has been kept by now, if it could be compiled."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


class _CacheFile(IndexDataCacheFile):
    """Compiled code in files named by what they hold.

    numba numbers them and writes the index first: of two processes that compile at the same time, one can find the
    other's code, of another function with arguments of the same types, behind its own entry.
    """

    def save(self, key: Any, data: Any) -> None:
        """Keep compiled code; another process that writes the index at this moment may forget it, not mistake it.

        That of earlier versions of the function goes.
        """
        digest = sha256(self._dump(data)).hexdigest()[:16]
        name = f"{self._index_name.removesuffix('.nbi')}.{digest}.nbc"
        self._save_data(name, data)
        index = self._load_index() | {key: name}
        self._save_index(index)
        self._remove_others({*index.values(), self._index_name})

    def _remove_others(self, kept: set[str]) -> None:
        """Files of this function for this processor that are not `kept`; a change above it moves its line."""
        function, _, rest = self._index_name.removesuffix(".nbi").rpartition("-")  # name-LINE.python.processor
        for path in Path(self._cache_path).glob(f"{function}-*.{rest.partition('.')[2]}.*nb[ci]"):
            if path.name not in kept:
                with suppress(OSError):
                    path.unlink()

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
