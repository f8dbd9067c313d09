import numpy as np
import pytest
from scipy.integrate import trapezoid

from painn_fast import PaiNNFastError
from painn_fast.spectra.window import line_shape, resolution, window
from painn_fast.units import SPEED_OF_LIGHT

NAMES = ["gaussian", "hann", "blackman"]


@pytest.mark.parametrize("name", NAMES)
def test_a_window_falls_from_one_to_nothing(name):
    values = window(name, 500)
    assert values[0] == pytest.approx(1.0, abs=1e-15)
    assert (np.diff(values) < 0).all()
    assert 0 <= values[-1] < 0.003


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gaussian", 3.5 * 2 * np.sqrt(2 * np.log(2)) / (2 * np.pi)),  # of an untruncated Gaussian
        ("hann", 1.0),  # two bins of 1 / (2 depth)
        ("blackman", 1.1494),
    ],
)
def test_resolution_is_the_width_known_from_the_literature(name, expected):
    depth = 1234.0
    assert resolution(name, depth) * SPEED_OF_LIGHT * depth == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_a_sharp_line_keeps_its_area_and_gets_the_stated_width(name):
    depth = 500.0
    offset = np.linspace(-3000, 3000, 12001)
    shape = line_shape(name, depth, offset)
    assert trapezoid(shape, offset) == pytest.approx(1.0, abs=1e-3)
    wide = offset[shape > 0.5 * shape.max()]
    assert wide[-1] - wide[0] == pytest.approx(resolution(name, depth), abs=1.1)


def test_unknown_window():
    with pytest.raises(PaiNNFastError, match=r"unknown window.*'hamming'.*gaussian \| hann"):
        window("hamming", 10)
