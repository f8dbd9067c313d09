"""How long people wait for their first numbers."""

import json
import subprocess
import sys

START = """
import json, sys, time
import ase, numba, torch
import numba.np.arraymath  # what the first call of anything compiled brings along, scipy's BLAS included
before, loaded = time.perf_counter(), set(sys.modules)
import painn_fast
model = painn_fast.load("ethanol")
atoms = ase.Atoms("OH2", [[0, 0, 0.119], [0, 0.763, -0.477], [0, -0.763, -0.477]])
energy = painn_fast.evaluate(model, [atoms])["energy"][0]
atoms.calc = painn_fast.PaiNNCalculator(model)
assert abs(atoms.get_potential_energy() - energy) < 1e-6 and atoms.get_forces().shape == (3, 3)
seconds = time.perf_counter() - before
from painn_fast.engine.passes_cpu import energy_and_forces
print(json.dumps([seconds, sum(energy_and_forces.stats.cache_misses.values()), sorted(set(sys.modules) - loaded)]))
"""
HEAVY = ("sympy", "torch.fx", "torch._dynamo", "torch._inductor", "h5py", "matplotlib", "typer", "rich", "scipy")
"""Packages that take long to import and that an energy does not need."""


def start():
    done = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_first_energy_and_forces_come_soon_after_the_imports_of_others():
    start()  # compiles what the cache lacks
    (seconds, compiled, modules), (again, *_) = start(), start()
    assert compiled == 0
    assert not [name for name in modules if name.startswith(HEAVY)]
    assert min(seconds, again) < 5  # 0.5 on two quiet cores
