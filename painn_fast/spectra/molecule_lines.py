"""Lines of the molecule that stand beside a spectrum as sticks: harmonic, or anharmonic by perturbation theory."""

from __future__ import annotations

from rich.console import Console

from painn_fast.errors import PaiNNFastError
from painn_fast.nn import Potential
from painn_fast.spectra.settings import SpectrumSettings
from painn_fast.spectra.table import write_anharmonic
from painn_fast.vibrations.anharmonic import anharmonic
from painn_fast.vibrations.conformers import Conformer, Conformers
from painn_fast.vibrations.sticks import Sticks, mixture, sticks

ANHARMONIC = "anharmonic.csv"
RARE = 0.01
"""Population below which the lines of a conformer stay harmonic."""


def stick_lines(
    model: Potential, listed: Conformers, settings: SpectrumSettings, about: dict[str, str], say: Console
) -> Sticks | None:
    """The lines to draw, None for none; anharmonic ones are written to anharmonic.csv."""
    if settings.sticks == "none":
        return None
    if settings.sticks == "harmonic":
        return sticks(listed.lines)
    notes: dict[str, str] = {}
    parts = [(one.name, one.population, _lines(model, one, notes, say)) for one in listed.members]
    lines = mixture(parts)
    header = {"what": "anharmonic lines, GVPT2", **about, **notes}
    write_anharmonic(settings.folder / ANHARMONIC, lines, header)
    return lines


def _lines(model: Potential, one: Conformer, notes: dict[str, str], say: Console) -> Sticks:
    if one.population < RARE:
        return sticks(one.lines)
    say.print(f"anharmonic lines of {one.name or one.atoms.get_chemical_formula()}")
    try:
        spectrum = anharmonic(model, one.atoms, lines=one.lines)
    except PaiNNFastError as error:
        say.print(f"warning: lines stay harmonic: {error}", style="yellow")
        return sticks(one.lines)
    notes |= {f"{one.name}: {key}".removeprefix(": "): text for key, text in spectrum.about().items()}
    return sticks(spectrum)
