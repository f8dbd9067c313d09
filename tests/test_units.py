"""Units and quantities."""

import math

import ase.units
import pytest
from hypothesis import given
from hypothesis import strategies as st

from painn_fast import units
from painn_fast.errors import PaiNNFastError


def test_constants_are_consistent_with_each_other():
    planck = 2.0 * math.pi * units.HBAR
    assert planck * units.SPEED_OF_LIGHT * units.EV_IN_CM == pytest.approx(1.0, rel=1e-9)
    assert units.AMU_A2_PER_FS2 * ase.units.fs**2 == pytest.approx(1.0, rel=1e-9)
    assert ase.units.kB == units.KB


@pytest.mark.parametrize(
    ("kind", "name", "size"),
    [
        ("energy", "kcal/mol", ase.units.kcal / ase.units.mol),
        ("energy", "Hartree", ase.units.Hartree),
        ("length", "Bohr", ase.units.Bohr),
        ("dipole", "D", ase.units.Debye),
        ("dipole", "a.u.", ase.units.Bohr),
        ("polarizability", "Bohr^3", ase.units.Bohr**3),
        ("time", "ps", 1000.0),
    ],
)
def test_sizes_are_those_of_ase(kind, name, size):
    assert units.factor(kind, name) == pytest.approx(size, rel=1e-12)
    assert units.factor(kind, name.upper()) == units.factor(kind, name), "case does not matter"


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("0.5 fs", "time", 0.5),
        ("2ps", "time", 2000.0),
        (" 1e-1 ns ", "time", 1e5),
        ("300 K", "temperature", 300.0),
        ("-.5 eV", "energy", -0.5),
        ("4000 cm-1", "wavenumber", 4000.0),
        ("2 h", "duration", 7200.0),
    ],
)
def test_quantities_are_read(text, kind, value):
    assert units.parse_quantity(text, kind) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("0.5", "time", 'missing unit of time.*write "0.5 fs"'),
        ("0.5 K", "time", "unknown unit of time.*'K'.*fs"),
        ("fast", "time", "not a time.*fast"),
        ("", "temperature", "not a temperature"),
        ("1 2 fs", "time", "unknown unit of time"),
    ],
)
def test_what_is_no_quantity_is_refused(text, kind, message):
    with pytest.raises(PaiNNFastError, match=message):
        units.parse_quantity(text, kind)


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(sorted(units.KINDS)))
def test_quantities_come_back_as_they_were(value, kind):
    assert units.parse_quantity(units.format_quantity(value, kind), kind) == value
