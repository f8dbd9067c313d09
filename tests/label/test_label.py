"""Labels of structures: what is written, what a killed run keeps, and what is refused."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.emt import EMT

from painn_fast import units
from painn_fast.cli import main
from painn_fast.errors import PaiNNFastError
from painn_fast.label import label
from painn_fast.label.journal import Journal
from painn_fast.testing import assert_close
from painn_fast.train.data import read_file
from painn_fast.train.settings import DataFile

EMT_NAME = "ase.calculators.emt:EMT"
HALTING = '''
"""A calculator for tests: slow, and without an answer for one structure."""
import time
from ase.calculators.lj import LennardJones

class Halting(LennardJones):
    def calculate(self, atoms, *arguments):
        time.sleep(0.02)
        if atoms.positions[0, 0] > 0.15:
            raise RuntimeError("no convergence")
        super().calculate(atoms, *arguments)
'''


def shaken(n, seed=0, name="H2O"):
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n):
        frames.append(molecule(name))
        frames[-1].positions += rng.uniform(-0.1, 0.1, frames[-1].positions.shape)
    return frames


@pytest.fixture
def halting(tmp_path, monkeypatch):
    (tmp_path / "halting_calculator.py").write_text(HALTING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    return "halting_calculator:Halting"


def test_labels_are_those_of_the_calculator_in_the_order_of_the_file(tmp_path):
    frames = [*shaken(3), *shaken(2, name="CO2")]
    ase.io.write(tmp_path / "in.xyz", frames)
    path = label(tmp_path / "in.xyz", tmp_path / "out.xyz", method=EMT_NAME, workers=2)
    found = ase.io.read(path, index=":")
    for got, atoms in zip(found, ase.io.read(tmp_path / "in.xyz", index=":"), strict=True):
        atoms.calc = EMT()
        assert_close(got.positions, atoms.positions, 1e-12)
        assert_close(got.get_potential_energy(), atoms.get_potential_energy(), 1e-7)
        assert_close(got.get_forces(), atoms.get_forces(), 1e-6)
    assert not (tmp_path / "out.xyz.journal").exists()


def test_an_npz_of_labels_is_a_training_set(tmp_path):
    np.savez(tmp_path / "in.npz", R=np.array([atoms.positions for atoms in shaken(6)]) / units.BOHR, z=[8, 1, 1],
             length_unit="Bohr")  # fmt: skip
    path = label(tmp_path / "in.npz", tmp_path / "out.npz", method="model:ethanol", every=2, workers=1)
    data = read_file(DataFile(file=path.name), tmp_path)
    assert len(data) == 3
    assert_close(data.positions[3:6], shaken(6)[2].positions, 1e-12)
    assert [data.labelled(name) for name in ("energy", "forces", "dipole", "polarizability")] == [3, 3, 3, 1]
    assert np.isfinite(data.labels["polarizability"][0]).all()


def test_a_structure_that_fails_is_reported_and_left_out(tmp_path, halting, capfd):
    frames = shaken(4)
    frames[2].positions[0, 0] = 0.2
    ase.io.write(tmp_path / "in.xyz", frames)
    path = label(tmp_path / "in.xyz", tmp_path / "out.xyz", method=halting, workers=2)
    assert len(ase.io.read(path, index=":")) == 3
    printed = capfd.readouterr().err
    assert "structure 2 failed: no convergence" in printed
    assert "4 of 4 labelled, 1 failed" in printed
    for atoms in frames:
        atoms.positions[0, 0] = 0.2
    ase.io.write(tmp_path / "bad.xyz", frames)
    with pytest.raises(PaiNNFastError, match=r"no structure could be labelled.*no convergence"):
        label(tmp_path / "bad.xyz", tmp_path / "bad-out.xyz", method=halting, workers=1)


def test_a_killed_run_goes_on_to_the_same_labels(tmp_path, halting):
    ase.io.write(tmp_path / "in.xyz", shaken(60))
    command = [sys.executable, "-m", "painn_fast.cli", "label", str(tmp_path / "in.xyz"), "--with", halting]
    command += ["--workers", "2", "-o", str(tmp_path / "out.xyz")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    journal = tmp_path / "out.xyz.journal"
    end = time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 5):
        assert time.monotonic() < end
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = journal.read_bytes().count(b"\n") - 1
    assert done < 60, "it came to its end before it was killed: nothing is shown"
    with journal.open("ab") as file:
        file.write(b'{"structure": 59, "ener')  # cut off
    with pytest.raises(PaiNNFastError, match=r"exists already.*--resume"):
        label(tmp_path / "in.xyz", tmp_path / "out.xyz", method=halting)
    label(tmp_path / "in.xyz", tmp_path / "out.xyz", method=halting, workers=1, resume=True)
    label(tmp_path / "in.xyz", tmp_path / "straight.xyz", method=halting, workers=1)
    assert (tmp_path / "out.xyz").read_bytes() == (tmp_path / "straight.xyz").read_bytes()


def test_what_is_labelled_can_be_written_before_all_is(tmp_path, halting):
    ase.io.write(tmp_path / "in.xyz", shaken(4))
    label(tmp_path / "in.xyz", tmp_path / "whole.xyz", method=halting, workers=1)
    frames = ase.io.read(tmp_path / "in.xyz", index=":")
    header = {"structures": 4, "method": halting, "level": None, "options": {}, "polarizability_every": 5}
    from painn_fast.label.run import _fingerprint

    header["sha256"] = _fingerprint(frames)
    lines = [header, {"structure": 1, "energy": -1.0, "forces": np.zeros((3, 3)).tolist()}]
    (tmp_path / "part.xyz.journal").write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = label(tmp_path / "in.xyz", tmp_path / "part.xyz", method=halting, finish=True)
    assert_close(ase.io.read(path, index=":")[0].positions, frames[1].positions, 1e-12)
    assert (tmp_path / "part.xyz.journal").exists()


HEADER = {"structures": 3, "sha256": "a", "method": "none"}


def journal_of(path):
    """Three finished structures; its lines."""
    with Journal(path, HEADER) as journal:
        for k in range(3):
            journal.add(k, {"energy": -1.0 - k, "forces": [[0.25, 0.0, 1e-7]]})
    return path.read_bytes()


def test_a_bit_flipped_anywhere_in_a_journal_is_noticed(tmp_path):
    """A damaged line is left out, to be labelled again; a damaged first line is an error."""
    path = tmp_path / "out.xyz.journal"
    good, rng = journal_of(path), random.Random(0)
    with Journal(path, HEADER) as whole:
        expected = whole.entries
    assert sorted(expected) == [0, 1, 2]
    header = good.index(b"\n") + 1
    for place in range(len(good)):
        changed = bytearray(good)
        changed[place] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        if place < header:
            with pytest.raises(PaiNNFastError, match="journal"):
                Journal(path, HEADER)
            continue
        with Journal(path, HEADER) as journal:
            assert len(journal.entries) < 3
            assert all(expected[k] == entry for k, entry in journal.entries.items())
            assert journal.damaged or place == len(good) - 1  # a line without its end is one that was cut off


def test_a_structure_whose_line_is_damaged_is_labelled_again(tmp_path, halting, capfd):
    ase.io.write(tmp_path / "in.xyz", shaken(4))
    label(tmp_path / "in.xyz", tmp_path / "whole.xyz", method=halting, workers=1)
    from painn_fast.label.run import _fingerprint

    header = {"structures": 4, "sha256": _fingerprint(ase.io.read(tmp_path / "in.xyz", index=":")), "method": halting}
    path = tmp_path / "out.xyz.journal"
    with Journal(path, header | {"level": None, "options": {}, "polarizability_every": 5}) as journal:
        journal.add(1, {"energy": -1.0, "forces": np.zeros((3, 3)).tolist()})
    path.write_bytes(path.read_bytes().replace(b"-1.0", b"-7.0"))
    label(tmp_path / "in.xyz", tmp_path / "out.xyz", method=halting, workers=1, resume=True)
    assert "line 2 is damaged; its structure is labelled again" in " ".join(capfd.readouterr().err.split())
    assert (tmp_path / "out.xyz").read_bytes() == (tmp_path / "whole.xyz").read_bytes()


def test_a_journal_of_other_structures_or_another_method_is_refused(tmp_path, halting):
    ase.io.write(tmp_path / "in.xyz", shaken(2))
    (tmp_path / "out.xyz.journal").write_text(json.dumps({"structures": 2, "sha256": "0", "method": "pyscf"}) + "\n")
    with pytest.raises(PaiNNFastError, match=r"belongs to another run.*method = halting.*method = pyscf"):
        label(tmp_path / "in.xyz", tmp_path / "out.xyz", method=halting, resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "ase.calculators.nothing:No"}, "no such calculator.*module:Class"),
        ({"method": "nothing"}, "no such calculator"),
        ({"output": "out.json"}, r"unknown kind of output.*\.npz"),
        ({"output": "out.npz"}, "different compositions.*structure 2: CH4, structure 0: OH2"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_computed(tmp_path, changes, message):
    ase.io.write(tmp_path / "in.xyz", [*shaken(2), molecule("CH4")])
    given = {"method": EMT_NAME, "output": "out.xyz"} | changes
    with pytest.raises(PaiNNFastError, match=message):
        label(tmp_path / "in.xyz", tmp_path / given.pop("output"), **given)
    assert [path.name for path in tmp_path.iterdir()] == ["in.xyz"]


@pytest.mark.parametrize("name", ["out.xyz", "out.npz"])
def test_the_command_labels_with_the_properties_that_are_asked_for(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    ase.io.write("in.xyz", shaken(3))
    words = ["label", "in.xyz", "--with", "model:ethanol", "--workers", "1"]
    assert main([*words, "--properties", "polarizability,dipole", "-o", name]) == 0
    assert main([*words, "--polarizability-every", "1", "-o", "all.npz"]) == 0
    found, right = (read_file(DataFile(file=file), tmp_path).labels for file in (name, "all.npz"))
    assert set(found) == {"dipole", "polarizability"}
    assert {"energy", "forces"} < set(right)
    for label_name, values in found.items():
        assert np.isfinite(values).all()
        assert_close(values, right[label_name], 1e-6)


def test_properties_and_polarizabilities_that_contradict_each_other(tmp_path):
    ase.io.write(tmp_path / "in.xyz", shaken(1))
    for properties, every, message in (
        (("dipole",), 2, "contradict each other; got: dipole; the polarizability of every 2"),
        (("dipole", "polarizability"), 0, "contradict each other"),
        (("mu",), None, r"no such labels; got: mu; expected: energy \| forces"),
    ):
        with pytest.raises(PaiNNFastError, match=message):
            label(
                tmp_path / "in.xyz", tmp_path / "out.xyz", method="model:ethanol", properties=properties,
                polarizability_every=every,
            )  # fmt: skip


def test_a_journal_of_other_properties_is_not_gone_on_with(tmp_path, halting):
    ase.io.write(tmp_path / "in.xyz", shaken(2))
    given = {"method": halting, "workers": 1, "resume": True}
    with pytest.raises(PaiNNFastError, match=r"no structure could be labelled.*does not give this"):
        label(tmp_path / "in.xyz", tmp_path / "out.xyz", properties=["dipole"], **given)
    with pytest.raises(PaiNNFastError, match=r"another run.*properties = \['energy'\].*properties = \['dipole'\]"):
        label(tmp_path / "in.xyz", tmp_path / "out.xyz", properties=["energy"], **given)


def test_pyscf_gives_labels_that_belong_to_each_other_in_our_units():
    pytest.importorskip("pyscf")
    from painn_fast.label.methods import How

    method, h = How("pyscf", "PBE0/STO-3G").make(), 0.005
    atoms = molecule("H2O")
    atoms.positions[1] += [0.0, 0.05, 0.0]
    moved = [atoms.copy() for _ in range(2)]
    for one, sign in zip(moved, (1, -1), strict=True):
        one.positions[1, 1] += sign * h
    labels, plus, minus = method(atoms, True), *(method(one, False) for one in moved)
    assert labels["energy"] == pytest.approx(-2048, abs=2)  # eV; -75.2 hartree
    assert labels["forces"][1, 1] == pytest.approx((minus["energy"] - plus["energy"]) / (2 * h), rel=3e-3)
    assert np.abs(labels["forces"].sum(axis=0)).max() < 1e-3  # eV/Å
    assert labels["dipole"][2] == pytest.approx(-0.33, abs=0.05)  # e Å
    assert_close(labels["polarizability"], labels["polarizability"].T, 1e-3)
    assert 0.2 < np.trace(labels["polarizability"]) / 3 < 0.7  # Å³, of this small basis


@pytest.mark.slow
def test_pyscf_gives_the_labels_of_the_training_data():
    pytest.importorskip("pyscf")
    from painn_fast.label.methods import How

    data = np.load(Path(__file__).parents[1] / "data" / "ethanol_pbe0.npz")
    row = int(np.flatnonzero(np.isfinite(data["polarizability"][:, 0, 0]))[0])
    atoms = ase.Atoms(data["z"], data["R"][row])
    labels = How("pyscf", "PBE0/def2-SVPD").make()(atoms, True)
    assert abs(labels["energy"] - data["E"][row]) < 1e-4  # eV of 4210: other sizes of a hartree differ by 1e-8
    assert_close(labels["forces"], data["F"][row], 1e-5)
    assert_close(labels["dipole"], data["dipole"][row], 1e-5)
    assert_close(labels["polarizability"], data["polarizability"][row], 1e-5)
