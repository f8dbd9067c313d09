"""Worker processes: whatever happens to them, each structure has its labels once, in order."""

import numpy as np
import pytest
from ase.build import molecule

from painn_fast.errors import PaiNNFastError
from painn_fast.label.methods import How
from painn_fast.label.workers import Workers


def _stretched(count):
    frames = [molecule("H2O") for _ in range(count)]
    for k, frame in enumerate(frames):
        frame.positions *= 1.0 + 0.01 * k
    return frames


def test_a_killed_worker_s_structures_are_labelled_by_another(tmp_path):
    frames = _stretched(5)
    how = How("dying_calculator:DyingEMT", options=(("marker", str(tmp_path / "died")),))
    tasks = ((k, frame, False) for k, frame in enumerate(frames))
    with Workers(how, 2) as workers:
        found = list(workers.results(tasks))
    assert (tmp_path / "died").exists()
    assert sorted(k for k, _ in found) == list(range(5))  # none twice
    right = How("ase.calculators.emt:EMT").make()
    for k, entry in found:
        assert entry["energy"] == right(frames[k], False)["energy"]


def test_a_structure_that_kills_every_worker_is_an_error():
    with (
        Workers(How("dying_calculator:AlwaysDying"), 1) as workers,
        pytest.raises(PaiNNFastError, match="structure 0 or one beside it; got: 3 times"),
    ):
        list(workers.results(iter([(0, molecule("H2O"), False)])))


def test_shares_come_back_in_the_order_of_the_structures():
    frames = _stretched(5)
    with Workers(How("ase.calculators.emt:EMT"), 2) as workers:
        energies = [entry["energy"] for entry in workers.all(frames)]
    right = How("ase.calculators.emt:EMT").make()
    assert energies == [right(frame, False)["energy"] for frame in frames]
    assert len(set(energies)) == 5


def test_labels_of_tblite_do_not_depend_on_the_structures_before():
    pytest.importorskip("tblite")
    method, frames = How("tblite").make(), _stretched(4)
    forward = [method(frame, False)["forces"] for frame in frames]
    backward = [method(frame, False)["forces"] for frame in reversed(frames)][::-1]
    assert np.array_equal(forward, backward)


def test_the_structures_of_a_dask_worker_that_is_killed_are_labelled_by_the_other(tmp_path):
    distributed = pytest.importorskip("distributed")
    from painn_fast.label.dask import DaskWorkers

    frames = _stretched(12)
    how = How("dying_calculator:DyingEMT", options=(("marker", str(tmp_path / "died")),))
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with (
        distributed.LocalCluster(**options) as cluster,
        DaskWorkers(how, cluster.scheduler_address) as workers,
    ):
        found = dict(workers.results((k, frame, False) for k, frame in enumerate(frames)))
    assert (tmp_path / "died").exists()
    right = How("ase.calculators.emt:EMT").make()
    assert [found[k]["energy"] for k in range(12)] == [right(frame, False)["energy"] for frame in frames]


def test_no_scheduler_is_an_error_with_the_address(monkeypatch):
    pytest.importorskip("distributed")
    from painn_fast.label import dask
    from painn_fast.label.dask import DaskWorkers

    monkeypatch.setattr(dask, "TIMEOUT", "1s")
    with pytest.raises(PaiNNFastError, match=r"no Dask scheduler; where: tcp://127.0.0.1:1"):
        DaskWorkers(How("tblite"), "tcp://127.0.0.1:1")
