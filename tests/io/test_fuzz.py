"""Readers and files that are damaged or made to do harm: an error in one line, or the right numbers; nothing else."""

import hashlib
import io
import json
import random
import shutil
import struct
import sys
import zipfile
from collections import Counter
from pathlib import Path

import ase
import ase.db
import ase.io
import forked
import numpy as np
import pytest
import standin_schnetpack as spk
import torch
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

import painn_fast as pf
from painn_fast.correlation.series import SpectrumStreams
from painn_fast.io import save_model
from painn_fast.io.structures import read_structures
from painn_fast.md import MDSettings, Trajectory, run
from painn_fast.md.restart import read_restart
from painn_fast.nn import Potential, PotentialConfig
from painn_fast.runtime import signature
from painn_fast.settings import load_settings
from painn_fast.train.data import read_file, write_hdf5
from painn_fast.train.settings import DataFile

if not sys.platform.startswith("linux"):
    pytest.skip("limits of memory and child processes as Linux has them", allow_module_level=True)

FORMATS = {
    "model": "model.safetensors", "pickled model": "best_model", "checkpoint": "last.ckpt", "state dict": "weights.pt",
    "npz": "set.npz", "npy": "set.npy", "xyz": "set.xyz", "structures": "one.xyz", "traj": "one.traj",
    "hdf5": "set.h5", "database": "set.db", "json": "set.json", "toml": "settings.toml",
    "trajectory": "run/trajectory.h5", "restart": "run/restart.safetensors", "correlations": "run/correlations.npz",
}  # fmt: skip
"""What is attacked, by the name of its intact file."""
ZIPPED = {"pickled model", "checkpoint", "state dict", "npz", "correlations"}
TEXT = {"xyz", "structures", "toml", "json"}
SIGNED = {"npz", "correlations", "hdf5", "trajectory", "restart", "model"}
"""Formats with checksums of all that decides numbers: where they are not written anew, no other number comes out."""
ANEW = {"npz", "model"}
"""Of these, the ones whose checksums half of the mutations have right, so that they reach the parsers."""


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    """A folder with one small file of each format."""
    folder = tmp_path_factory.mktemp("intact")
    torch.manual_seed(0)
    representation = {"n_features": 8, "n_layers": 1, "n_rbf": 4, "cutoff": 3.0, "max_z": 10}
    save_model(Potential(PotentialConfig.parse({"representation": representation})), folder / "model.safetensors")
    live = spk.model()
    spk.save(live, folder / "best_model")
    state = {f"model.{name}": value for name, value in live.state_dict().items()}
    spk.save({"state_dict": state, "hyper_parameters": {"model": live}, "epoch": 3}, folder / "last.ckpt")
    torch.save(live.state_dict(), folder / "weights.pt")
    frames = labelled_water(4)
    ase.io.write(folder / "set.xyz", frames)
    ase.io.write(folder / "one.xyz", frames[:1])
    ase.io.write(folder / "one.traj", frames[:1])
    for name in ("set.db", "set.json"):
        with ase.db.connect(folder / name) as database:
            for atoms in frames:
                database.write(atoms)
    positions = np.array([atoms.positions for atoms in frames])
    energies = np.array([atoms.get_potential_energy() for atoms in frames])
    np.savez(folder / "set.npz", R=positions, z=frames[0].numbers, E=energies, energy_unit="eV", length_unit="Ang")
    np.save(folder / "set.npy", positions)
    write_hdf5(read_file(DataFile(file=str(folder / "set.npz"))), folder / "set.h5")
    settings = {
        "model": str(folder / "model.safetensors"), "structure": str(folder / "one.xyz"), "output": str(folder / "run"),
        "ensemble": "nve", "duration": "4 fs", "positions_every": "1 fs", "energies_every": "1 fs",
        "velocities_every": "0.5 fs", "stream": "1 fs",
    }  # fmt: skip
    shutil.rmtree(folder / "run", ignore_errors=True)
    run(MDSettings.parse(settings))
    shutil.copy(folder / "run" / "settings.toml", folder / "settings.toml")
    return folder


def labelled_water(n):
    frames = []
    for k in range(n):
        atoms = molecule("H2O")
        atoms.rattle(0.02, seed=k)
        atoms.calc = SinglePointCalculator(atoms, energy=-1.5 - k, forces=np.full((3, 3), 0.25 * k))
        frames.append(atoms)
    return frames


def digest(*values):
    """Of arrays with their shapes and of anything else as text."""
    found = hashlib.sha256()
    for value in values:
        array = np.asarray(value)
        found.update(f"{array.dtype} {array.shape} ".encode())
        found.update(array.tobytes() if array.dtype.kind in "fiub" else repr(value).encode())
    return found.hexdigest()


def read(kind, path):
    """What a file says, as a digest of all numbers in it."""
    if kind in ("model", "pickled model", "checkpoint", "state dict"):
        model = pf.load(path, **({} if kind == "model" else {"energy_unit": "eV"}))
        config = model.config.model_dump(mode="json", exclude={"provenance", "name"})
        return digest(json.dumps(config, sort_keys=True), *(value.numpy() for value in model.state_dict().values()))
    if kind in ("npz", "npy", "xyz", "hdf5", "database", "json"):
        options = {"symbols": "O H H", "units": {"length": "Ang"}} if kind == "npy" else {}
        data = read_file(DataFile(file=str(path), **options))
        labels = [value for name in sorted(data.labels) for value in (name, data.labels[name])]
        return digest(data.numbers, data.positions, data.n_atoms, data.cell, data.pbc, data.charge, data.spin, *labels)
    if kind in ("structures", "traj"):
        return digest(*(part for atoms in read_structures(path) for part in (atoms.numbers, atoms.positions)))
    if kind == "toml":
        return load_settings(MDSettings, path).model_dump_json()
    return read_folder(kind, path.parent)


def read_folder(kind, folder):
    """What a run has written, as a digest."""
    if kind == "restart":
        restart = read_restart(folder)
        tensors = restart.states[0].tensors() | restart.systems[0]
        return digest(*(tensors[name].numpy() for name in sorted(tensors)), restart.states[0].step, restart.model)
    if kind == "correlations":
        state = SpectrumStreams.load(folder).state()
        return digest(*(value for name in sorted(state) for value in (name, state[name])))
    found = Trajectory(folder)
    series = [found.read(name) for name in found.names if name != "energies"]
    return digest(*series, *found.energies.values(), found.times(), found.temperatures, found.system.masses.numpy())


ENDS = [0, 1, 0x7F, 0x80, 0xFF, 2**15, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1]
WORDS = [b"nan", b"inf", b"-1", b"1e999", b"0", b"9" * 5000, b"\0", "²".encode(), b"=", b'"', b"{", b"[" * 3000, b"\n"]
WORDS += [b"Lattice=", b"Properties=", b":S:1", b"pbc=", b"1_0", b"Xx", b"'''", b"0 fs", b"-5 ps", b"0x" + b"f" * 6000]
WORDS += [b" " * 50, b"a" * 20_000]


def mutated(data, chance, text):
    """Some bytes exchanged, cut out, doubled or put in."""
    data = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        if not data:
            break
        start, length = chance.randrange(len(data)), chance.choice((1, 1, 4, 16, 60))
        if not text and chance.random() < 0.5:  # where headers are
            start = chance.randrange(min(len(data), 4096))
        other = chance.randrange(len(data))
        change = chance.randrange(7)
        if change == 0:
            data[start] ^= 1 << chance.randrange(8)
        elif change == 1:
            del data[start : start + length]
        elif change == 2:
            data[start:start] = data[other : other + length]
        elif change == 3:
            data[start : start + length] = data[other : other + length]
        elif change == 4:
            size = chance.choice((1, 2, 4, 8))
            data[start : start + size] = (chance.choice(ENDS) % 2 ** (8 * size)).to_bytes(size, "little")
        elif change == 5 and chance.random() < 0.3:
            del data[start:]
        else:
            word = chance.choice(WORDS) if text else bytes([chance.randrange(256)])
            data[start : start + chance.choice((0, len(word)))] = word
    return bytes(data)


def resigned(kind, data, chance):
    """Mutated behind the checksums that can be written anew, so that the reader gets to see it."""
    if kind in ZIPPED:
        packed = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(packed, "w") as new:
            chosen = chance.choice([name for name in old.namelist() if "pkl" in name] or old.namelist())
            for name in old.namelist():
                content = old.read(name)
                new.writestr(name, mutated(content, chance, text=False) if name == chosen else content)
        return packed.getvalue()
    if kind == "model":
        return with_other_setting(data, chance)
    return mutated(data, chance, kind in TEXT)


ODD = [None, -1, 0, 10**30, 2**31, 1e308, "", "x" * 3000, [], {}, True, [1] * 50, 64, 100_000, "energy"]


def with_other_setting(data, chance):
    """A model with another value somewhere in its configuration, whose hashes are right."""
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    own = json.loads(header["__metadata__"]["painn_fast"])
    place = own["config"]
    while True:
        key = chance.choice(list(place))
        if not isinstance(place[key], dict) or not place[key] or chance.random() < 0.2:
            break
        place = place[key]
    place[key] = chance.choice(ODD)
    own["config_sha256"] = hashlib.sha256(json.dumps(own["config"], sort_keys=True).encode()).hexdigest()
    own[signature.FIELD] = signature.BLANK
    header["__metadata__"]["painn_fast"] = json.dumps(own)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    unsigned = struct.pack("<Q", len(text)) + text + data[8 + size :]
    return unsigned.replace(signature.BLANK.encode(), hashlib.sha256(unsigned).hexdigest().encode(), 1)


def attack(kind, intact, tmp_path, count):
    """Outcomes of `count` mutations, and whether each was signed anew."""
    data = (intact / FORMATS[kind]).read_bytes()
    name = Path(FORMATS[kind]).name

    def work(k):
        chance = random.Random(f"{kind} {k}")
        anew = kind not in SIGNED - ANEW and k % 2 == 0
        content = resigned(kind, data, chance) if anew else mutated(data, chance, kind in TEXT)
        folder = tmp_path / "case"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / name).write_bytes(content)
        return read(kind, folder / name)

    right = read(kind, intact / FORMATS[kind])
    results = forked.outcomes(range(count), work)
    counts = Counter("same" if result == ("value", right) else result[0] for result in results)
    bad = [(k, *result) for k, result in enumerate(results) if result[0] not in ("value", "error")]
    assert not bad, (counts, bad[:5])
    assert counts["error"] > 0, counts
    if kind in SIGNED:
        other = [k for k, result in enumerate(results) if result[0] == "value" and result[1] != right]
        if kind in ANEW:
            other = [k for k in other if k % 2]
        assert not other, (counts, other[:5])


@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_file_ends_in_one_line_or_in_the_right_numbers(kind, intact, tmp_path):
    attack(kind, intact, tmp_path, 200)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_many_damaged_files(kind, intact, tmp_path):
    attack(kind, intact, tmp_path, 10_000)
