"""Harmonic lines are of a structure that is free: constraints are refused wherever one comes in."""

import pytest
from ase.build import molecule
from ase.constraints import FixAtoms

import painn_fast as pf
from painn_fast.adapters.ipi import Driver
from painn_fast.errors import PaiNNFastError
from painn_fast.spectra.run import run
from painn_fast.spectra.settings import SpectrumSettings
from painn_fast.vibrations.harmonic import harmonic
from painn_fast.vibrations.relax import relax


@pytest.fixture
def fixed():
    atoms = molecule("CH3CH2OH")
    atoms.set_constraint(FixAtoms([0, 1]))
    return atoms


def test_harmonic_analysis(fixed):
    model = pf.load("ethanol")
    for ask in (
        lambda: relax(model, fixed),
        lambda: harmonic(model, fixed),
        lambda: harmonic(model, fixed, relaxed=True),
    ):
        with pytest.raises(
            PaiNNFastError, match=r"harmonic analysis cannot honour constraints.*FixAtoms of atoms 0, 1"
        ):
            ask()


def test_a_whole_spectrum(fixed, tmp_path):
    fixed.write(tmp_path / "x.traj")
    settings = SpectrumSettings(model="ethanol", structure=str(tmp_path / "x.traj"), output=str(tmp_path / "out"))
    with pytest.raises(PaiNNFastError, match="cannot honour constraints"):
        run(settings)


def test_the_driver_of_ipi(fixed, tmp_path):
    fixed.write(tmp_path / "x.xyz")
    for structure in (fixed, tmp_path / "x.xyz"):
        with pytest.raises(PaiNNFastError, match=r"driver of i-PI cannot honour constraints.*<fixatoms>"):
            Driver("ethanol", structure)
