"""What an accelerated SchNetPack model runs: the compiled operation with all derivatives, or its blocks elsewhere."""

import copy
import logging
import pickle
import re

import pytest
import torch
from accelerated_models import both, frames, values
from ase.build import bulk
from torch import nn

from painn_fast.graph import batch_atoms
from painn_fast.kernels.network import ops
from painn_fast.testing import TABLE_TOLERANCE, TOLERANCE, assert_close

COMPILED = {
    "gaussian": lambda s: {},
    "odd features": lambda s: {"n": 6},
    "centred": lambda s: {"radial": s.GaussianRBFCentered(6, 4.0)},
    "bessel": lambda s: {"radial": s.BesselRBF(7, 4.0)},
    "shared filters": lambda s: {"layers": 3, "shared_filters": True},
    "shared interactions": lambda s: {"layers": 3, "shared_interactions": True},
    "shifted softplus": lambda s: {"activation": s.shifted_softplus},
    "module": lambda s: {"activation": nn.SiLU(), "epsilon": 1e-2},
    "charge": lambda s: {"electronic_embeddings": [s.ElectronicEmbedding("total_charge", 8, True)]},
    "tensors": lambda s: {"heads": [s.Atomwise(8, [4]), s.Forces(), s.DipoleMoment(8, [4]), s.Polarizability(8, [4])]},
}
BLOCKS = {
    "trained": (lambda s: {"radial": s.GaussianRBF(7, 4.0, trainable=True)}, "basis that is trained"),
    "mollifier": (lambda s: {"cutoff": s.MollifierCutoff(3.5)}, r"cut-off function schnetpack\.nn\.cutoff\.Mollifier"),
    "tanh": (lambda s: {"activation": torch.tanh}, "activation other than"),
}


def force_loss(model, inputs):
    out = model(inputs)
    return sum(value.square().sum() for key, value in out.items() if key in ("energy", "forces", "dipole_moment"))


@pytest.mark.parametrize("option", COMPILED)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float64", "float32"])
def test_gradients_of_a_loss_over_forces_are_those_of_the_untouched_model(spk, option, dtype):
    plain, live = both(spk, dtype, **COMPILED[option](spk))
    assert live.representation.path == "compiled"
    for model in (plain.train(), live.train()):
        force_loss(model, spk.batch(frames(), dtype, shuffle=True)).backward()
    same_gradients(live, plain, 10 * TOLERANCE[dtype])


def same_gradients(live, plain, tolerance):
    """Relative to the largest of all: some are sums that cancel."""
    largest = max(float(p.grad.abs().max()) for p in plain.parameters() if p.grad is not None)
    for name, parameter in plain.named_parameters():
        got = live.get_parameter(name).grad
        assert (got is None) == (parameter.grad is None), name
        if got is not None:
            assert float((got - parameter.grad).abs().max()) <= tolerance * largest, name


@pytest.mark.parametrize("option", ["gaussian", "odd features", "shared filters", "shared interactions"])
def test_gradients_in_eval_mode_are_those_of_the_untouched_model(spk, option):
    plain, live = both(spk, **COMPILED[option](spk))
    for model in (plain, live):
        features_of(model, spk.batch(frames(), torch.float64)).square().sum().backward()
        again = features_of(model, spk.batch(frames(), torch.float64)).square().sum()
        weight = model.representation.interactions[0].interatomic_context_net[0].weight
        (first,) = torch.autograd.grad(again, weight, create_graph=True)
        first.square().sum().backward()
    same_gradients(live, plain, 1e-9)


def features_of(model, inputs):
    """s and v of all atoms, [N, 4 F]."""
    out = model.representation(model.input_modules[0](dict(inputs)))
    return torch.cat([out["scalar_representation"], out["vector_representation"].flatten(1)], dim=1)


@pytest.mark.parametrize("option", BLOCKS)
def test_what_the_operation_lacks_runs_in_blocks_and_is_named(spk, option):
    options, reason = BLOCKS[option]
    plain, live = both(spk, **options(spk))
    assert re.match(f"blocks: .*{reason}", live.representation.path)
    expected = values(plain, spk.batch(frames(), torch.float64))
    for key, value in values(live, spk.batch(frames(), torch.float64)).items():
        assert_close(value, expected[key], 1e-10, key)


def test_a_basis_whose_parameters_are_frozen_runs_compiled(spk):
    plain, live = both(spk, radial=spk.GaussianRBF(7, 4.0, trainable=True))
    live.representation.radial_basis.requires_grad_(False)
    assert live.representation.path == "compiled"
    inputs = spk.batch(frames(), torch.float64)
    assert_close(values(live, inputs)["forces"], values(plain, inputs)["forces"], 1e-10)


def test_a_list_that_is_not_symmetric_gives_the_same_numbers(spk, caplog):
    plain, live = both(spk)
    inputs = spk.batch(frames(), torch.float64, shuffle=True)
    for key in ("_idx_i", "_idx_j", "_offsets"):
        inputs[key] = inputs[key][3:]
    with caplog.at_level(logging.DEBUG, "painn_fast.schnetpack"):
        got, expected = values(live, inputs), values(plain, inputs)
    assert "not symmetric" in caplog.text
    for key in ("energy", "forces"):
        assert_close(got[key], expected[key], 1e-10, key)


def test_molecules_whose_atoms_are_mixed_up_are_one_graph(spk):
    plain, live = both(spk)
    inputs = spk.batch(frames(), torch.float64)
    order = torch.randperm(len(inputs["_atomic_numbers"]), generator=torch.Generator().manual_seed(0))
    to = order.argsort()
    inputs |= {key: inputs[key][order] for key in ("_atomic_numbers", "_positions", "_idx_m")}
    inputs |= {key: to[inputs[key]] for key in ("_idx_i", "_idx_j")}
    assert_close(features_of(live, inputs).detach(), features_of(plain, inputs).detach(), 1e-10)


ENGINE = {
    "gaussian": lambda s: {},
    "odd features": lambda s: {"n": 6},
    "bessel": lambda s: {"radial": s.BesselRBF(7, 4.0)},
    "shared filters": lambda s: {"layers": 3, "shared_filters": True},
    "shared interactions": lambda s: {"layers": 3, "shared_interactions": True},
    "shifted softplus": lambda s: {"activation": s.shifted_softplus},
    "tensors": COMPILED["tensors"],
    "deep readout": lambda s: {"heads": [s.Atomwise(8, [7, 3]), s.Forces()]},
    "energy": lambda s: {"heads": [s.Atomwise(8, [4])]},
}


@pytest.mark.parametrize("option", ENGINE)
def test_a_model_in_eval_mode_runs_on_the_engine_and_leaves_the_same_dictionary(spk, option):
    plain, live = both(spk, torch.float32, **ENGINE[option](spk))
    assert live.path == "engine"
    plain.double()
    for shuffle in (False, True, False):  # the second list is another, the third is kept
        inputs = [spk.batch(frames(), dtype, shuffle=shuffle) for dtype in (torch.float64, torch.float32)]
        with torch.set_grad_enabled(option != "energy"):
            expected, got = plain(inputs[0]), live(inputs[1])
        assert list(got) == list(expected)
        assert inputs[1].keys() == inputs[0].keys()
        for key, value in inputs[0].items():
            assert_close(inputs[1][key].detach(), value.detach(), TABLE_TOLERANCE, key)
        features = inputs[1]["scalar_representation"], inputs[1]["vector_representation"], got["energy"]
        assert not any(one.requires_grad for one in features), "nothing that the engine made has a graph"


OFF_ENGINE = {
    "mean": (lambda s: {"heads": [s.Atomwise(8, [4], aggregation_mode="avg"), s.Forces()]}, "no Atomwise that sums"),
    "response": (lambda s: {"heads": [s.Atomwise(8, [4]), s.Response("energy", ["forces"])]}, "output modules other"),
    "short range": (lambda s: {}, "input modules"),
    "charge": (COMPILED["charge"], "embeddings of charge"),
    "tanh in the readout": (lambda s: {"heads": [s.Atomwise(8, [4], torch.tanh), s.Forces()]}, "a readout other than"),
    "one layer": (lambda s: {"heads": [s.Atomwise(8, []), s.Forces()]}, "a readout other than"),
}


@pytest.mark.parametrize("option", OFF_ENGINE)
def test_what_the_engine_does_not_replace_runs_module_by_module_and_is_named(spk, option):
    options, reason = OFF_ENGINE[option]
    plain, live = both(spk, torch.float32, **options(spk))
    if option == "short range":
        for model in (plain, live):
            model.input_modules.append(spk.FilterShortRange())
    assert re.match(f"modules: .*{reason}", live.path)
    if option != "short range":
        inputs = spk.batch(frames())
        assert_close(values(live, inputs)["energy"], values(plain, inputs)["energy"], 1e-5)


def test_the_engine_follows_weights_modes_hooks_and_dtypes(spk):
    plain, live = both(spk, torch.float32)
    plain.double()

    def same(path):
        assert live.path.startswith(path)
        dtype = live.representation.embedding.weight.dtype
        expected, got = (values(m, spk.batch(frames(), d)) for m, d in ((plain, torch.float64), (live, dtype)))
        assert_close(got["forces"], expected["forces"], TABLE_TOLERANCE)

    same("engine")
    for name in (
        "representation.embedding.weight",
        "output_modules.0.outnet.0.weight",
        "representation.filter_net.bias",
    ):
        for model in (plain, live):
            model.get_parameter(name).data[7 if "embedding" in name else 0] += 0.5
        same("engine")
    optimizers = [torch.optim.SGD(model.parameters(), 1e-3) for model in (plain, live)]
    for model, optimizer in zip((plain, live), optimizers, strict=True):
        force_loss(model.train(), spk.batch(frames(), model.representation.embedding.weight.dtype)).backward()
        optimizer.step()
        model.eval()
    same("engine")
    live.load_state_dict({key: value.float() for key, value in plain.state_dict().items()}, assign=True)
    same("engine")
    seen = []
    handle = live.output_modules[0].register_forward_hook(lambda *given: seen.append(1))
    same("modules: a hook")
    assert seen
    handle.remove()
    same("engine")
    live.double()
    same("modules: float64")


def test_derivatives_through_the_results_of_the_engine_are_refused(spk):
    _, live = both(spk, torch.float32, **COMPILED["tensors"](spk))
    inputs = spk.batch(frames())
    results = live(inputs)
    for key in ("energy", "dipole_moment"):
        with pytest.raises(RuntimeError, match="does not require grad"):
            torch.autograd.grad(results[key].sum(), inputs["_positions"])


def test_a_model_that_the_engine_disagrees_with_runs_module_by_module(spk, monkeypatch, caplog):
    plain, live = both(spk, torch.float32)
    monkeypatch.setattr("painn_fast.engine.cpu.AGREEMENT", 0.0)
    monkeypatch.setattr("painn_fast.engine.check.ROUNDING", 0.0)
    inputs = spk.batch(frames())
    for _ in range(2):
        assert_close(values(live, inputs)["forces"], values(plain, inputs)["forces"], 1e-5)
    assert caplog.text.count("disagrees with the reference") == 1


def hessian(model, inputs):
    positions = inputs["_positions"].requires_grad_()
    forces = model(inputs)["forces"]
    return torch.autograd.grad(forces[:, 0].square().sum(), positions, create_graph=True)[0].detach()


def test_derivatives_of_forces_in_the_positions_are_exact(spk):
    plain, live = (model.train() for model in both(spk))
    expected, got = (hessian(model, spk.batch(frames(), torch.float64)) for model in (plain, live))
    assert_close(got, expected, 1e-9)


def test_forces_in_eval_mode_take_no_gradients_of_weights(spk, monkeypatch):
    _, live = both(spk)
    seen, reverse = [], ops._reverse
    monkeypatch.setattr(ops, "_reverse", lambda *given: seen.append(given[3:5]) or reverse(*given))
    live(spk.batch(frames(), torch.float64))
    assert seen == [(True, False)], "edges, weights"


def test_weights_written_through_data_are_used(spk):
    plain, live = both(spk)
    inputs = spk.batch(frames(), torch.float64)
    values(live, inputs)
    for model in (plain, live):
        model.representation.mixing[1].mu_channel_mix.weight.data[0, 0] += 0.5
    assert_close(values(live, inputs)["forces"], values(plain, inputs)["forces"], 1e-10)


def test_hooks_inside_of_the_representation_run(spk):
    _, live = both(spk)
    seen, inputs = [], spk.batch(frames(), torch.float64)
    expected = values(live, inputs)
    handle = live.representation.mixing[0].register_forward_hook(lambda *given: seen.append(type(given[0])))
    assert "hook" in live.representation.path
    assert_close(values(live, inputs)["forces"], expected["forces"], 1e-10)
    assert len(seen) == 1
    handle.remove()
    assert live.representation.path == "compiled"


def test_a_block_that_is_replaced_is_noticed(spk):
    _, live = both(spk)
    values(live, spk.batch(frames(), torch.float64))
    live.representation.interactions[0].interatomic_context_net[0].activation = torch.tanh
    assert "activation" in live.representation.path


@pytest.mark.parametrize("path", ["engine", "modules: float64, which is exact"])
def test_pickles_and_copies_run_compiled(spk, path):
    _, live = both(spk, torch.float32 if path == "engine" else torch.float64)
    inputs = spk.batch(frames(), live.representation.embedding.weight.dtype)
    expected = values(live, inputs)
    with spk.installed():
        again = pickle.loads(pickle.dumps(live))
    for model in (again, copy.deepcopy(live)):
        assert type(model) is type(live)
        assert (model.representation.path, model.path) == ("compiled", path)
        assert_close(values(model, inputs)["forces"], expected["forces"], 1e-12)


def test_without_gradients_the_features_are_the_same(spk):
    plain, live = both(spk)
    inputs = live.input_modules[0](spk.batch(frames(), torch.float64))
    with torch.no_grad():
        expected, got = plain.representation(dict(inputs)), live.representation(dict(inputs))
    for key in ("scalar_representation", "vector_representation"):
        assert_close(got[key], expected[key], 1e-10, key)
        assert not got[key].requires_grad


def test_a_first_call_in_inference_mode_leaves_weights_that_autograd_can_use(spk):
    plain, live = both(spk)
    inputs = live.input_modules[0](spk.batch(frames(), torch.float64))
    with torch.inference_mode():
        live.representation(dict(inputs))
    inputs = spk.batch(frames(), torch.float64)
    assert_close(values(live, inputs)["forces"], values(plain, inputs)["forces"], 1e-10)


def test_a_basis_in_another_dtype_runs_in_blocks(spk):
    _, live = both(spk, torch.float32)
    live.representation.radial_basis.double()
    assert "another dtype" in live.representation.path


def test_autocast_and_transforms_of_torch_take_the_blocks(spk):
    plain, live = both(spk)
    inputs = live.input_modules[0](spk.batch(frames(), torch.float64))

    def total(model):
        return lambda r: model.representation({**inputs, "_Rij": r})["scalar_representation"].sum()

    expected, got = (torch.func.grad(total(model))(inputs["_Rij"]) for model in (plain, live))
    assert_close(got.detach(), expected.detach(), 1e-10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.isfinite(total(live)(inputs["_Rij"]))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float64", "float32"])
def test_stress_of_a_crystal_is_that_of_the_untouched_model(spk, dtype):
    strain = pytest.importorskip("schnetpack").atomistic.Strain if spk.__name__ == "real_schnetpack" else None
    if strain is None:
        pytest.skip("the stand-in has no strain")
    plain, live = both(spk, dtype)
    crystal = bulk("NaCl", "rocksalt", a=4.2).repeat((2, 1, 1))
    crystal.set_cell(crystal.cell.array * [1, 1, -1], scale_atoms=True)  # left-handed: SchNetPack's volume has a sign
    crystal.rattle(0.05, seed=1)
    graph = batch_atoms([crystal], 4.0, neighbors="list")
    results = []
    for model in (plain.double(), live):
        forces = next(module for module in model.output_modules if hasattr(module, "calc_stress"))
        forces.calc_stress, forces.required_derivatives = True, ["_positions", "strain"]
        model.input_modules.insert(0, strain())
        model.collect_derivatives()
        model.model_outputs = ["energy", "forces", "stress"]
        kind = torch.float64 if model is plain else dtype
        inputs = {
            "_atomic_numbers": graph.numbers, "_positions": graph.positions.to(kind, copy=True),
            "_cell": graph.cell.to(kind, copy=True), "_n_atoms": graph.n_atoms, "_idx_m": graph.molecule,
            "_idx_i": graph.receiver, "_idx_j": graph.sender, "_offsets": graph.shift.to(kind, copy=True),
            "_pbc": graph.pbc,
        }  # fmt: skip
        results.append({key: value.detach() for key, value in model(inputs).items()})
    assert live.path == ("engine" if dtype == torch.float32 else "modules: float64, which is exact")
    for key in ("energy", "forces", "stress"):
        assert_close(results[1][key], results[0][key], 1e-10 if dtype == torch.float64 else TABLE_TOLERANCE, key)
