"""Both ways between SchNetPack's files and ours: the same numbers, and nothing overwritten."""

import re

import pytest
import torch

import painn_fast as pf
from painn_fast.errors import PaiNNFastError
from painn_fast.io import convert, load_model, save_model, to_schnetpack_state_dict
from painn_fast.nn import (
    DipoleHead,
    ElectronicConfig,
    EnergyHead,
    PolarizabilityHead,
    PotentialConfig,
    RepresentationConfig,
    ScalarHead,
    SpatialExtentHead,
)
from painn_fast.testing import random_potential

UNITS = {"energy_unit": "kcal/mol", "dipole_unit": "D", "polarizability_unit": "Bohr^3"}


def tensors(spk):
    """A model with its modules in an order of its own, and its offsets first."""
    heads = [spk.DipoleMoment(8, [4]), spk.Atomwise(8, [4]), spk.Forces(), spk.Polarizability(8, [4])]
    offsets = spk.AddOffsets("energy", True, True, atomrefs=torch.arange(100.0), mean=2.0)
    return spk.model(heads=heads, postprocessors=[offsets, spk.CastTo64()], cutoff=spk.MollifierCutoff(3.5))


LIVE = {
    "energy": lambda s: s.model(),
    "tensors": tensors,
    "no offsets": lambda s: s.model(postprocessors=[]),
    "shared": lambda s: s.model(layers=3, shared_interactions=True, shared_filters=True, radial=s.BesselRBF(6, 4.0)),
    "switch": lambda s: s.model(cutoff=s.SwitchFunction(2.0, 3.5)),
    "charge and spin": lambda s: s.model(
        electronic_embeddings=[
            s.ElectronicEmbedding("total_charge", 8, True, 2),
            s.ElectronicEmbedding("spin_multiplicity", 8, False),
        ]
    ),
}


@pytest.mark.parametrize("name", LIVE)
def test_there_and_back_again_is_the_same_state_dict(spk, needed, tmp_path, name):
    live = LIVE[name](spk)
    source = spk.save(live, tmp_path / "best_model")
    ours = convert(source, tmp_path / "model.safetensors", **needed(source, UNITS))
    theirs = convert(ours, tmp_path / "weights.pt")
    state = torch.load(theirs, weights_only=True)
    assert state.keys() == live.state_dict().keys()
    for key, value in live.state_dict().items():
        assert state[key].shape == value.shape, key
        assert torch.equal(state[key].to(value.dtype), value), key
    LIVE[name](spk).load_state_dict(state)


def test_the_converted_model_gives_the_same_results(spk, tmp_path):
    source = spk.save(tensors(spk), tmp_path / "best_model")
    convert(source, tmp_path / "model.safetensors", **UNITS)
    before, after = pf.load(source, **UNITS), pf.load(tmp_path / "model.safetensors")
    assert after.config == before.config
    assert re.match(r"SchNetPack 2\.\d\.\d, file best_model, SHA-256 ", after.config.provenance["origin"])
    assert all(
        torch.equal(a, b) for a, b in zip(before.state_dict().values(), after.state_dict().values(), strict=True)
    )


def test_a_model_of_our_own_becomes_one_of_theirs(spk):
    n = 8
    config = PotentialConfig(
        representation=RepresentationConfig(
            n_features=n, n_layers=2, n_rbf=6, cutoff=4.0, radial_basis="gaussian", charge_embedding=ElectronicConfig()
        ),
        heads=(EnergyHead(), PolarizabilityHead(), DipoleHead(), ScalarHead(name="gap", unit="eV", aggregation="mean")),
    )
    heads = [
        spk.Atomwise(n, [4]),
        spk.Polarizability(n, [4]),
        spk.DipoleMoment(n, [4]),
        spk.Atomwise(n, [4], output_key="gap", aggregation_mode="avg"),
        spk.Forces(),
    ]
    post = [
        spk.CastTo64(),
        spk.AddOffsets("energy", True, True),
        spk.AddOffsets("gap", True, True, is_extensive=False),
    ]
    embedding = spk.ElectronicEmbedding("total_charge", n, True)
    live = spk.model(heads=heads, postprocessors=post, electronic_embeddings=[embedding])
    live.load_state_dict(to_schnetpack_state_dict(random_potential(config, dtype=torch.float32)))


def test_a_state_dict_goes_back_with_the_epsilon_that_is_named(tmp_path, capsys):
    from painn_fast.cli import main

    potential = random_potential(PotentialConfig(heads=(EnergyHead(),)), dtype=torch.float32)
    save_model(potential, tmp_path / "ours.safetensors")
    assert main(["convert", str(tmp_path / "ours.safetensors"), str(tmp_path / "theirs.pt")]) == 0
    epsilon = potential.config.representation.epsilon
    assert f"epsilon={epsilon:g}" in capsys.readouterr().err
    back = pf.load(tmp_path / "theirs.pt", energy_unit="eV")
    assert back.config.representation == potential.config.representation
    bare = torch.load(tmp_path / "theirs.pt", weights_only=True)
    torch.save(bare, tmp_path / "bare.pt")  # by another program
    assert pf.load(tmp_path / "bare.pt", energy_unit="eV").config.representation.epsilon == 1e-8
    back = pf.load(tmp_path / "bare.pt", energy_unit="eV", epsilon=epsilon)
    assert back.config.representation == potential.config.representation
    with pytest.raises(PaiNNFastError, match=r"contains its units and heads.*epsilon"):
        pf.load(tmp_path / "ours.safetensors", epsilon=1e-3)


def test_what_they_have_no_counterpart_of_is_refused(tmp_path):
    small = {"n_features": 8, "n_layers": 1, "n_rbf": 5}
    for config, message in (
        ({"representation": {**small, "ablation": "no_scalar_product"}}, "no ablated PaiNN.*no_scalar_product"),
        ({"representation": small, "heads": (SpatialExtentHead(),)}, "no head for the spatial extent"),
    ):
        potential = random_potential(PotentialConfig(**config))
        save_model(potential, tmp_path / "model.safetensors")
        with pytest.raises(PaiNNFastError, match=message):
            convert(tmp_path / "model.safetensors", tmp_path / "weights.pt")
        assert not (tmp_path / "weights.pt").exists()


def test_nothing_is_overwritten_unless_asked(spk, tmp_path):
    source = spk.save(spk.model(), tmp_path / "best_model")
    target = tmp_path / "model.safetensors"
    target.write_text("precious")
    with pytest.raises(PaiNNFastError, match=r"exists already.*model\.safetensors"):
        convert(source, target, energy_unit="eV")
    assert target.read_text() == "precious"
    convert(source, target, energy_unit="eV", overwrite=True)
    assert load_model(target).properties[0] == "energy"


def test_an_unreadable_source_leaves_the_target_alone(tmp_path):
    (tmp_path / "best_model").write_bytes(b"PK, but not really")
    (tmp_path / "model.safetensors").write_text("precious")
    with pytest.raises(PaiNNFastError, match="not a readable file"):
        convert(tmp_path / "best_model", tmp_path / "model.safetensors", energy_unit="eV", overwrite=True)
    assert (tmp_path / "model.safetensors").read_text() == "precious"


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(PaiNNFastError, match=r"format of the target.*'\.onnx'.*\.safetensors"):
        convert("ethanol", tmp_path / "model.onnx")
