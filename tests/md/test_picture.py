"""The picture of a run: drift, and files of one and of several molecules."""

from types import SimpleNamespace

import numpy as np
import pytest
from ase.build import molecule

from painn_fast.md import MDSettings, run
from painn_fast.md.picture import draw_runs, drift


def test_drift_is_the_slope_of_each_trajectory():
    time = np.arange(100.0)  # fs
    slopes = np.array([1.0, 3.0, 5.0])  # meV/atom/ps
    conserved = 7.0 + 4 * slopes * time[:, None] * 1e-6  # eV, 4 atoms
    recorded = {("energies", "time"): time, ("energies", "conserved"): conserved}
    fake = SimpleNamespace(
        alive=np.ones(3, dtype=bool), system=SimpleNamespace(numbers=np.ones(4)),
        read_columns=lambda series, columns: {column: recorded[series, column] for column in columns},
    )  # fmt: skip
    assert drift(fake) == pytest.approx((3.0, 2.0 / np.sqrt(3.0)))


def test_each_molecule_has_a_picture(tmp_path):
    short = {"ensemble": "nve", "duration": "4 fs", "energies_every": "1 fs", "trajectories": 2}
    molecules = [molecule("CH3CH2OH"), molecule("CH3OH")]
    path = run(MDSettings(model="ethanol", **short, output=str(tmp_path / "md")), atoms=molecules)
    drawn = draw_runs(path)
    assert [one.name for one in drawn] == ["energies.png"] * 2
    assert len({one.parent for one in drawn}) == 2
