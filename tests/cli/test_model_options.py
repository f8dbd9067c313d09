"""Units and heads, which SchNetPack's files do not contain, type and device can be given wherever a model can."""

import json

import ase.io
import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

import painn_fast as pf
from painn_fast.adapters.ipi import Driver
from painn_fast.ase import PaiNNCalculator
from painn_fast.errors import PaiNNFastError
from painn_fast.md import Trajectory
from painn_fast.spectra import SpectrumSettings
from painn_fast.spectra.run import model_and_structures
from painn_fast.testing import assert_close
from painn_fast.train import run as run_training
from painn_fast.train.settings import TrainSettings
from painn_fast.units import BOHR, HARTREE, KCAL_PER_MOL

UNITS = {"energy_unit": "kcal/mol", "dipole_unit": "D", "polarizability_unit": "Bohr^3"}
HEADS = "energy,dipole,polarizability"
FLAGS = ["--energy-unit", "kcal/mol", "--dipole-unit", "D", "--polarizability-unit", "Bohr^3", "--heads", HEADS]


@pytest.fixture
def state_dict(run, water_model, own_folder):
    """The model as a plain state dict of SchNetPack, which contains neither units nor heads."""
    assert run("convert", water_model, "plain.pt").code == 0
    return own_folder / "plain.pt"


@pytest.fixture
def energy(water_model):
    """Of water in eV, where the weights work in kcal/mol."""
    return pf.evaluate(str(water_model), [molecule("H2O")], ["energy"])["energy"][0] * KCAL_PER_MOL


def test_python_takes_them_wherever_it_takes_a_file(state_dict, energy):
    options = {**UNITS, "heads": HEADS, "dtype": "float64"}
    water = [molecule("H2O")]
    ensemble = pf.Ensemble([state_dict, state_dict], **options)
    calculator = PaiNNCalculator(state_dict, **options)
    energies = [
        pf.evaluate(state_dict, water, ["energy"], **options)["energy"][0],
        pf.evaluate(pf.load(state_dict, **options), water, ["energy"])["energy"][0],
        pf.evaluate(ensemble, water, ["energy"])["energy"][0],
        calculator.get_property("energy", water[0]),
        HARTREE * Driver(state_dict, water[0], **options)(np.eye(3) * 100, water[0].positions / BOHR)[0],
    ]
    assert_close(np.array(energies), np.full(5, energy), 1e-6)
    assert ensemble.members[0].dtype == torch.float64
    for wrong, message in (
        ({"dtype": "float16"}, "no network runs in this type"),
        ({"heads": "energy,spin"}, "unknown head"),
    ):
        with pytest.raises(PaiNNFastError, match=message):
            pf.load(state_dict, **(options | wrong))
    with pytest.raises(PaiNNFastError, match="takes no more options"):
        pf.evaluate(ensemble, water, **UNITS)


def test_verbs_take_them(run, state_dict, water, energy, own_folder):
    outcome = run("eval", state_dict, water, *FLAGS, "--dtype", "float64", "--json", "all.json")
    assert outcome.code == 0, outcome.err
    assert json.loads((own_folder / "all.json").read_text())[0]["energy"] == pytest.approx(energy, rel=1e-6)
    frames = [molecule("H2O") for _ in range(4)]
    for atoms in frames:
        atoms.rattle(0.05, seed=3)
    ase.io.write("many.xyz", frames)
    outcome = run("select", "many.xyz", "-m", state_dict, "-m", state_dict, *FLAGS, "--dtype", "float64", "-n", 1)
    assert outcome.code == 0, outcome.err
    options = [f"--option={name}={value}" for name, value in {**UNITS, "heads": HEADS, "dtype": "float64"}.items()]
    outcome = run("label", water, "--with", f"model:{state_dict}", *options, "-o", "out.xyz", "--workers", 1)
    assert outcome.code == 0, outcome.err
    assert ase.io.read("out.xyz").get_potential_energy() == pytest.approx(energy, rel=1e-6)
    length = ["--duration", "2 fs", "--energies-every", "1 fs", "--start", "collapsed", "--length-unit", "Ang"]
    outcome = run("md", "--model", state_dict, "--structure", water, *FLAGS, *length, "-o", "run")
    assert outcome.code == 0, outcome.err
    assert float(np.ravel(Trajectory(own_folder / "run").energies["potential"])[0]) == pytest.approx(energy, rel=1e-4)


def test_a_length_unit_reaches_dynamics_and_spectra(run, state_dict, water):
    own = {**UNITS, "heads": HEADS, "length_unit": "Bohr", "model": str(state_dict), "structure": str(water)}
    settings = SpectrumSettings.parse(own)
    model, _ = model_and_structures(settings, None)
    assert model.config.length_unit == "Bohr"
    assert settings.dynamics().load_options == settings.load_options == {**UNITS, "heads": HEADS, "length_unit": "Bohr"}


def test_info_shows_a_unit_that_is_missing(run, state_dict, fails):
    outcome = run("info", state_dict, "--heads", HEADS)
    assert outcome.code == 0, outcome.err
    assert "energy not stated (give --energy-unit" in outcome.out
    facts = json.loads(run("info", state_dict, "--heads", HEADS, "--energy-unit", "Ha", "--json").out)
    assert facts["trained_in"] == {"energy": "Ha", "length": "Ang", "dipole": None, "polarizability": None}
    fails(("info", state_dict, "--heads", HEADS, "--energy-unit", "m"), "m")


@pytest.fixture
def training(own_folder):
    """Settings of a training of one epoch that starts from a file."""
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(20):
        atoms = molecule("H2O")
        atoms.positions += 0.03 * rng.normal(size=(3, 3))
        atoms.calc = SinglePointCalculator(atoms, energy=rng.normal(), forces=rng.normal(size=(3, 3)))
        frames.append(atoms)
    ase.io.write("set.xyz", frames)

    def settings(start_from, **more):
        values = {"name": "t", "output": "trained", "max_epochs": 1, "checks": "warn", "threads": 1}
        values |= {"data": [{"file": "set.xyz"}], "start_from": str(start_from)}
        return TrainSettings.parse(values | more)

    return settings


def test_a_training_starts_from_a_file_whose_units_and_heads_the_settings_state(training, state_dict):
    units = {"energy": "kcal/mol", "dipole": "D", "polarizability": "Bohr^3"}
    model = pf.load(run_training(training(state_dict, model_units=units, start_from_heads=HEADS)))
    assert model.config.energy_unit == "kcal/mol"
    for wrong, text in (
        ({"start_from_heads": HEADS}, r"missing unit of energy.*model_units = \{ energy = "),
        ({"model_units": units}, "start_from_heads = "),
    ):
        with pytest.raises(PaiNNFastError, match=text):
            run_training(training(state_dict, output="other", **wrong))


def test_units_that_contradict_the_file_to_start_from_are_refused(training, water_model):
    with pytest.raises(PaiNNFastError, match=r"other units.*model_units\.energy.*got: kcal/mol.*expected: eV"):
        run_training(training(water_model, model_units={"energy": "kcal/mol"}))
    with pytest.raises(PaiNNFastError, match="start_from_heads"):
        run_training(training(water_model, start_from_heads="energy"))
    assert run_training(training(water_model, model_units={"energy": "eV", "length": "Angstrom"}))
