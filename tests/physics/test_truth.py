"""Methods of dynamics beside vibrations that are known exactly; docs/spectra.md has the table of the same surfaces."""

import pytest
import torch
from bench_script import bench_script

from painn_fast.md.forces import SumForces


@pytest.fixture(scope="module")
def truth():
    """bench/truth.py."""
    with bench_script("truth") as module:
        yield module


def band(truth, surface, fitted):
    """Centre and width of the fundamental of classical motion on a surface and a correction."""

    def potential(x):
        return surface.at(x) + fitted(torch.as_tensor(x), torch.zeros(())).numpy()

    return truth.classical_band(potential, truth.TEMPERATURE)


def test_fundamentals_are_exact(truth):
    assert truth.MORSE.fundamentals()["x"] == pytest.approx(3919 - 2 * 85, abs=0.01)
    coarse, converged = truth.COUPLED.fundamentals((40, 28)), truth.COUPLED.fundamentals()
    assert converged == pytest.approx({"x": 3746.8, "y": 1664.9}, abs=0.1)
    assert coarse == pytest.approx(converged, abs=0.1)


def test_perturbation_theory_of_oscillators_that_are_solved_exactly(truth):
    assert truth.perturbation(truth.MORSE)["x"] == pytest.approx(truth.MORSE.fundamentals()["x"], abs=1)
    assert truth.perturbation(truth.COUPLED) == pytest.approx(truth.COUPLED.fundamentals(), abs=8)


def test_kinetic_energy_by_the_number_of_beads(truth):
    assert [round(truth.kinetic_energy(3919.0, beads), 2) for beads in (16, 32, 64)] == [0.86, 0.96, 0.99]
    assert truth.kinetic_energy(50.0, 64) == pytest.approx(1.0, abs=1e-4)


def test_bands_on_the_exact_centroid_potential(truth):
    classical, width = truth.classical_band(truth.MORSE.at, truth.TEMPERATURE)
    assert classical == pytest.approx(3901, abs=1)
    for temperature, expected in ((300.0, 3787), (500.0, 3804), (600.0, 3813)):
        centre, its_width = truth.exact_centroid_band(truth.MORSE, temperature)
        assert centre == pytest.approx(expected, abs=1.5)
        assert its_width == pytest.approx(width, rel=0.1)
    few = truth.exact_centroid_band(truth.MORSE, 600.0, beads=8)[0]
    assert few == pytest.approx(truth.exact_centroid_band(truth.MORSE, 600.0, beads=64)[0], abs=2)


@pytest.mark.parametrize(("temperature", "beads"), [(600.0, 8), (300.0, 16)])
def test_te_pigs_has_the_band_of_the_exact_centroid_potential(truth, temperature, beads, tmp_path):
    """What our sampler gives, fitted by a polynomial; without a correction the band is 90 to 115 cm-1 above."""
    fitted = truth.correction(truth.MORSE, beads, temperature, 8, "0.3 ps", degree=4)
    exact, width = truth.exact_centroid_band(truth.MORSE, temperature)
    centre, its_width = band(truth, truth.MORSE, fitted)
    assert centre == pytest.approx(exact, abs=6)
    assert its_width == pytest.approx(width, rel=0.4)


@pytest.mark.slow
@pytest.mark.parametrize("shipped", [False, True])
@pytest.mark.parametrize("temperature", [300.0, 600.0])
def test_dynamics_of_te_pigs(truth, temperature, shipped, tmp_path):
    """At constant energy in short steps, and as the verb runs it: under a weak thermostat in steps of 1 fs."""
    homes = truth.oscillators().positions
    fitted = truth.correction(truth.MORSE, 16, temperature, 8, "1 ps", degree=4)
    both = SumForces([truth.Oscillators(homes, truth.MORSE.energy), truth.Oscillators(homes, fitted, across=0.0)])
    ensemble, more = ("langevin", truth.SHIPPED) if shipped else ("nve", {})
    centre, error = truth.centres(both, ensemble, 1, 8, "5 ps", {"x": (3300.0, 4300.0)}, **more)["x"]
    assert error < 4
    assert centre == pytest.approx(truth.exact_centroid_band(truth.MORSE, temperature)[0], abs=10)


@pytest.mark.slow
def test_bands_of_the_coupled_oscillators(truth):
    """Each method against the exact fundamentals: 3746.8 and 1664.9 cm-1."""
    homes, bands = truth.oscillators().positions, {"x": (3300.0, 4300.0), "y": (1200.0, 2100.0)}
    field, exact = truth.Oscillators(homes, truth.COUPLED.energy), truth.COUPLED.fundamentals()
    fitted = truth.correction(truth.COUPLED, 8, 600.0, 8, "1 ps")
    both = SumForces([field, truth.Oscillators(homes, fitted, across=0.0)])
    found = {
        "classical": truth.centres(field, "nve", 1, 8, "5 ps", bands),
        "te-pigs": truth.centres(both, "nve", 1, 8, "5 ps", bands),
    }
    above = {name: centres["x"][0] - exact["x"] for name, centres in found.items()}
    assert above["classical"] > 120
    assert 30 < above["te-pigs"] < 100
