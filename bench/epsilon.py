"""The epsilon in |V v| = sqrt(V^2 + epsilon): errors, roughness, harmonic lines of one set of weights, or of trainings.

    python bench/epsilon.py weights MODEL DATA --structure START.xyz [--reference HESSIAN.npz]
    python bench/epsilon.py trained FOLDER... --structure START.xyz

`weights` puts other values of epsilon beside the same weights; `trained` reads finished trainings. Errors are mean
absolute errors of test structures. Roughness: how far lines of the analytic Hessian are from those by differences, in
cm-1. Lines against a reference (`bench/reference_hessian.py`): mean and largest difference, in order of wavenumber, and
the correlations of infrared intensities and Raman activities.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import ase
import ase.io
import numpy as np

from painn_fast.io import load
from painn_fast.nn import Potential
from painn_fast.spectra import HarmonicSpectrum, harmonic
from painn_fast.testing import with_epsilon
from painn_fast.train.evaluation import Table, error_table
from painn_fast.vibrations.harmonic import infrared_intensities, normal_modes, raman_invariants

SCANNED = (1e-8, 1e-5, 1e-4, 1e-3, 1e-2)


def harmonic_lines(model: Potential, structure: Path | None) -> HarmonicSpectrum | None:
    """At the minimum next to a structure; None for a model without energies, or without a structure."""
    if structure is None or "forces" not in model.properties:
        return None
    with warnings.catch_warnings(action="ignore"):  # roughness is what is asked for here
        return harmonic(model, ase.io.read(structure))


def against(lines: HarmonicSpectrum, reference: Path) -> list[str]:
    """Mean and largest difference of lines (cm-1), correlations of intensities and activities."""
    data = np.load(reference)
    atoms = ase.Atoms(data["numbers"], data["positions"])
    wavenumber, modes = normal_modes(atoms, data["hessian"])
    isotropic, anisotropic = raman_invariants(modes, data["polarizability_derivative"])
    off = np.abs(lines.wavenumber - wavenumber)
    pairs = (
        (lines.intensity, infrared_intensities(modes, data["dipole_derivative"])),
        (lines.activity, 45 * isotropic + 7 * anisotropic),
    )
    same = [f"{np.corrcoef(ours, theirs)[0, 1]:.3f}" if ours is not None else "" for ours, theirs in pairs]
    return [f"{off.mean():.1f}", f"{off.max():.1f}", *same]


def row(name: str, model: Potential, errors: Table, structure: Path | None, reference: Path | None) -> list[str]:
    lines = harmonic_lines(model, structure)
    listed = ", ".join(f"{label} {value['mae']:.4g} {value['unit']}" for label, value in errors.items())
    cells = [name, f"{model.config.representation.epsilon:.0e}", listed]
    rough = None if lines is None else lines.roughness
    cells.append("" if rough is None else f"{rough.largest:.1f} ({rough.mean:.1f})")
    return cells + (against(lines, reference) if lines is not None and reference is not None else [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    weights = verbs.add_parser("weights")
    weights.add_argument("model")
    weights.add_argument("data", type=Path)
    weights.add_argument("--split", default="test")
    trained = verbs.add_parser("trained")
    trained.add_argument("folders", type=Path, nargs="+")
    for verb in (weights, trained):
        verb.add_argument("--structure", type=Path, help="where the relaxation starts; none: no lines")
        verb.add_argument("--reference", type=Path, help="a file of bench/reference_hessian.py")
    given = parser.parse_args()
    head = ["model", "epsilon", "errors", "roughness, largest (mean), cm-1"]
    head += ["lines, mean", "largest, cm-1", "infrared", "Raman"] if given.reference else []
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    if given.verb == "weights":
        model = load(given.model)
        for epsilon in SCANNED:
            other = with_epsilon(model, epsilon)
            errors = error_table(other, given.data, split=given.split)
            cells = row(Path(given.model).stem, other, errors, given.structure, given.reference)
            print(f"| {' | '.join(cells)} |", flush=True)
        return
    for folder in given.folders:
        name = json.loads((folder / "training.json").read_text(encoding="utf-8"))["name"]
        model = load(folder / f"{name}.safetensors")
        errors = json.loads((folder / "errors.json").read_text(encoding="utf-8"))["test"]
        print(f"| {' | '.join(row(folder.name, model, errors, given.structure, given.reference))} |", flush=True)


if __name__ == "__main__":
    main()
