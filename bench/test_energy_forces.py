"""Energy and forces: `pytest bench --benchmark-only`. A side whose forces are wrong fails and gives no time."""

from __future__ import annotations

import pytest
import torch
from cases import CASES, paper_model

from painn_fast.evaluate import evaluate
from painn_fast.graph import batch_atoms
from painn_fast.testing import assert_close


@pytest.fixture(scope="module")
def potential():
    return paper_model()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("side", ["engine", "reference"])
def test_energy_and_forces(benchmark, potential, case, side):
    benchmark.group = f"energy + forces, {case}, {torch.get_num_threads()} threads"
    structures = CASES[case]()
    expected = evaluate(potential, structures, ["energy", "forces"], backend="reference")
    backend = {"engine": "fused", "reference": "reference"}[side]
    got = evaluate(potential, structures, ["energy", "forces"], backend=backend)
    for k, forces in enumerate(expected["forces"]):
        assert_close(got["forces"][k], forces, 1e-4, f"forces of structure {k}")
    batch = batch_atoms(structures, potential.cutoff)
    benchmark.extra_info |= {"atoms": batch.n_total, "edges": len(batch.receiver), "torch": torch.__version__}
    benchmark.pedantic(evaluate, (potential, structures), {"backend": backend}, rounds=7, iterations=1, warmup_rounds=2)
