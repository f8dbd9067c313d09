"""The verbs under one name, and what becomes of an error: one line and an exit code."""

from __future__ import annotations

import difflib
import inspect
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

import painn_fast
from painn_fast.cli import (
    bench,
    convert,
    data,
    doctor,
    evaluate,
    export,
    info,
    ipi,
    label,
    learn,
    md,
    relax,
    sample,
    select,
    spectrum,
    table,
    train,
    vib,
)
from painn_fast.errors import PaiNNFastError, one_line

FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130
"""Exit codes: a bug or a failed check, something the user can mend, Ctrl-C."""

app = typer.Typer(
    name="painn-fast",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
VERBS: dict[str, Callable[..., None]] = {
    "info": info.info,
    "eval": evaluate.evaluate,
    "convert": convert.convert,
    "data": data.data,
    "learn": learn.learn,
    "sample": sample.sample,
    "label": label.label,
    "select": select.select,
    "train": train.train,
    "table": table.table,
    "relax": relax.relax,
    "vib": vib.vib,
    "md": md.md,
    "export": export.export,
    "ipi": ipi.ipi,
    "spectrum": spectrum.spectrum,
    "bench": bench.bench,
    "doctor": doctor.doctor,
}
for _name, _verb in VERBS.items():  # line breaks of the source are not those of the terminal
    *_paragraphs, _example = (" ".join(text.split()) for text in (inspect.getdoc(_verb) or "").split("\n\n"))
    app.command(_name, help="\n\n".join(_paragraphs), epilog=_example)(_verb)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"painn-fast {painn_fast.__version__}")
        raise typer.Exit


@app.callback(
    help="PaiNN, from a trained model to a spectrum.\n\nUnits: eV, Å, fs, K, amu, e Å for dipoles, Å³ for "
    'polarizabilities, cm-1 for spectra. Settings in files and flags are written with their unit, such as "0.5 fs".'
)
def painn_fast_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    show_traceback: Annotated[
        bool, typer.Option("--traceback", help="Also print where in the code an error came from; at any position.")
    ] = False,
) -> None:
    """Flags of the command itself."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code; an error is one line on stderr."""
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    words = [word for word in given if word != "--traceback"]
    try:
        verb = next((word for word in words if not word.startswith("-")), None)
        if verb is not None and verb not in VERBS:
            raise PaiNNFastError("no such verb", got=verb, fix=_nearest(verb, VERBS, "see painn-fast --help"))
        with _warnings_as_lines():
            code = app(args=words, prog_name="painn-fast", standalone_mode=False)
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        sys.stderr.close()
        return FAILED
    except (KeyboardInterrupt, typer.Abort):  # older versions of typer turn the one into the other
        code = INTERRUPTED
    except Exception as error:
        if len(words) < len(given):
            traceback.print_exc()
        line, code = describe(error)
        print(f"error: {line}", file=sys.stderr)
    if code == INTERRUPTED:
        print("interrupted", file=sys.stderr)
    return code if isinstance(code, int) else 0


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Warnings for the user without file and line of the code that gives them."""
    formatted = warnings.formatwarning

    def line(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, source: str | None = None
    ) -> str:
        if issubclass(category, UserWarning):
            return f"warning: {one_line(str(message))}\n"
        return formatted(message, category, filename, lineno, source)

    warnings.formatwarning = line  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.formatwarning = formatted


def _nearest(word: str, known: Iterable[str], otherwise: str) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.55)
    return f"did you mean {near[0]}? {otherwise}" if near else otherwise


def describe(error: Exception) -> tuple[str, int]:
    """One line for an error, and the exit code."""
    if isinstance(error, PaiNNFastError):
        return str(error), WRONG_INPUT
    if isinstance(error, OSError):
        where = f"; where: {error.filename}" if error.filename else ""
        return one_line(f"{error.strerror or error}{where}"), WRONG_INPUT
    if hasattr(error, "possibilities"):  # a flag that the verb does not have; its names are those of all flags
        context = error.ctx  # type: ignore[attr-defined]
        flags = [name for one in context.command.params for name in one.opts if not getattr(one, "hidden", False)]
        word = error.option_name  # type: ignore[attr-defined]
        fix = _nearest(word, flags, f"see {context.command_path} --help")
        return str(PaiNNFastError("no such flag", got=word, fix=fix)), WRONG_INPUT
    if hasattr(error, "format_message"):  # a flag that the command line does not know or cannot read
        verb = getattr(getattr(error, "ctx", None), "command_path", "painn-fast")
        return f"{one_line(error.format_message()).rstrip('.')}; fix: see {verb} --help", WRONG_INPUT
    text = f"{type(error).__name__}: {one_line(str(error))}"
    return f"unexpected {text}; fix: this is a bug, please report it with what --traceback shows", FAILED
