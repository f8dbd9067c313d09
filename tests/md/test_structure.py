"""What a structure brings along beside elements and positions: kept, refused or reported."""

import ase.io
import h5py
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.constraints import FixAtoms, FixBondLength, FixCom, Hookean
from force_fields import Morse

from painn_fast.errors import PaiNNFastError
from painn_fast.graph.charge import charge_and_multiplicity
from painn_fast.label.structures import structures
from painn_fast.md import MDSettings, Trajectory, run
from painn_fast.md.restart import read_restart

CONSTRAINTS = {
    "FixAtoms of atoms 0, 2": FixAtoms([0, 2]),
    "FixBondLengths of atoms 0, 1": FixBondLength(0, 1),
    "FixCom": FixCom(),
    "Hookean": Hookean(0, 1, rt=2.0, k=5.0),
}


def settings(folder, **values):
    return MDSettings.parse({"ensemble": "nve", "duration": "1 fs", "output": str(folder), **values})


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_constraints_are_refused_in_words(tmp_path, name):
    atoms = molecule("H2O")
    atoms.set_constraint(CONSTRAINTS[name])
    with pytest.raises(
        PaiNNFastError, match=rf"cannot honour constraints.*structure 1 \(H2O\); got: {name}.*set_const"
    ):
        run(settings(tmp_path / "run", trajectories=2), force_field=Morse(), atoms=[molecule("H2O"), atoms])
    assert not (tmp_path / "run").exists(), "nothing is begun"
    assert len(atoms.constraints) == 1


@pytest.mark.parametrize("name", ["x.traj", "x.xyz", "x.json", "x.vasp"])
def test_constraints_of_a_file_are_refused_with_its_name(tmp_path, name):
    atoms = molecule("H2O", cell=[9, 9, 9], pbc=True)
    atoms.set_constraint(FixAtoms([0]))
    atoms.write(tmp_path / name)
    if not ase.io.read(tmp_path / name).constraints:
        pytest.skip("this version of ASE keeps no constraints there")
    with pytest.raises(PaiNNFastError, match=rf"constraints.*{name}, structure 0.*FixAtoms of atoms 0.*move_mask"):
        run(settings(tmp_path / "run", structure=str(tmp_path / name)), force_field=Morse())
    free = structures(tmp_path / name)[0]
    free.set_constraint()
    assert run(settings(tmp_path / "run"), force_field=Morse(), atoms=free).exists()


@pytest.mark.parametrize("name", ["x.traj", "x.xyz", None])
def test_momenta_of_a_structure_are_replaced_with_a_warning(tmp_path, name, capsys):
    atoms = Atoms("OH", [[0, 0, 0], [1.4, 0, 0]])
    assert run(settings(tmp_path / "still", velocities_every="0.5 fs"), force_field=Morse(), atoms=atoms).exists()
    assert "not used" not in capsys.readouterr().err
    atoms.set_momenta([[0.1, 0, 0], [0, 0.2, 0]])
    given = {"atoms": atoms}
    values = {"velocities_every": "0.5 fs"}
    if name:
        atoms.write(tmp_path / name)
        given, values = {}, {**values, "structure": str(tmp_path / name)}
    path = run(settings(tmp_path / "run", **values), force_field=Morse(), **given)
    output = capsys.readouterr().err
    assert f"momenta of structure 0{f' of {tmp_path / name}' if name else ''} are not used" in output.replace("\n", " ")
    assert "thermal" in output
    assert (Trajectory(path).velocities == Trajectory(tmp_path / "still").velocities).all()


def test_charge_and_spin_that_cannot_be_read_are_refused_before_anything_is_begun(tmp_path):
    atoms = molecule("H2O")
    atoms.info["charge"] = "none"
    with pytest.raises(PaiNNFastError, match="not a total charge; where: H2O, 'charge'"):
        run(settings(tmp_path / "run"), force_field=Morse(), atoms=atoms)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"numbers": [200, 1]}, "no such element; where: atom 0; got: 200"),
        ({"numbers": [8, -1]}, "no such element; where: atom 1; got: -1"),
        ({"cell": [[9, 0, 0], [9, 0, 0], [0, 0, 9]], "pbc": True}, "cell vectors are parallel"),
        ({"cell": [[9, 0, 0], [0, np.nan, 0], [0, 0, 9]], "pbc": True}, "cell is not finite"),
        ({"cell": np.zeros((3, 3)), "pbc": True}, "periodic without a cell vector"),
        ({"positions": [[0, 0, 0], [1e9, 0, 0]]}, "absurdly large"),
    ],
)
def test_elements_cells_and_positions_that_make_no_sense_are_refused_for_any_force_field(tmp_path, given, message):
    atoms = Atoms(**{"numbers": [8, 1], "positions": [[0, 0, 0], [1.4, 0, 0]], **given})
    with pytest.raises(PaiNNFastError, match=message):
        run(settings(tmp_path / "run", fragments="stop"), force_field=Morse(), atoms=atoms)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("device", ["foo", "meta", *(() if torch.cuda.is_available() else ("cuda",))])
def test_a_device_that_is_not_there_is_refused(tmp_path, device):
    with pytest.raises(PaiNNFastError, match=f"no such device; got: {device}"):
        run(settings(tmp_path / "run", device=device), force_field=Morse(), atoms=molecule("H2O"))
    assert not (tmp_path / "run").exists()


def test_frames_of_other_charge_or_tags_are_molecules_of_their_own(tmp_path):
    atoms = [Atoms("OH", [[0, 0, 0], [1.4, 0, 0]]) for _ in range(3)]
    atoms[1].info["total_charge"] = -1
    atoms[2].set_tags([1, 2])
    folder = run(settings(tmp_path / "run", trajectories=3, positions_every="0.5 fs"), force_field=Morse(), atoms=atoms)
    parts = [Trajectory(folder / f"{k}-HO") for k in range(3)]
    assert [charge_and_multiplicity(part.atoms()[0].info, where="")[0] for part in parts] == [0, -1, 0]
    assert [part.atoms()[0].get_tags().tolist() for part in parts] == [[0, 0], [0, 0], [1, 2]]
    assert read_restart(folder) is not None


def test_frozen_structures_keep_charge_and_masses(tmp_path):
    atoms = Atoms("OH", [[0, 0, 0], [1.4, 0, 0]], masses=[15.999, 2.014])
    atoms.info.update(charge=1, spin=2)

    class Bad(Morse):
        def __call__(self, positions):
            energy, forces = super().__call__(positions)
            return energy * np.nan, forces * np.nan

    with pytest.raises(PaiNNFastError):
        run(settings(tmp_path / "run"), force_field=Bad(), atoms=atoms)
    for path in (tmp_path / "run").glob("frozen-*.xyz"):
        frame = ase.io.read(path)
        assert frame.get_masses()[1] == pytest.approx(2.014)


def older(path):
    """A trajectory as version 1 wrote it."""
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 1
        for name in ("total_charge", "spin_multiplicity", "tags"):
            file.attrs.pop(name, None)


def test_trajectories_of_version_1_are_read_and_their_missing_charge_is_reported(tmp_path, capsys):
    atoms = Atoms("OH", [[0, 0, 0], [1.4, 0, 0]], masses=[15.999, 2.014])
    path = run(settings(tmp_path / "run", positions_every="0.5 fs"), force_field=Morse(), atoms=atoms)
    expected = Trajectory(path).positions
    structures(path)
    assert "charge" not in capsys.readouterr().err
    older(path)
    trajectory = Trajectory(path)
    assert not trajectory.tells_charge
    assert (trajectory.positions == expected).all()
    frames = structures(path)
    assert "did not record charge and spin" in capsys.readouterr().err.replace("\n", " ")
    assert frames[0].get_masses()[1] == 2.014
    assert frames[0].info == {}


def test_trajectories_of_a_later_version_are_refused(tmp_path):
    path = run(settings(tmp_path / "run"), force_field=Morse(), atoms=Atoms("OH", [[0, 0, 0], [1.4, 0, 0]]))
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 99
    with pytest.raises(PaiNNFastError, match=r"version 99; expected: .*version 1 or 2"):
        Trajectory(path)


def test_what_is_no_structure_is_refused_in_words(tmp_path):
    for atoms in ("x.xyz", [None]):
        with pytest.raises(PaiNNFastError, match="not a structure"):
            run(MDSettings(model="ethanol", output=str(tmp_path / "run")), atoms=atoms)
    with pytest.raises(PaiNNFastError, match="output"):
        MDSettings.parse({"output": ""})
