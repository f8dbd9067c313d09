"""`painn-fast doctor --warm` leaves nothing to be compiled by the verbs."""

import json
import subprocess
import sys

VERBS = """
import json, sys
import numba.core.event as event
names = []

class Listener(event.Listener):
    def on_start(self, started):
        names.append(started.data["dispatcher"].py_func.__qualname__)

    def on_end(self, ended):
        pass

event.register("numba:compile", Listener())
from painn_fast.cli import main
import numpy as np
from ase.build import molecule
molecule("CH3CH2OH").write("ethanol.xyz")
rng = np.random.default_rng(0)
atoms = molecule("CH3CH2OH")
R = atoms.positions + 0.05 * rng.normal(size=(12, 9, 3))
np.savez("set.npz", R=R, z=atoms.numbers, E=rng.normal(size=12), F=0.1 * rng.normal(size=(12, 9, 3)),
         energy_unit="eV", length_unit="Ang")
with open("train.toml", "w") as file:
    file.write('max_epochs = 1\\n[[data]]\\nfile = "set.npz"\\n[representation]\\nn_features = 32\\nn_layers = 2\\n')
codes = [main(words.split()) for words in (
    "eval ethanol ethanol.xyz", "train train.toml", "md --model ethanol --beads 4 --ensemble pile-l --duration 2fs",
)]
print(json.dumps([codes, names]))
"""


def test_verbs_compile_nothing_after_it(tmp_path):
    every = "from painn_fast.warm import JOBS\nfor job in JOBS.values(): job()"  # in one process: one import of torch
    subprocess.run([sys.executable, "-c", every], check=True, capture_output=True, cwd=tmp_path)
    done = subprocess.run([sys.executable, "-c", VERBS], check=True, capture_output=True, text=True, cwd=tmp_path)
    codes, compiled = json.loads(done.stdout.splitlines()[-1])
    assert codes == [0, 0, 0]
    assert compiled == []
