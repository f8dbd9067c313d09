"""A live SchNetPack model with our representation inside: the same outputs, parameters, state dict and training."""

import copy

import pytest
import torch
from ase.build import molecule
from torch import nn
from torch.nn import functional

import painn_fast as pf
from painn_fast.errors import PaiNNFastError
from painn_fast.schnetpack import PaiNN, accelerate
from painn_fast.schnetpack.painn import graph
from painn_fast.testing import TABLE_TOLERANCE, TOLERANCE, assert_close

OPTIONS = {
    "gaussian": lambda s: {},
    "sinc": lambda s: {"radial": s.BesselRBF(7, 4.0)},
    "trainable basis": lambda s: {"radial": s.GaussianRBF(7, 4.0, trainable=True)},
    "mollifier": lambda s: {"cutoff": s.MollifierCutoff(3.5)},
    "shared filters": lambda s: {"layers": 3, "shared_filters": True},
    "shared interactions": lambda s: {"layers": 3, "shared_interactions": True},
    "epsilon": lambda s: {"epsilon": 1e-2},
    "activation": lambda s: {"activation": torch.tanh},
    "activation module": lambda s: {"activation": nn.SiLU()},
    "charge": lambda s: {"electronic_embeddings": [s.ElectronicEmbedding("total_charge", 8, True)]},
    "electron configuration": lambda s: {"nuclear_embedding": s.NuclearEmbedding(101, 8)},
    "tensors": lambda s: {"heads": [s.Atomwise(8, [4]), s.Forces(), s.DipoleMoment(8, [4]), s.Polarizability(8, [4])]},
}


def frames():
    ion = molecule("CH3CH2OH")
    ion.info["charge"] = 1.0
    return [molecule("H2O"), ion, molecule("C2H4")]


def results(model, spk, **options):
    return {key: value.detach().numpy() for key, value in model(spk.batch(frames(), **options)).items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("option", OPTIONS)
def test_outputs_are_the_same(spk, option, dtype):
    live = spk.model(**OPTIONS[option](spk)).to(dtype).eval()
    before = results(live, spk, dtype=dtype)
    assert accelerate(live) is live
    assert type(live.representation) is PaiNN
    by_engine = getattr(live, "path", "") == "engine"  # whose filters come from a table
    for key, value in results(live, spk, dtype=dtype).items():
        assert_close(value, before[key], TABLE_TOLERANCE if by_engine else TOLERANCE[dtype], key)


def test_edges_may_come_in_any_order(spk):
    live = spk.model().double()
    expected = results(live, spk, dtype=torch.float64)
    accelerate(live)
    for key, value in results(live, spk, dtype=torch.float64, shuffle=True).items():
        assert_close(value, expected[key], 1e-12, key)


def test_the_graph_is_sorted_and_complete(spk):
    inputs = spk.PairwiseDistances()(spk.batch(frames(), torch.float64, shuffle=True))
    batch, r_ij = graph(inputs)
    assert bool((batch.receiver[1:] >= batch.receiver[:-1]).all())
    assert torch.equal(batch.edge_vectors(), r_ij)
    assert batch.n_atoms.tolist() == [3, 9, 6]
    assert torch.equal(torch.bincount(batch.receiver), batch.row_ptr.diff())
    edges = {(i, j, *r) for i, j, r in zip(batch.receiver.tolist(), batch.sender.tolist(), r_ij.tolist(), strict=True)}
    given = (inputs[key].tolist() for key in ("_idx_i", "_idx_j", "_Rij"))
    assert edges == {(i, j, *r) for i, j, r in zip(*given, strict=True)}


def test_the_dictionary_has_the_features(spk):
    live = spk.model()
    inputs = live.input_modules[0](spk.batch(frames()))
    expected = live.representation(dict(inputs))
    got = accelerate(live).representation(inputs)
    assert got is inputs
    assert got["scalar_representation"].shape == (18, 8)
    assert got["vector_representation"].shape == (18, 3, 8)
    for key in ("scalar_representation", "vector_representation"):
        assert_close(got[key].detach(), expected[key].detach(), 1e-5, key)


@pytest.mark.parametrize("option", ["gaussian", "shared interactions", "activation module", "charge"])
def test_parameters_are_the_same_objects_under_the_same_names(spk, option):
    live = spk.model(**OPTIONS[option](spk))
    names, values = list(live.state_dict()), {name: id(value) for name, value in live.named_parameters()}
    accelerate(live)
    assert list(live.state_dict()) == names
    assert {name: id(value) for name, value in live.named_parameters()} == values


def training_step(model, optimizer, spk, target):
    model.train()
    out = model(spk.batch(frames(), model.representation.filter_net.weight.dtype))
    loss = (out["energy"] - target).square().mean() + out["forces"].square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def test_training_goes_on_as_it_would_have(spk):
    live = spk.model().double()
    other = copy.deepcopy(live)
    optimizers = [torch.optim.SGD(model.parameters(), lr=1e-5) for model in (live, other)]  # made before the swap
    before = copy.deepcopy(live.state_dict())
    accelerate(live)
    for _ in range(3):
        losses = [training_step(m, o, spk, 1.0) for m, o in zip((live, other), optimizers, strict=True)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    for name, value in live.named_parameters():
        moved, expected = value.detach() - before[name], other.get_parameter(name).detach() - before[name]
        assert_close(moved, expected, 1e-7, name)
    block = live.representation.interactions[0].interatomic_context_net[0].weight
    assert not torch.equal(block, before["representation.interactions.0.interatomic_context_net.0.weight"])


def test_a_step_of_an_optimizer_moves_the_accelerated_and_the_original_weights_alike(spk):
    live = spk.model()
    weight = live.representation.filter_net.weight
    optimizer = torch.optim.SGD(live.parameters(), lr=1e-5)
    accelerate(live)
    before = results(live, spk)["energy"]
    training_step(live, optimizer, spk, 1.0)
    assert live.representation.filter_net.weight is weight
    assert not (results(live.eval(), spk)["energy"] == before).all()


def test_copies_conversions_and_loaded_weights_stay_right(spk):
    plain, live = spk.model(), accelerate(spk.model())
    live.load_state_dict(plain.state_dict())
    expected = results(plain, spk)
    for model in (live, copy.deepcopy(live), accelerate(live)):
        for key, value in results(model, spk).items():
            assert_close(value, expected[key], 1e-5, key)
    expected = results(plain.double(), spk, dtype=torch.float64)
    for key, value in results(copy.deepcopy(live).to(torch.float64), spk, dtype=torch.float64).items():
        assert_close(value, expected[key], 1e-9, key)
    changed = copy.deepcopy(live)
    with torch.no_grad():
        changed.representation.embedding.weight.zero_()
    assert live.representation.embedding.weight.any(), "a deep copy has its own parameters"


def test_assigned_weights_are_used(spk):
    plain, live = spk.model(), accelerate(spk.model())
    live.load_state_dict(copy.deepcopy(plain.state_dict()), assign=True)
    assert_close(results(live, spk)["energy"], results(plain, spk)["energy"], 1e-5)


@pytest.mark.parametrize("part", ["", "representation", "representation.interactions.0", "representation.mixing.0"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused_in_words(spk, part):
    live = accelerate(spk.model())
    with pytest.raises(PaiNNFastError, match=r"cannot be scripted or traced.*restore\(model\)"):
        torch.jit.script(live.get_submodule(part))
    assert type(live.representation) is PaiNN


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tracing_would_keep_the_numbers_of_one_batch_and_is_refused(spk):
    live = accelerate(spk.model())
    with pytest.raises(PaiNNFastError, match="cannot be scripted or traced"):
        torch.jit.trace(live, (spk.batch(frames()),), strict=False)
    assert results(live, spk)["energy"].shape == (3,)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_of_a_model_of_ours_is_refused_in_words():
    with pytest.raises(PaiNNFastError, match=r"cannot be scripted.*painn-fast convert"):
        torch.jit.script(pf.load("ethanol"))


def test_hooks_stay(spk):
    live, seen = spk.model(), []
    live.representation.register_forward_hook(lambda module, inputs, output: seen.append(type(module)))
    accelerate(live)
    results(live, spk)
    assert seen == [PaiNN]


def test_a_task_and_a_bare_painn_are_accelerated(spk):
    live = spk.model()
    task = spk.AtomisticTask(live, [])
    assert accelerate(task) is task
    assert type(live.representation) is PaiNN
    bare = spk.model().representation
    assert accelerate(bare) is bare
    assert type(bare) is PaiNN


def test_models_of_schnetpack_2_0_have_no_electronic_embeddings(spk):
    live = spk.model()
    expected = results(live, spk)
    del live.representation.electronic_embeddings
    assert_close(results(accelerate(live), spk)["energy"], expected["energy"], 1e-5)


def test_a_model_saved_whole_after_acceleration_is_read_back(spk, tmp_path):
    live = spk.model()
    plain = pf.load(spk.save(live, tmp_path / "plain"), energy_unit="eV")
    swapped = pf.load(spk.save(accelerate(live), tmp_path / "accelerated"), energy_unit="eV")
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), swapped.parameters(), strict=True))
    assert swapped.config.representation == plain.config.representation


class Other(nn.Module):
    pass


def test_what_is_not_their_painn_is_refused_and_left_alone(spk):
    live = spk.model()
    kind = type(live.representation)
    own = type("PaiNN", (kind,), {"__module__": "my.models"})
    live.representation.__class__ = own
    with pytest.raises(PaiNNFastError, match=r"not a PaiNN of SchNetPack.*my\.models\.PaiNN"):
        accelerate(live)
    assert type(live.representation) is own
    live.representation.__class__ = kind
    block = live.representation.mixing[1]
    block.__class__ = type("PaiNNMixing", (type(block),), {"__module__": "my.models"})
    with pytest.raises(PaiNNFastError, match=r"my\.models\.PaiNNMixing"):
        accelerate(live)
    assert type(live.representation) is kind
    assert type(live.representation.mixing[0]) is not type(block)
    with pytest.raises(PaiNNFastError, match="Other"):
        accelerate(Other())


@pytest.mark.parametrize("option", ["gaussian", "shared filters", "shared interactions", "charge", "epsilon"])
def test_our_class_takes_the_same_arguments_and_state_dict(spk, option):
    options = OPTIONS[option](spk)
    live = spk.model(**options)
    given = {key: value for key, value in options.items() if key not in ("layers", "radial", "cutoff", "heads")}
    ours = PaiNN(8, options.get("layers", 2), spk.GaussianRBF(6, 4.0), spk.CosineCutoff(4.0), functional.silu, **given)
    state = live.representation.state_dict()
    assert {name: value.shape for name, value in ours.state_dict().items()} == {n: v.shape for n, v in state.items()}
    ours.load_state_dict(state)
    inputs = live.input_modules[0](spk.batch(frames()))
    expected = live.representation(dict(inputs))
    got = ours(inputs)
    for key in ("scalar_representation", "vector_representation"):
        assert_close(got[key].detach(), expected[key].detach(), 1e-5, key)
    live.representation = ours
    assert torch.isfinite(live(spk.batch(frames()))["forces"]).all()


def test_our_class_needs_a_cut_off(spk):
    with pytest.raises(PaiNNFastError, match="needs a cut-off function"):
        PaiNN(8, 2, spk.GaussianRBF(6, 4.0))


def test_an_atom_without_neighbours_has_features(spk):
    live = accelerate(spk.model()).double()
    inputs = live.input_modules[0](spk.batch([molecule("H"), molecule("H2O")], torch.float64))
    out = live.representation(inputs)
    assert torch.isfinite(out["scalar_representation"]).all()
    assert not out["vector_representation"][0].any()
