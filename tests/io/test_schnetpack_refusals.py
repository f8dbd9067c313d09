"""What a SchNetPack file holds that is not understood is named, and sizes that it claims are not believed."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import painn_fast as pf
from painn_fast.errors import PaiNNFastError

UNITS = {"energy_unit": "eV", "dipole_unit": "e Ang", "polarizability_unit": "Ang^3"}


def changed(path, name, value):
    """A change of one attribute of one module."""

    def change(spk, live):
        setattr(live.get_submodule(path), name, value)

    return change


def with_hook(spk, live):
    live.representation._forward_hooks[0] = functional.silu


def with_scale(spk, live):
    live.postprocessors.append(spk.ScaleProperty())


def with_filter(spk, live):
    live.input_modules.append(spk.FilterShortRange())


def with_norm(spk, live):
    live.representation.embedding.max_norm = 1.0


def with_other_activation(spk, live):
    for block in live.representation.interactions:
        block.interatomic_context_net[0].activation = functional.relu


def with_mixed_activation(spk, live):
    live.output_modules[0].outnet[0].activation = spk.shifted_softplus


def with_last_activation(spk, live):
    live.output_modules[0].outnet[1].activation = nn.SiLU()


def with_two_energies(spk, live):
    live.output_modules.append(spk.DipoleMoment(8, [4]))
    live.output_modules.append(spk.DipoleMoment(8, [4]))


def with_swapped_embeddings(spk, live):
    live.representation.electronic_embeddings.append(spk.ElectronicEmbedding("spin_multiplicity", 8, False))
    live.representation.electronic_embeddings.append(spk.ElectronicEmbedding("total_charge", 8, True))


def with_unknown_embedding(spk, live):
    live.representation.electronic_embeddings.append(spk.ElectronicEmbedding("temperature", 8, False))


def with_field(spk, live):
    live.output_modules[1] = spk.Response("energy", ["forces", "dipole_moment"])


def with_nested_attribute(spk, live):
    value = []
    for _ in range(60):
        value = [value, value]  # to print it would take 2^60 brackets
    live.output_modules[0].aggregation_mode = value


def with_many_modules(spk, live):
    modules = nn.ModuleList()
    for _ in range(5):
        modules = nn.ModuleList([modules] * 30)
    live.representation.cutoff_fn.more = modules


NOT_UNDERSTOOD = {
    "a hook": (with_hook, r"hooks.*representation"),
    "a scaled property": (with_scale, r"postprocessors\.2.*ScaleProperty"),
    "a filter": (with_filter, r"input_modules\.1.*FilterShortRange"),
    "a field": (with_field, r"derivatives.*output_modules\.1.*dEdF"),
    "a nested attribute": (with_nested_attribute, r"attribute that is not understood.*aggregation_mode, a list"),
    "many modules": (with_many_modules, r"too many modules"),
    "several outputs": (changed("output_modules.0", "n_out", 3), r"output_modules\.0.*n_out=3"),
    "another aggregation": (
        changed("output_modules.0", "aggregation_mode", "max"),
        r"max.*expected: one output, sum or avg",
    ),
    "an averaged energy": (changed("output_modules.0", "aggregation_mode", "avg"), r"energy that is not a sum"),
    "forces of nothing": (
        changed("output_modules.1", "energy_key", "E"),
        r"forces of an energy that no module gives.*E",
    ),
    "offsets of nothing": (changed("postprocessors.1", "_property", "forces"), r"offsets.*forces"),
    "intensive offsets": (changed("postprocessors.1", "is_extensive", False), r"offsets per atom"),
    "a largest norm": (with_norm, r"representation\.embedding.*1\.0"),
    "another activation": (with_other_activation, r"relu"),
    "two activations": (with_mixed_activation, r"another activation.*shifted_softplus"),
    "an activation at the end": (with_last_activation, r"after the last layer.*output_modules\.0\.outnet.*SiLU"),
    "two dipoles": (with_two_energies, r"second head.*dipole"),
    "swapped embeddings": (with_swapped_embeddings, r"another order.*spin, charge"),
    "an embedding of temperature": (with_unknown_embedding, r"temperature"),
}


@pytest.mark.parametrize("what", NOT_UNDERSTOOD)
def test_what_is_not_understood_is_named(spk, tmp_path, what):
    change, message = NOT_UNDERSTOOD[what]
    live = spk.model()
    change(spk, live)
    path = spk.save(live, tmp_path / "best_model")
    with pytest.raises(PaiNNFastError, match=message) as caught:
        pf.load(path, **UNITS)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def without(name):
    return lambda state: {key: value for key, value in state.items() if key != name}


def renamed(old, new):
    return lambda state: {key.replace(old, new): value for key, value in state.items()}


def replaced(name, value):
    return lambda state: {**state, name: value}


ODD_STATES = {
    "missing": (without("representation.filter_net.bias"), r"missing key.*'representation\.filter_net\.bias'"),
    "missing basis": (without("representation.radial_basis.offsets"), r"missing key.*radial_basis\.offsets"),
    "unexpected": (replaced("representation.extra", torch.ones(1)), r"unexpected key.*'representation\.extra'"),
    "scaled": (replaced("postprocessors.2.scale", torch.ones(1)), r"unexpected key.*'postprocessors\.2\.scale'"),
    "shape": (
        replaced("representation.filter_net.weight", torch.ones(7, 6)),
        r"wrong shape.*filter_net\.weight.*7 rows",
    ),
    "vector": (replaced("representation.embedding.weight", torch.ones(8)), r"wrong shape.*embedding.*a matrix"),
    "empty": (replaced("representation.embedding.weight", torch.ones(0, 8)), r"wrong shape.*embedding.*a matrix"),
    "bias": (replaced("representation.filter_net.bias", torch.ones(3)), r"wrong shape.*filter\.bias.*\(3,\)"),
    "not finite": (
        replaced("representation.filter_net.bias", torch.full((48,), torch.nan)),
        r"not finite.*filter\.bias",
    ),
    "cut-off": (replaced("representation.cutoff_fn.cutoff", torch.tensor([torch.inf])), r"cutoff_fn\.cutoff"),
    "negative": (
        replaced("representation.cutoff_fn.cutoff", torch.tensor([-1.0])),
        r"'cutoff': expected 0.001 or more",
    ),
    "mollifier": (replaced("representation.cutoff_fn.eps", torch.tensor([1e-3])), r"mollifier with another epsilon"),
    "layers": (renamed("interactions.1", "interactions.2"), r"not numbered from 0.*\[0, 2\]"),
    "integers": (
        replaced("representation.filter_net.bias", torch.ones(48, dtype=torch.int64)),
        r"wrong dtype.*filter\.bias",
    ),
    "two offsets": (
        replaced("postprocessors.4.mean", torch.ones(1)),
        r"head of the offsets.*unknown.*postprocessors\.4",
    ),
    "elements": (replaced("postprocessors.1.atomref", torch.ones(120)), r"references of elements"),
    "no text": (lambda state: {**state, 3: torch.ones(1)}, r"not a state dict of SchNetPack.*3: TensorRecord"),
    "no tensor": (replaced("representation.extra", [1, 2]), r"not a state dict of SchNetPack.*list"),
    "others": (lambda state: {"encoder.weight": torch.ones(1)}, r"not a state dict of SchNetPack.*encoder\.weight"),
    "nothing": (lambda state: {}, r"not a state dict of SchNetPack"),
    "no heads": (
        lambda state: {k: v for k, v in state.items() if "output" not in k},
        "does not name its output modules",
    ),
}


@pytest.mark.parametrize("what", ODD_STATES)
def test_a_weight_that_is_odd_is_named(spk, tmp_path, what):
    change, message = ODD_STATES[what]
    state = change(dict(spk.model().state_dict()))
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(PaiNNFastError, match=message):
        pf.load(tmp_path / "weights.pt", energy_unit="eV")


def test_sizes_that_a_pickle_claims_are_not_believed(spk, tmp_path):
    live = spk.model()
    live.representation.n_atom_basis = 10**12
    live.representation.n_interactions = 10**12
    live.output_modules[0].outnet[0].out_features = 10**12
    model = pf.load(spk.save(live, tmp_path / "best_model"), energy_unit="eV")
    assert (model.config.representation.n_features, model.config.representation.n_layers) == (8, 2)


def test_other_things_in_a_torch_file_are_named(spk, tmp_path):
    for content, message in (
        ([1, 2], "got: list"),
        (torch.ones(2), "TensorRecord"),
        (nn.Linear(2, 2), r"nn\.modules.*Linear"),
    ):
        with pytest.raises(PaiNNFastError, match=message):
            pf.load(spk.save(content, tmp_path / "file"), energy_unit="eV")
