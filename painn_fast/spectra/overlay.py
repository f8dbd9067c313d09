"""Other spectra, such as measured ones, from CSV, to be drawn over ours."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from painn_fast.errors import PaiNNFastError
from painn_fast.spectra.peaks import VIBRATIONS_FROM

SPECTRA = ("infrared", "Raman")
COLUMNS = 2
SEPARATORS = "\t", ";", ","
"""Of columns: the first of these that a row has, else blanks. With another one, a comma is one of decimals."""
FEWEST = 5
"""Points of a spectrum."""


@dataclass(frozen=True)
class Overlay:
    """Points of another spectrum in order of their wavenumber; intensities in any unit.

    Example:
        >>> import numpy as np
        >>> from painn_fast.spectra import Overlay
        >>> overlay = Overlay("measured", "infrared", np.array([1000.0, 1050.0]), np.array([0.1, 0.7]))
        >>> overlay.label
        'measured'
    """

    label: str
    spectrum: str  # "infrared" or "Raman"
    wavenumber: np.ndarray  # [K] cm-1
    intensity: np.ndarray  # [K]


def read_overlays(given: Sequence[str], highest: float) -> list[Overlay]:
    """`read_overlay` of each, with a check that it has intensity below `highest` (cm-1).

    Raises:
        PaiNNFastError: if one cannot be read, or has no intensity in the range.
    """
    overlays = [read_overlay(text) for text in given]
    for text, overlay in zip(given, overlays, strict=True):
        seen = (overlay.wavenumber >= VIBRATIONS_FROM) & (overlay.wavenumber <= highest)
        if not overlay.intensity[seen].max(initial=0.0) > 0:
            raise PaiNNFastError(
                "an overlay with nothing to show",
                where=text,
                got=f"points from {overlay.wavenumber[0]:g} to {overlay.wavenumber[-1]:g} cm-1",
                expected=f"intensities above zero between {VIBRATIONS_FROM:g} and {highest:g} cm-1",
            )
    return overlays


def read_overlay(text: str) -> Overlay:
    """Read a spectrum from a file: a wavenumber (cm-1) and an intensity in each row, other columns are passed over.

    Columns are separated by tabs, semicolons, commas or blanks, decimals by a point. Lines that begin with # are
    comments, one line of names may stand above the numbers, rows without an intensity are left out, the order does not
    matter.

    Args:
        text: a path; "raman=PATH" or "infrared=PATH" name the panel. Without it the panel is Raman if the column names
            or the file name contain "raman", else infrared.

    Returns:
        The points in order of wavenumber.

    Raises:
        PaiNNFastError: if there is no such file, or not such a table in it.

    Example:
        >>> from pathlib import Path
        >>> from painn_fast.spectra import read_overlay
        >>> rows = "".join(f"{nu},{1000 - abs(nu - 1050)}\\n" for nu in range(1000, 1110, 10))
        >>> _ = Path("measured.csv").write_text("wavenumber / cm-1,absorbance\\n" + rows)
        >>> overlay = read_overlay("infrared=measured.csv")
        >>> overlay.spectrum, overlay.label, float(overlay.wavenumber[overlay.intensity.argmax()])
        ('infrared', 'measured', 1050.0)
    """
    kind, equals, rest = text.partition("=")
    named = {name.lower(): name for name in SPECTRA}
    path = Path(rest if equals and kind.lower() in named else text)
    header, points = _read(path)
    guessed = "Raman" if re.search("raman", f"{header} {path.stem}", re.IGNORECASE) else "infrared"
    spectrum = named.get(kind.lower(), guessed) if equals else guessed
    order = np.argsort(points[:, 0], kind="stable")
    return Overlay(path.stem, spectrum, points[order, 0], points[order, 1])


def _read(path: Path) -> tuple[str, np.ndarray]:
    """Names of columns, "" without, and points [K, 2]."""
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise PaiNNFastError("cannot read an overlay", where=path, got=error.strerror) from None
    except UnicodeDecodeError:
        raise PaiNNFastError("an overlay that is not text", where=path, expected="CSV in UTF-8") from None
    header = ""
    points: list[tuple[float, float]] = []
    for number, line in enumerate(content.splitlines(), start=1):
        row = line.strip()
        if not row or row.startswith("#"):
            continue
        separator = next((one for one in SEPARATORS if one in row), None)
        cells = [cell.strip() for cell in row.split(separator)]
        if not points and not header and not _is_number(cells[0]):
            header = row
        elif len(cells) < COLUMNS or cells[1]:
            points.append(_point(cells, f"{path}, line {number}"))
    if len(points) < FEWEST:
        raise PaiNNFastError(
            "too few points in an overlay",
            where=path,
            got=len(points),
            expected=f"{FEWEST} rows or more of wavenumber and intensity",
        )
    return header, np.array(points)


def _point(cells: list[str], where: str) -> tuple[float, float]:
    expected = "wavenumber (cm-1) and intensity, with a point for decimals"
    if len(cells) < COLUMNS:
        raise PaiNNFastError("one column in an overlay", where=where, got=repr(cells[0]), expected=expected)
    for cell in cells[:COLUMNS]:
        if not _is_number(cell):
            raise PaiNNFastError("not a number in an overlay", where=where, got=repr(cell), expected=expected)
    return float(cells[0]), float(cells[1])


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
