"""The check of an engine against the reference: no fault passes, and no right engine is refused."""

import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from painn_fast.engine import CpuEngine, check
from painn_fast.errors import PaiNNFastError
from painn_fast.graph import batch_atoms
from painn_fast.io import load
from painn_fast.io.find import MODELS
from painn_fast.io.structures import read_structures
from painn_fast.nn import EnergyHead, PotentialConfig, RepresentationConfig
from painn_fast.testing import random_potential

pytest.importorskip("triton")

from painn_fast.engine import layers_gpu, passes_gpu
from painn_fast.engine.gpu import GpuEngine

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STRUCTURES = {
    "molecule": lambda: [molecule("CH3CH2OH")],
    "symmetric crystal": lambda: [Atoms("O", cell=[2.1, 2.2, 2.3], pbc=True) * (2, 2, 1)],
    "symmetric molecule": lambda: [molecule("CH4")],
}
DISAGREES = "disagrees with the reference"


def build(dtype=torch.float32, **more):
    values = {"n_features": 32, "n_layers": 3, "n_rbf": 12, "cutoff": 4.0, "epsilon": 1e-8, **more}
    config = PotentialConfig(representation=RepresentationConfig(**values), heads=(EnergyHead(),))
    return random_potential(config, dtype=dtype)


def run(engine, structures):
    batch = batch_atoms(structures, engine.potential.cutoff)
    return engine(engine.workspace(batch), batch.positions)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_atoms_without_any_neighbour_pass(dtype):
    engine = CpuEngine(build(dtype))
    alone = run(engine, [Atoms("H")])
    assert not alone["forces"].any()
    assert engine.checked
    two = run(engine, [Atoms("H2", positions=[[0, 0, 0], [0, 0, 9]])])
    torch.testing.assert_close(two["energy"], 2 * alone["energy"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize(
    "option",
    [{}, {"radial_basis": "gaussian"}, {"cutoff_function": "mollifier"}, {"n_features": 128}, {"n_layers": 6}],
    ids=["sinc", "gaussian", "mollifier", "wide", "deep"],
)
def test_a_right_engine_passes(option, structure, dtype):
    engine = CpuEngine(build(dtype, **option))
    run(engine, STRUCTURES[structure]())
    assert engine.checked


def test_forces_that_cancel_are_no_measure_of_what_may_be_off():
    """In a simple crystal all forces are rounding; here weights are so large that it is 1e-3 eV/Å and more."""
    potential = build(cutoff=5.0)
    with torch.no_grad():
        for head in potential.heads["energy"].network:
            for parameter in head.parameters():
                parameter.mul_(30.0)
    engine = CpuEngine(potential)
    run(engine, [Atoms("O", cell=[2.1, 2.2, 2.3], pbc=True) * (3, 2, 1)])
    assert engine.checked


@pytest.mark.parametrize("distance", [1.1, 3.9, 3.999, 4.5])
def test_a_pair_at_the_cutoff_passes_and_is_compared(distance):
    potential = build()
    structures = [Atoms("CO", [[0, 0, 0], [0, 0, distance]])]
    engine = CpuEngine(potential)
    run(engine, structures)
    assert engine.checked
    wrong = CpuEngine(potential)
    wrong.weights.table[:] *= 1.001
    with pytest.raises(PaiNNFastError, match=DISAGREES):
        run(wrong, structures)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_filter_that_is_off_by_a_ten_thousandth_is_found(layer, structure):
    engine = CpuEngine(build())
    engine.weights.table[layer] *= 1.0 + 4e-4
    with pytest.raises(PaiNNFastError, match=DISAGREES):
        run(engine, STRUCTURES[structure]())


def test_a_filter_of_a_trained_model_off_by_a_ten_thousandth_is_found():
    engine = CpuEngine(load("ethanol"))
    engine.weights.table[:] *= 1.0 + 1e-4
    with pytest.raises(PaiNNFastError, match=DISAGREES):
        run(engine, read_structures(MODELS / "ethanol.xyz"))


FORWARD = ["message_1", "message_2", "mix", "update_1", "update_2"]
BIASES = ["message_1_bias", "message_2_bias", "update_1_bias", "update_2_bias"]
BACKWARD = [f"{name}_t" for name in FORWARD]


@pytest.mark.parametrize("structure", ["molecule", "symmetric crystal"])
@pytest.mark.parametrize("name", [*FORWARD, *BIASES, *BACKWARD, "readout_last", "readout_offset", "embedding"])
@pytest.mark.parametrize("fault", ["sign", "dropped"])
def test_a_term_with_the_wrong_sign_or_none_at_all_is_found(fault, name, structure):
    engine = CpuEngine(build())
    layers = engine.weights.layers
    array = getattr(layers if name in layers._fields else engine.weights, name)
    which = 1 if array.ndim > 1 and name != "embedding" else slice(None)  # the middle layer
    array[which] = -array[which] if fault == "sign" else 0.0
    with pytest.raises(PaiNNFastError, match=DISAGREES):
        run(engine, STRUCTURES[structure]())


@pytest.mark.parametrize("gate", range(3))
@pytest.mark.parametrize("structure", ["molecule", "symmetric crystal"])
def test_a_message_without_one_of_its_gates_is_found(structure, gate):
    engine = CpuEngine(build())
    f = engine.weights.embedding.shape[1]
    engine.weights.table[1, :, gate * f : (gate + 1) * f] = 0.0
    with pytest.raises(PaiNNFastError, match=DISAGREES):
        run(engine, STRUCTURES[structure]())


def test_an_engine_that_gives_no_numbers_is_refused_and_stays_so():
    engine = CpuEngine(build())
    engine.weights.table[1, 50:100] = math.nan  # 0.8 to 1.6 Å
    batch = batch_atoms([molecule("CH3CH2OH")], 4.0)
    for _ in range(2):
        with pytest.raises(PaiNNFastError, match=r"disagrees with the reference.*atoms are not finite"):
            engine(engine.workspace(batch), batch.positions)
        assert not engine.checked


def test_an_engine_that_gives_numbers_where_there_are_none_is_refused():
    potential = build()
    batch = batch_atoms([molecule("H2O"), molecule("CH4")], potential.cutoff)

    def made_up(batch):
        return {"energies": torch.zeros(batch.n_total), "forces": torch.zeros(batch.n_total, 3)}

    with torch.no_grad():
        potential.representation.embedding.weight[6] = math.nan
    with pytest.raises(PaiNNFastError, match=r"finite energies in 1 molecules; expected: none"):
        check.check_engine(made_up, potential, batch)


@pytest.mark.parametrize("bad", [math.nan, math.inf, "coincide"])
def test_positions_that_cannot_be_compared_leave_the_check_for_the_next_batch(bad):
    engine = CpuEngine(build())
    batch = batch_atoms([molecule("H2O"), molecule("CH4")], 4.0)
    work = engine.workspace(batch)
    positions = batch.positions.clone()
    positions[1] = positions[0] if bad == "coincide" else bad
    results = engine(work, positions, finite=False)
    assert results["forces"][:3].isnan().any()
    assert results["forces"][3:].isfinite().all()
    if bad != "coincide":
        assert not engine.checked
    engine(work, batch.positions)
    assert engine.checked


def gpu_engine(node="auto", **more):
    potential = build(n_features=16, n_layers=2, n_rbf=4, **more).to(DEVICE)
    return GpuEngine(potential, node=node)


def run_gpu(engine, name="H2O"):
    batch = batch_atoms([molecule(name)], engine.potential.cutoff).to(DEVICE)
    return engine(engine.workspace(batch), batch.positions)


def test_the_gpu_engine_with_nan_in_a_kernel_is_refused():
    engine = gpu_engine()
    engine.weights.layers[0].filter[0, 0] = math.nan
    for _ in range(2):
        with pytest.raises(PaiNNFastError, match=DISAGREES):
            run_gpu(engine)
        assert not engine.checked


def test_the_gpu_engine_with_a_filter_that_is_a_little_off_is_refused():
    engine = gpu_engine()
    engine.weights.layers[0].filter.mul_(1 + 4e-4)
    with pytest.raises(PaiNNFastError, match=DISAGREES):
        run_gpu(engine)


@pytest.mark.parametrize("fault", ["a force is not added", "residual dropped"])
def test_the_gpu_engine_without_a_term_is_refused(fault, monkeypatch):
    right = passes_gpu.message_force_bwd

    def wrong(*arguments, residual, add, out):
        return right(*arguments, residual=residual and fault != "residual dropped", add=add and "added" not in fault,
                     out=out)  # fmt: skip

    monkeypatch.setattr(passes_gpu, "message_force_bwd", wrong)
    with pytest.raises(PaiNNFastError, match=DISAGREES):
        run_gpu(gpu_engine("blas"))


@pytest.mark.parametrize("fault", ["a force is not added", "no adjoint of the readout"])
def test_the_gpu_engine_by_layers_without_a_term_is_refused(fault, monkeypatch):
    right = layers_gpu.layer_bwd

    def wrong(gs, gv, *arguments, add, **more):
        if "adjoint" in fault and not add:
            gs = torch.zeros_like(gs)
        return right(gs, gv, *arguments, add=add and "added" not in fault, **more)

    monkeypatch.setattr(layers_gpu, "layer_bwd", wrong)
    with pytest.raises(PaiNNFastError, match=DISAGREES):
        run_gpu(gpu_engine())


@pytest.mark.parametrize("name", ["H2O", "CH4"])
def test_the_gpu_engine_that_is_right_passes(name):
    engine = gpu_engine()
    run_gpu(engine, name)
    assert engine.checked


def test_the_check_does_not_change_what_the_engine_gives():
    potential = build()
    batch = batch_atoms([bulk("MgO", "rocksalt", a=4.2)], potential.cutoff)
    results = []
    for checked in (False, True):
        engine = CpuEngine(potential)
        engine.checked = checked
        results.append(engine(engine.workspace(batch), batch.positions))
    for name in ("energy", "forces"):
        np.testing.assert_array_equal(results[0][name], results[1][name])
