"""Restart files that are damaged, and structures and models of another run: noticed, and named in one line."""

import json
import random

import numpy as np
import pytest
import torch
from ase import Atoms
from force_fields import Morse
from resumable_runs import OH, flip, go, settings
from safetensors.torch import load_file, save_file

from painn_fast.errors import PaiNNFastError
from painn_fast.io import save_model
from painn_fast.md import MDSettings, Trajectory, run
from painn_fast.md import restart as restart_module
from painn_fast.md.restart import read_restart
from painn_fast.nn import PotentialConfig, RepresentationConfig
from painn_fast.runtime import checkpoint
from painn_fast.testing import random_potential


def assert_same(folder, whole):
    a, b = Trajectory(folder), Trajectory(whole)
    assert np.array_equal(a.positions, b.positions)
    assert np.array_equal(a.velocities, b.velocities)
    assert all(np.array_equal(a.energies[name], values) for name, values in b.energies.items())
    (got,), (expected,) = read_restart(folder).states, read_restart(whole).states
    assert got.step == expected.step
    assert all(torch.equal(got.tensors()[name], value) for name, value in expected.tensors().items())


def test_a_bit_flipped_anywhere_in_a_restart_file_is_noticed_and_the_one_before_taken(mine):
    """Length, names, numbers, padding, hash, tensors: read_restart gives the state before and the reason."""
    path = mine / "restart.safetensors"
    good, rng = path.read_bytes(), random.Random(1)
    before = checkpoint.load(mine / "restart.previous.safetensors")[1]["step"]
    assert read_restart(mine).states[0].step == before + 1
    for byte in (*range(8), *range(8, len(good), 3)):
        path.write_bytes(good)
        flip(path, byte, rng.randrange(8))
        restart = read_restart(mine)
        assert restart.states[0].step == before, f"the flip in byte {byte} was not noticed"
        assert [error.where.name for error in restart.failed] == ["restart.safetensors"]


def test_a_resume_reports_what_was_damaged_and_what_is_lost_and_goes_on_bit_for_bit(mine, whole, capsys):
    flip(mine / "restart.safetensors", -100)
    go(mine)
    output = " ".join(capsys.readouterr().err.split())
    assert "restart.safetensors: a damaged checkpoint, another SHA-256 than written" in output
    assert "going on from restart.previous.safetensors; 1 steps (0.5 fs) after its step 7 are computed again" in output
    assert_same(mine, whole)
    assert (mine / "restart.damaged.safetensors").exists()
    checkpoint.load(mine / "restart.previous.safetensors")  # the damaged one did not become the one before


def test_two_damaged_restart_files_are_one_line_and_nothing_is_touched(mine):
    for name in ("restart.safetensors", "restart.previous.safetensors"):
        flip(mine / name, -100)
    before = {path.name: path.read_bytes() for path in mine.iterdir()}
    with pytest.raises(
        PaiNNFastError, match=r"no checkpoint here can be read.*restart\.safetensors.*restart\.previous"
    ):
        go(mine)
    assert {path.name: path.read_bytes() for path in mine.iterdir()} == before


def test_a_restart_file_without_a_hash_is_refused_in_words(mine):
    path = mine / "restart.safetensors"
    (mine / "restart.previous.safetensors").unlink()
    with_numbers(path, signed=False)
    with pytest.raises(PaiNNFastError, match=r"a checkpoint without a hash; where: .*restart\.safetensors"):
        go(mine)


def with_numbers(path, *, signed=True, **changes):
    """The file anew with other numbers, signed or not."""
    tensors, numbers = checkpoint.load(path)
    if signed:
        checkpoint.save(path, tensors, numbers | changes)
    else:
        save_file(load_file(path), path, metadata={"numbers": json.dumps(numbers | changes)})


@pytest.mark.parametrize("step", [-1, 10**9, 10**15, 1e9, 2.5, True, "7", None])
def test_a_restart_file_of_an_absurd_step_is_refused(mine, step):
    (mine / "restart.previous.safetensors").unlink()
    with_numbers(mine / "restart.safetensors", step=step)
    with pytest.raises(PaiNNFastError, match=r"not a step of a run|a step beyond the end of the run"):
        go(mine)


def test_a_restart_file_of_other_shapes_is_refused(mine):
    path = mine / "restart.safetensors"
    tensors, numbers = checkpoint.load(path)
    checkpoint.save(path, tensors | {"state.0.momenta": tensors["state.0.momenta"][:, :1]}, numbers)
    with pytest.raises(PaiNNFastError, match="not a state of a run"):
        restart_module._read(path)


STRUCTURES = {
    "positions": (lambda atoms: atoms.positions.__setitem__((1, 0), 1.401), r"where: positions, trajectory 0, atom 1"),
    "charge": (lambda atoms: atoms.info.update(charge=1), r"where: charge; got: 1\.0; expected: 0\.0"),
    "spin": (lambda atoms: atoms.info.update(spin=2), r"where: spin; got: 2\.0; expected: 1\.0"),
    "cell": (lambda atoms: atoms.set_cell([9, 9, 9]), r"where: cell; got: 9\.0; expected: 0\.0"),
    "pbc": (lambda atoms: (atoms.set_cell([9, 9, 9]), atoms.set_pbc(True)), r"where: (cell|pbc)"),
    "masses": (lambda atoms: atoms.set_masses([16, 2.014]), r"where: masses"),
    "numbers": (lambda atoms: atoms.set_atomic_numbers([8, 9]), r"where: numbers; got: 9; expected: 1"),
}


@pytest.mark.parametrize("what", STRUCTURES)
def test_a_changed_structure_is_named(mine, what):
    change, message = STRUCTURES[what]
    atoms = OH.copy()
    change(atoms)
    if what not in ("masses", "numbers"):
        atoms.set_masses(OH.get_masses())
    with pytest.raises(PaiNNFastError, match=f"the run began with another structure; {message}.*fix: restore"):
        go(mine, atoms)


def test_a_changed_second_frame_is_named(tmp_path):
    frames = [OH, Atoms("OH", positions=[[0, 0, 0], [1.3, 0, 0]])]
    go(tmp_path / "run", frames, duration="3 fs")
    frames[1].positions[1] += 0.01
    with pytest.raises(PaiNNFastError, match="positions, trajectory 1, atom 1"):
        go(tmp_path / "run", frames)


def test_a_structure_that_differs_by_rounding_is_the_same(mine, whole):
    atoms = OH.copy()
    atoms.positions += 1e-9
    go(mine, atoms)
    assert_same(mine, whole)


MODEL = PotentialConfig(representation=RepresentationConfig(n_features=8, n_layers=1, n_rbf=5), name="small")


def with_representation(model, **changes):
    model.config = model.config.model_copy(
        update={"representation": model.config.representation.model_copy(update=changes)}
    )


MODELS = {
    "weights": lambda model: model.representation.embedding.weight.data.add_(1e-3),
    "epsilon": lambda model: with_representation(model, epsilon=2e-3),
    "cutoff": lambda model: with_representation(model, cutoff=4.5),
    "unit": lambda model: setattr(model, "config", model.config.model_copy(update={"energy_unit": "kcal/mol"})),
}


@pytest.mark.parametrize("what", MODELS)
def test_a_changed_model_is_refused(tmp_path, what):
    path = tmp_path / "model.safetensors"
    potential = random_potential(MODEL, dtype=torch.float32)
    save_model(potential, path)
    values = {"model": str(path), "output": str(tmp_path / "run"), "duration": "2 fs"}
    run(MDSettings.parse(values), atoms=OH)
    MODELS[what](potential)
    save_model(potential, path)
    with pytest.raises(PaiNNFastError, match="the run began with another model"):
        run(MDSettings.parse(values | {"duration": "4 fs"}), atoms=OH, resume=True)


def test_a_model_of_another_name_and_origin_is_the_same(tmp_path):
    path = tmp_path / "model.safetensors"
    potential = random_potential(MODEL, dtype=torch.float32)
    save_model(potential, path)
    values = {"model": str(path), "output": str(tmp_path / "run"), "duration": "2 fs"}
    run(MDSettings.parse(values), atoms=OH)
    potential.config = potential.config.model_copy(update={"name": "other", "provenance": {"data": "added later"}})
    save_model(potential, tmp_path / "moved.safetensors")
    moved = values | {"model": str(tmp_path / "moved.safetensors"), "duration": "4 fs"}
    run(MDSettings.parse(moved), atoms=OH, resume=True)


def test_a_run_that_is_damaged_all_over_can_be_replaced(mine, whole):
    for path in (*mine.glob("restart*"), mine / "trajectory.h5"):
        path.write_bytes(b"rubbish")
    run(settings(mine), force_field=Morse(), atoms=OH, overwrite=True)
    assert_same(mine, whole)
