"""Programs of `torch.export`: numbers of the reference, for sizes that they were not exported with."""

import json
import shutil
import zipfile

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

import painn_fast as pf
from painn_fast.errors import PaiNNFastError
from painn_fast.graph import batch_atoms
from painn_fast.io import convert, save_model
from painn_fast.io.exported import COMPILERS, INPUTS, METADATA
from painn_fast.nn import DipoleHead, EnergyHead, PolarizabilityHead, PotentialConfig, RepresentationConfig
from painn_fast.testing import random_potential

NAMES = ("energy", "forces", "stress", "dipole", "charges", "polarizability")
SYSTEMS = {
    "one": [molecule("H2O")],
    "two atoms": [molecule("N2")],
    "several": [molecule("CH3CH2OH"), molecule("C6H6"), molecule("CH4"), molecule("OH")],
    "crystals": [bulk("Si", "diamond", a=5.43, cubic=True), bulk("Cu", a=3.6)],
    "both": [molecule("H2O"), bulk("Cu", a=3.6)],
}


@pytest.fixture(scope="module")
def potential():
    config = PotentialConfig(
        representation=RepresentationConfig(
            n_features=8, n_layers=2, n_rbf=6, cutoff=4.0, charge_embedding={}, spin_embedding={}
        ),
        heads=(EnergyHead(), DipoleHead(), PolarizabilityHead()),
        energy_unit="kcal/mol", dipole_unit="D",
    )  # fmt: skip
    return random_potential(config, dtype=torch.float64)


@pytest.fixture(scope="module")
def model_file(potential, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "own.safetensors"
    save_model(potential, path)
    return path


def arguments(systems, cutoff):
    batch = batch_atoms(systems, cutoff)
    return tuple(getattr(batch, name) for name in INPUTS)


def check(program, potential, systems, names=NAMES):
    results = program(*arguments(systems, potential.cutoff))
    assert list(results) == list(names)
    usual = [n for n in names if not (n in ("dipole", "charges", "polarizability") and systems[0].pbc.all())]
    usual = [n for n in usual if n != "stress" or any(atoms.pbc.all() for atoms in systems)]
    right = pf.evaluate(potential, systems, usual, backend="reference")
    for name in usual:
        value = results[name]
        if name == "stress":
            value = value[:, [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        joined = np.concatenate if name in ("forces", "charges") else np.stack
        np.testing.assert_allclose(value, joined(right[name]), rtol=1e-10, atol=1e-10, err_msg=name)
    for name in set(names) - set(usual):
        assert bool(results[name].isnan().all()), name


@pytest.fixture(scope="module")
def program(model_file):
    path = convert(model_file, model_file.with_suffix(".pt2"), properties=NAMES)
    return torch.export.load(path).module()


@pytest.mark.parametrize("kind", SYSTEMS)
@pytest.mark.filterwarnings("ignore")  # of torch, which loads its own files
def test_a_program_gives_what_the_reference_gives(program, potential, kind):
    check(program, potential, SYSTEMS[kind])


@pytest.mark.filterwarnings("ignore")
def test_charge_spin_and_pairs_beyond_the_cutoff(program, potential):
    atoms = molecule("CH3CH2OH")
    given = list(arguments([atoms], potential.cutoff))
    neutral = program(*given)["energy"]
    atoms.info |= {"charge": 1.0, "spin": 2.0}
    charged = program(*arguments([atoms], potential.cutoff))["energy"]
    np.testing.assert_allclose(charged, pf.evaluate(potential, [atoms], backend="reference")["energy"], rtol=1e-10)
    assert abs(float(charged - neutral)) > 1e-6
    long = bulk("Cu", a=3.6)
    near, far = (program(*arguments([long], cutoff)) for cutoff in (potential.cutoff, potential.cutoff + 2))
    np.testing.assert_allclose(near["energy"], far["energy"], rtol=1e-12)


@pytest.mark.filterwarnings("ignore")
def test_a_file_says_what_its_numbers_mean(program, model_file, potential):
    with zipfile.ZipFile(model_file.with_suffix(".pt2")) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(METADATA)]
        about = json.loads(archive.read(name))
    assert about["inputs"] == list(INPUTS)
    assert about["results"] == list(NAMES)
    assert about["cutoff"] == pytest.approx(potential.cutoff)
    assert about["units"]["forces"] == "eV/Ang"


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore")
def test_compiled_by_aotinductor(model_file, potential):
    path = convert(model_file, model_file.with_name("compiled.pt2"), compiled=True, properties=("energy", "forces"))
    compiled = torch._inductor.aoti_load_package(str(path))
    assert json.loads(compiled.get_metadata()["results"]) == ["energy", "forces"]
    for systems in SYSTEMS.values():
        check(compiled, potential, systems, ("energy", "forces"))


def test_what_is_no_program_takes_no_properties(model_file, tmp_path, monkeypatch):
    for given in ({"properties": ["energy"]}, {"compiled": True}):
        with pytest.raises(PaiNNFastError, match=r"are of programs.*\.pt2"):
            convert(model_file, tmp_path / "new.safetensors", **given)
    with pytest.raises(PaiNNFastError, match=r"does not give these; got: gap"):
        convert(model_file, tmp_path / "new.pt2", properties=["energy", "gap"])
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(PaiNNFastError, match=r"no C\+\+ compiler"):
        convert(model_file, tmp_path / "new.pt2", compiled=True)
    assert not list(tmp_path.iterdir())
