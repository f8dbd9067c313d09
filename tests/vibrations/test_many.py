"""Lines of many molecules, sticks, thermochemistry and files of modes."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule
from ase.thermochemistry import IdealGasThermo
from warned import warns

import painn_fast as pf
from painn_fast.errors import PaiNNFastError
from painn_fast.testing import assert_close
from painn_fast.units import BOHR, EV_IN_CM
from painn_fast.vibrations import anharmonic, harmonic, harmonic_many, sticks, thermochemistry
from painn_fast.vibrations.derivatives import derivatives, derivatives_of_many
from painn_fast.vibrations.molden import write_molden


@pytest.fixture(scope="module")
def ethanol():
    return pf.load("ethanol")


@pytest.fixture(scope="module")
def lines(ethanol):
    return harmonic(ethanol, molecule("CH3CH2OH"))


def test_hessians_in_batches_equal_those_one_by_one(ethanol, monkeypatch):
    monkeypatch.setattr("painn_fast.vibrations.derivatives.ATOMS_AT_ONCE", 1000)  # in two groups
    molecules = [molecule(name) for name in ("CH3OH", "CH3CH2OH", "C2H6")]
    many = list(derivatives_of_many(ethanol, molecules))
    assert len(many) == 3
    for atoms, got in zip(molecules, many, strict=True):
        alone = derivatives(ethanol, atoms)
        assert_close(got.hessian, alone.hessian, 1e-4, "Hessian")
        assert_close(got.dipole, alone.dipole, 1e-3, "dipole")
        assert_close(got.polarizability, alone.polarizability, 1e-3, "polarizability")


def test_lines_of_many_equal_those_of_one(ethanol, lines):
    _, among = harmonic_many(ethanol, [molecule("CH3OH"), molecule("CH3CH2OH")])
    np.testing.assert_allclose(among.wavenumber, lines.wavenumber, atol=0.1)
    np.testing.assert_allclose(among.intensity, lines.intensity, atol=0.2)
    assert among.names == lines.names


def test_sticks_of_a_harmonic_spectrum_are_its_modes(lines):
    result = sticks(lines)
    np.testing.assert_array_equal(result.wavenumber, lines.wavenumber)
    np.testing.assert_array_equal(result.intensity, lines.intensity)
    assert result.names == lines.names
    assert not result.anharmonic.any()


def test_sticks_of_an_anharmonic_spectrum_have_all_lines(ethanol, lines):
    own = anharmonic(ethanol, lines.atoms, lines=lines)
    result = sticks(own)
    assert (np.diff(result.wavenumber) >= 0).all()
    assert len(result.wavenumber) == len(own.states) + len(own.left_harmonic)
    for k in own.left_harmonic:
        at = result.labels.index(str(k + 1))
        assert not result.anharmonic[at]
        assert result.intensity[at] == lines.intensity[k]
    stretch = result.labels.index("21")
    assert result.wavenumber[stretch] == own.fundamentals[20]
    assert result.names[stretch] == "O-H stretch"
    both = result.labels.index("20 + 21")
    assert result.names[both] == "C-H stretch + O-H stretch"
    assert result.quanta[both] == 2


def test_thermochemistry_is_that_of_ase(lines):
    own = thermochemistry(lines, -1.0, temperature=400.0, pressure=1e5, symmetry_number=2)
    energies = lines.wavenumber / EV_IN_CM
    gas = IdealGasThermo(energies, "nonlinear", -1.0, lines.atoms, symmetrynumber=2, spin=0.0)
    assert own.free_energy == pytest.approx(gas.get_gibbs_energy(400.0, 1e5, verbose=False))
    assert own.free_energy == pytest.approx(own.enthalpy - 400.0 * own.entropy)
    assert own.zero_point == pytest.approx(energies.sum() / 2.0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": 0.0}, "not a temperature; got: 0 K"),
        ({"temperature": -5.0}, "not a temperature; got: -5 K"),
        ({"temperature": np.nan}, "not a temperature; got: nan K"),
        ({"pressure": 0.0}, r"not a pressure; got: 0.0 Pa"),
        ({"symmetry_number": 0}, "not a symmetry number; got: 0; expected: 1 or more"),
    ],
)
def test_conditions_of_thermochemistry_are_checked(lines, wrong, message):
    with pytest.raises(PaiNNFastError, match=message):
        thermochemistry(lines, 0.0, **wrong)


def test_no_thermochemistry_of_a_saddle_point(ethanol):
    eclipsed = molecule("C2H6")
    eclipsed.positions[2:5] *= [1.0, -1.0, 1.0] if np.ptp(eclipsed.positions[:2, 2]) > 1 else [1.0, 1.0, -1.0]
    with warns("not a minimum"):
        (saddle,) = harmonic_many(ethanol, [eclipsed], relaxed=True)
    with pytest.raises(PaiNNFastError, match="minimum"):
        thermochemistry(saddle, 0.0)


def test_molden_file_has_structure_lines_and_modes(lines, tmp_path):
    write_molden(tmp_path / "modes.molden", lines)
    sections = {}
    for text in (tmp_path / "modes.molden").read_text().split("[")[1:]:
        name, _, body = text.partition("]")
        sections[name] = body.strip().splitlines()
    np.testing.assert_allclose([float(text) for text in sections["FREQ"]], lines.wavenumber, atol=1e-4)
    intensity = np.array([text.split() for text in sections["INT"]], float)[:, 0]
    np.testing.assert_allclose(intensity, lines.intensity, atol=1e-6)
    bohr = np.array([text.split()[1:] for text in sections["FR-COORD"]], float)
    np.testing.assert_allclose(bohr * BOHR, lines.atoms.positions, atol=1e-7)
    rows = np.array([text.split() for text in sections["FR-NORM-COORD"] if not text.startswith("vib")], float)
    modes = rows.reshape(lines.modes.shape)
    along = (modes * lines.modes).sum(axis=(1, 2)) / np.sqrt((lines.modes**2).sum(axis=(1, 2)))
    np.testing.assert_allclose(along, 1.0, atol=1e-6)
