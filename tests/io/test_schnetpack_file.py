"""SchNetPack's files give what SchNetPack gives, whatever kind of file; what is not understood is named."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from torch import nn
from torch.nn import functional

import painn_fast as pf
from painn_fast import units
from painn_fast.errors import PaiNNFastError, SuperfluousUnits
from painn_fast.nn import DipoleHead, EnergyHead, PolarizabilityHead
from painn_fast.testing import TOLERANCE, assert_close

CHECKPOINTS = (
    "aspirin_md17_2layers",
    "ethanol_md17_spk20",
    "ethanol_rmd17_spk2",
    "random_periodic_shared_stress",
    "random_sinc_dipole_polarizability",
)
OURS = {"dipole_moment": "dipole", "partial_charges": "charges"}
VOIGT = [0, 4, 8, 5, 2, 1]
UNITS = {"energy_unit": "eV", "dipole_unit": "e Ang", "polarizability_unit": "Ang^3"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_every_stored_output_of_a_checkpoint_matches(shared_data, needed, name, dtype):
    folder = shared_data / "checkpoints" / name
    stored = np.load(folder / "outputs.npz")
    energy_unit = "eV" if stored["unit_in_ev"] == 1.0 else "kcal/mol"
    unit = units.factor("energy", energy_unit)  # that of ase.units; the stored one is of an older CODATA, 3e-7 off
    assert unit == pytest.approx(float(stored["unit_in_ev"]), rel=1e-6)
    own_units = needed(folder / "model", UNITS | {"energy_unit": energy_unit})
    model = pf.load(folder / "model", **own_units, dtype=dtype)
    frames = [Atoms(stored["z"], r, cell=stored["cell"], pbc=stored["pbc"]) for r in stored["R"]]
    suffix = str(dtype)[-2:]
    names = [key.removesuffix(suffix) for key in stored if key.endswith(suffix)]
    assert {"energy", "forces"} <= set(names)
    out = pf.evaluate(model, frames, properties=[OURS.get(key, key) for key in names], backend="reference")
    for key in names:
        expected = stored[key + suffix] * (unit if key in ("energy", "forces", "stress") else 1.0)
        got = np.stack(out[OURS.get(key, key)])
        if key == "stress":
            expected = expected.reshape(-1, 9)[:, VOIGT]
        assert_close(got, expected.reshape(got.shape), TOLERANCE[dtype], f"{name} {key}")


def test_reading_does_not_import_schnetpack(spk, tmp_path):
    path = spk.save(spk.model(), tmp_path / "best_model")
    program = (
        "import sys; sys.modules['schnetpack'] = None\n"  # importing it would fail, installed or not
        f"import painn_fast as pf; print(pf.load({str(path)!r}, energy_unit='kcal/mol').properties[0])\n"
        "assert not any(name.startswith('schnetpack.') for name in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout.split() == ["energy"], done.stderr


def molecules():
    ion = molecule("CH3CH2OH")
    ion.info.update(charge=1.0, spin=2.0)
    return [molecule("CH3CH2OH"), molecule("H2O"), ion]


def expected(spk, model, frames):
    """What the stand-in gives for each structure alone, in float64."""
    model = model.double().eval()
    results = [model(spk.batch([atoms], torch.float64)) for atoms in frames]
    return {key: [result[key].detach().numpy() for result in results] for key in results[0]}


def centred(frames):
    """Structures at their centre of mass, where SchNetPack's own transform puts them."""
    for atoms in frames:
        atoms.positions -= atoms.get_center_of_mass()
    return frames


def activations(spk, activation):
    n, heads = 8, [spk.Atomwise, spk.DipoleMoment, spk.Polarizability]
    return {"activation": activation, "heads": [*(head(n, [4], activation) for head in heads), spk.Forces()]}


OPTIONS = {
    "sinc": lambda s: {"radial": s.BesselRBF(7, 4.0)},
    "gaussian from 0.5": lambda s: {"radial": s.GaussianRBF(7, 4.0, start=0.5)},
    "centred gaussian": lambda s: {"radial": s.GaussianRBFCentered(7, 4.0)},
    "trainable gaussian": lambda s: {"radial": s.GaussianRBF(7, 4.0, trainable=True)},
    "mollifier": lambda s: {"cutoff": s.MollifierCutoff(3.5)},
    "switch": lambda s: {"cutoff": s.SwitchFunction(2.0, 3.5)},
    "one layer": lambda s: {"layers": 1},
    "shared filters": lambda s: {"layers": 3, "shared_filters": True},
    "shared interactions": lambda s: {"layers": 3, "shared_interactions": True},
    "epsilon": lambda s: {"epsilon": 1e-3},
    "softplus": lambda s: activations(s, s.shifted_softplus),
    "activation module": lambda s: activations(s, nn.SiLU()),
    "charge": lambda s: {"electronic_embeddings": [s.ElectronicEmbedding("total_charge", 8, True)]},
    "spin": lambda s: {"electronic_embeddings": [s.ElectronicEmbedding("spin_multiplicity", 8, False)]},
    "charge and spin": lambda s: {
        "electronic_embeddings": [
            s.ElectronicEmbedding("total_charge", 8, True, 2, functional.silu),
            s.ElectronicEmbedding("spin_multiplicity", 8, False, 3, functional.silu),
        ]
    },
    "electron configuration": lambda s: {"nuclear_embedding": s.NuclearEmbedding(101, 8)},
    "three dense layers": lambda s: {"heads": [s.Atomwise(8, [5, 3]), s.Forces()]},
    "one dense layer": lambda s: {"heads": [s.Atomwise(8, []), s.Forces()]},
    "tensors": lambda s: {
        "heads": [s.DipoleMoment(8, [6, 4]), s.Atomwise(8, [4]), s.Forces(), s.Polarizability(8, [4])]
    },
    "charges": lambda s: {"heads": [s.DipoleMoment(8, [4], use_vector_representation=False), s.Atomwise(8, [4])]},
    "references": lambda s: {
        "postprocessors": [s.CastTo64(), s.AddOffsets("energy", True, True, atomrefs=references(), mean=2.0)]
    },
    "no offsets": lambda s: {"postprocessors": [s.CastTo64(), s.AddOffsets("energy", False, False, mean=2.0)]},
    "response": lambda s: {"heads": [s.Atomwise(8, [4]), s.Response("energy", ["forces"])]},
    "other keys": lambda s: {"heads": [s.Atomwise(8, [4], output_key="E"), s.Forces("E")], "postprocessors": []},
}


def references():
    values = torch.zeros(100)
    values[[1, 6, 8]] = torch.tensor([-13.6, -1030.0, -2042.0])
    return values


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_gives_what_the_live_module_gives(spk, needed, tmp_path, option):
    live = spk.model(**OPTIONS[option](spk))
    path = spk.save(live, tmp_path / "best_model")
    model = pf.load(path, **needed(path, UNITS), dtype=torch.float64)
    frames = centred(molecules())
    want = expected(spk, live, frames)
    renamed = {**OURS, "E": "energy"}
    for backend in ("reference", "fused"):
        got = pf.evaluate(model, frames, properties=[renamed.get(key, key) for key in want], backend=backend)
        for key, values in want.items():
            for ours, theirs in zip(got[renamed.get(key, key)], values, strict=True):
                # the electronic embeddings of SchNetPack add 1e-8 under a sum, ours need not
                assert_close(ours, theirs.reshape(np.shape(ours)), 1e-6, f"{option}, {backend}: {key}")


def test_known_elements_are_those_with_an_atomic_reference(spk, tmp_path):
    live = spk.model(**OPTIONS["references"](spk))
    model = pf.load(spk.save(live, tmp_path / "best_model"), energy_unit="eV")
    assert model.config.elements == (1, 6, 8)
    with pytest.raises(PaiNNFastError, match=r"element .* got: N"):
        pf.evaluate(model, [molecule("NH3")])
    assert pf.load(spk.save(spk.model(), tmp_path / "other"), energy_unit="eV").config.elements is None


def test_scalars_are_summed_or_averaged_and_get_their_own_offsets(spk, tmp_path):
    heads = [
        spk.Atomwise(8, [4], output_key="gap", aggregation_mode="avg"),
        spk.Atomwise(8, [4], output_key="zpve"),
    ]
    post = [
        spk.AddOffsets("zpve", add_mean=True, add_atomrefs=True, atomrefs=references(), mean=0.25),
        spk.AddOffsets("gap", True, True, is_extensive=False, atomrefs=references(), mean=7.0),
    ]
    live = spk.model(heads=heads, postprocessors=post)
    model = pf.load(spk.save(live, tmp_path / "best_model"))
    frames = molecules()[:2]
    want = expected(spk, live, frames)
    got = pf.evaluate(model.double(), frames, properties=("gap", "zpve"), backend="reference")
    assert model.properties == ("gap", "zpve")
    for key in ("gap", "zpve"):
        assert_close(got[key], np.concatenate(want[key]), 1e-6, key)


def test_magnitude_of_the_dipole(spk, tmp_path):
    live = spk.model(heads=[spk.DipoleMoment(8, [4], magnitude=True)], postprocessors=[])
    model = pf.load(spk.save(live, tmp_path / "best_model"), dipole_unit="e Ang", dtype=torch.float64)
    frames = centred(molecules()[:2])
    want = np.concatenate(expected(spk, live, frames)["dipole_moment"])
    got = pf.evaluate(model, frames, properties=("dipole_magnitude",), backend="reference")["dipole_magnitude"]
    assert_close(got, want, 1e-6)


def test_results_come_in_ev_whatever_the_unit_of_the_file(spk, tmp_path):
    path = spk.save(spk.model(), tmp_path / "best_model")
    frames = molecules()[:1]
    in_ev, in_kcal = (
        pf.evaluate(pf.load(path, energy_unit=unit, dtype=torch.float64), frames, backend="reference")
        for unit in ("eV", "kcal/mol")
    )
    assert_close(in_kcal["energy"], np.multiply(in_ev["energy"], units.KCAL_PER_MOL), 1e-9)
    assert_close(in_kcal["forces"][0], in_ev["forces"][0] * units.KCAL_PER_MOL, 1e-9)


def write_task(spk, live, folder):
    task = spk.AtomisticTask(live, [spk.ModelOutput("energy")])
    return spk.save(task, folder / "best_model.task")


def write_checkpoint(spk, live, folder, *, with_model=True):
    settings = {"model": live, "optimizer_cls": torch.optim.AdamW, "scheduler_args": {"patience": 5}}
    content = {
        "epoch": 3,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": spk.AtomisticTask(live, []).state_dict(),
        "optimizer_states": [
            {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
        ],
        "hyper_parameters": settings if with_model else {"warmup_steps": 0},
    }
    return spk.save(content, folder / "last.ckpt")


FILES = {
    "model": lambda s, live, folder: s.save(live, folder / "best_inference_model"),
    "task": write_task,
    "checkpoint": write_checkpoint,
    "checkpoint without its model": lambda s, live, folder: write_checkpoint(s, live, folder, with_model=False),
    "state dict": lambda s, live, folder: s.save(live.state_dict(), folder / "weights.pt"),
    "state dict of a task": lambda s, live, folder: s.save(
        s.AtomisticTask(live, []).state_dict(), folder / "weights.pt"
    ),
    "protocol 4": lambda s, live, folder: _protocol_4(s, live, folder / "best_model"),
}


def _protocol_4(spk, live, path):
    with spk.installed():
        torch.save(live, path, pickle_protocol=4)
    return path


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("option", ["sinc", "mollifier", "shared interactions", "shared filters", "charge and spin"])
def test_every_kind_of_file_gives_the_same_model(spk, tmp_path, kind, option):
    live = spk.model(**OPTIONS[option](spk))
    direct = pf.load(spk.save(live, tmp_path / "direct"), energy_unit="eV")
    model = pf.load(FILES[kind](spk, live, tmp_path), energy_unit="eV")
    mine, theirs = model.state_dict(), direct.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    same = {"provenance", "name"}
    if kind.startswith(("model", "task", "protocol")) or kind == "checkpoint":
        assert model.config.model_dump(exclude=same) == direct.config.model_dump(exclude=same)
    else:
        assert "silu" in model.config.provenance["assumed"]


def test_weights_of_a_checkpoint_are_those_of_its_state_dict(spk, tmp_path):
    live = spk.model()
    content = {
        "state_dict": spk.AtomisticTask(live, []).state_dict(),
        "hyper_parameters": {"model": spk.model()},
    }
    model = pf.load(spk.save(content, tmp_path / "last.ckpt"), energy_unit="eV")
    assert torch.equal(model.representation.embedding.weight, live.representation.embedding.weight)


def test_a_state_dict_with_tensors_needs_the_names_of_its_heads(spk, tmp_path):
    live = spk.model(**OPTIONS["tensors"](spk))
    path = spk.save(live.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(PaiNNFastError, match=r"does not name its output modules.*output_modules\.3"):
        pf.load(path, **UNITS)
    with pytest.raises(PaiNNFastError, match="not one head for each output module"):
        pf.load(path, **UNITS, heads=[EnergyHead()])
    model = pf.load(path, **UNITS, heads=[DipoleHead(), EnergyHead(), PolarizabilityHead()], dtype=torch.float64)
    frames = centred(molecules()[:2])
    want = expected(spk, live, frames)
    got = pf.evaluate(model, frames, properties=("energy", "dipole", "polarizability"), backend="reference")
    for key, theirs in (("energy", "energy"), ("dipole", "dipole_moment"), ("polarizability", "polarizability")):
        for k in range(len(frames)):
            assert_close(got[key][k], want[theirs][k].reshape(np.shape(got[key][k])), 1e-6, key)


@pytest.mark.parametrize("unit", ["energy", "dipole", "polarizability"])
def test_a_missing_unit_is_asked_for(spk, tmp_path, unit):
    path = spk.save(spk.model(**OPTIONS["tensors"](spk)), tmp_path / "best_model")
    others = {key: value for key, value in UNITS.items() if key != f"{unit}_unit"}
    with pytest.raises(PaiNNFastError, match=f"missing unit of {unit}.*{unit}_unit"):
        pf.load(path, **others)


@pytest.mark.parametrize(
    ("units", "superfluous"),
    [
        ({"energy_unit": "eV", "dipole_unit": "D"}, "dipole_unit"),
        ({"energy_unit": "eV", "polarizability_unit": "Ang^3", "dipole_unit": "D"}, "dipole_unit, polarizability_unit"),
    ],
)
def test_a_unit_of_a_property_that_the_model_lacks_is_refused(spk, tmp_path, units, superfluous):
    path = spk.save(spk.model(), tmp_path / "best_model")
    message = f"a unit of a property that the model does not give.*got: {superfluous}; expected: units of energy; fix"
    with pytest.raises(SuperfluousUnits, match=message):
        pf.load(path, **units)


def test_an_unknown_unit_is_named(spk, tmp_path):
    path = spk.save(spk.model(), tmp_path / "best_model")
    with pytest.raises(PaiNNFastError, match=r"energy_unit.*parsec.*kcal/mol"):
        pf.load(path, energy_unit="parsec")
