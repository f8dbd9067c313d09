"""The bundled ethanol beside its level of theory: harmonic lines of both conformers by PBE0's own Hessians.

`bench/reference_hessian.py` made the files.
"""

from pathlib import Path

import ase
import numpy as np
import pytest

import painn_fast as pf
from painn_fast.spectra import harmonic
from painn_fast.vibrations.harmonic import infrared_intensities, normal_modes, raman_invariants

DATA = Path(__file__).parent.parent / "data"
DIHEDRAL = {"gauche": 60, "trans": 180}
"""H-O-C-C, degrees."""


@pytest.fixture(scope="module", params=DIHEDRAL)
def conformer(request):
    return request.param


@pytest.fixture(scope="module")
def reference(conformer):
    with np.load(DATA / f"ethanol_{conformer}_pbe0_hessian.npz") as data:
        return dict(data)


def test_lines_and_intensities_of_ethanol_are_those_of_pbe0(reference, conformer):
    atoms = ase.Atoms(reference["numbers"], reference["positions"])
    wavenumber, modes = normal_modes(atoms, reference["hessian"])
    isotropic, anisotropic = raman_invariants(modes, reference["polarizability_derivative"])
    found = harmonic(pf.load("ethanol"), atoms)
    dihedral = found.atoms.get_dihedral(3, 2, 1, 0)
    assert abs(min(dihedral, 360 - dihedral) - DIHEDRAL[conformer]) < 5, "the conformer is another one"
    off = np.abs(found.wavenumber - wavenumber)
    assert off.mean() < 6, f"{off.round(1)} cm-1"
    assert off.max() < 22, f"{off.round(1)} cm-1"
    pairs = {
        "infrared": (found.intensity, infrared_intensities(modes, reference["dipole_derivative"])),
        "Raman": (found.activity, 45 * isotropic + 7 * anisotropic),
    }
    for name, (ours, theirs) in pairs.items():
        assert np.corrcoef(ours, theirs)[0, 1] > 0.98, name
        assert ours.sum() == pytest.approx(theirs.sum(), rel=0.05), name
    assert found.roughness.largest < 2


def test_the_reference_is_consistent_with_itself(reference):
    """Rigid translations cost nothing and carry no dipole: sum rules of the derivatives."""
    shifts = np.tile(np.eye(3), len(reference["numbers"]))  # [3, 3 n]
    assert np.abs(reference["hessian"] @ shifts.T).max() < 0.02 * np.abs(reference["hessian"]).max()
    assert np.abs(reference["dipole_derivative"].sum(axis=1)).max() < 0.01  # a neutral molecule
