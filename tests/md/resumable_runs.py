"""Short runs of OH to be stopped, damaged and resumed, for tests of damage."""

from ase import Atoms
from force_fields import Morse

from painn_fast.md import MDSettings, run

OH = Atoms("OH", positions=[[0, 0, 0], [1.4, 0, 0]])
EVERY = {"positions_every": "1 fs", "velocities_every": "2 fs", "energies_every": "0.5 fs"}


def settings(folder, **changes):
    values = {
        "output": str(folder),
        "ensemble": "pile-l",
        "beads": 2,
        "trajectories": 2,
        "seed": 5,
        "checkpoint": "0 s",
    }
    return MDSettings.parse({**values, "equilibration": "1 fs", "duration": "6 fs", **EVERY, **changes})


def go(folder, atoms=OH, **changes):
    return run(settings(folder, **changes), force_field=Morse(), atoms=atoms, resume=folder.exists())


def flip(path, byte, bit=2):
    data = bytearray(path.read_bytes())
    data[byte] ^= 1 << bit
    path.write_bytes(data)
