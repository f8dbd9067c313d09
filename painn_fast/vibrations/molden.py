"""Normal modes in Molden's format, which Molden, Jmol, Avogadro and others animate."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from painn_fast.runtime.atomic import atomic_write
from painn_fast.units import BOHR
from painn_fast.vibrations.harmonic import HarmonicSpectrum


def write_molden(path: str | Path, lines: HarmonicSpectrum) -> None:
    """Write structure, wavenumbers (cm-1), intensities and displacements of all modes, whole or not at all.

    Displacements are Cartesian, each mode of length 1. Imaginary wavenumbers are negative.
    """
    atoms, none = lines.atoms, np.zeros(len(lines.wavenumber))
    intensity = none if lines.intensity is None else lines.intensity
    activity = none if lines.activity is None else lines.activity
    text = ["[Molden Format]", "[Title]", f" {atoms.get_chemical_formula()}", "[Atoms] Angs"]
    for k, atom in enumerate(atoms):
        text.append(f"{atom.symbol:2} {k + 1:4d} {atom.number:4d} {_numbers(atom.position)}")
    text += ["[FREQ]", *(f"{value:12.4f}" for value in lines.wavenumber)]
    text += ["[INT]", *(f"{a:14.6f} {b:14.6f}" for a, b in zip(intensity, activity, strict=True))]
    text += ["[FR-COORD]", *(f"{atom.symbol:2} {_numbers(atom.position / BOHR)}" for atom in atoms)]
    text.append("[FR-NORM-COORD]")
    for k, mode in enumerate(lines.modes):
        text += [f"vibration {k + 1}", *(_numbers(row) for row in mode / np.linalg.norm(mode))]
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join([*text, ""]), encoding="ascii")


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:14.8f}" for value in values)
