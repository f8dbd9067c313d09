"""How long a fresh installation takes to its first numbers: `python bench/first_minute.py [--out FILE]`.

Each row is a new process with an empty cache of compiled code, again with that cache, and by the clock: seconds from
the start of Python to the end. Beside it the time of the processor, which depends less on what else the machine does.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from ase.build import molecule

ENERGY = """
import painn_fast as pf
from ase.build import molecule
print(pf.evaluate(pf.load("ethanol"), [molecule("CH3CH2OH")])["energy"][0])
"""
TRAINING = 'max_epochs = 1\n[[data]]\nfile = "set.npz"\n'
PAINN_FAST = (sys.executable, "-m", "painn_fast.cli")
ROWS = {
    "first energy and forces": (sys.executable, "-c", ENERGY),
    "first epoch of a training (100 ethanol)": (*PAINN_FAST, "train", "train.toml"),
    "a wrong setting": (*PAINN_FAST, "md", "--model", "ethanol", "--time-step", "0.5"),
    "doctor --warm": (*PAINN_FAST, "doctor", "--warm"),
}


def write_set(folder: Path) -> None:
    """100 rattled ethanol molecules with random labels, and the configuration of one epoch of them."""
    rng, atoms = np.random.default_rng(0), molecule("CH3CH2OH")
    positions = atoms.positions + 0.05 * rng.normal(size=(100, len(atoms), 3))
    labels = {"E": rng.normal(size=100), "F": 0.1 * rng.normal(size=positions.shape)}
    np.savez(folder / "set.npz", R=positions, z=atoms.numbers, **labels, energy_unit="eV", length_unit="Ang")
    (folder / "train.toml").write_text(TRAINING)


def seconds(command: tuple[str, ...], folder: Path, cache: Path) -> tuple[float, float]:
    """By the clock, and of the processor."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    passed, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return passed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure all rows and print them as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write the numbers here too, as JSON")
    parser.add_argument("--row", choices=ROWS, action="append", help="this row only; repeatable")
    given = parser.parse_args()
    measured = {}
    print("| | first, s | of the processor | again, s | of the processor |\n| --- | ---: | ---: | ---: | ---: |")
    for name in given.row or ROWS:
        pairs = []
        with tempfile.TemporaryDirectory() as cache:
            for _ in range(2):
                with tempfile.TemporaryDirectory() as folder:
                    write_set(Path(folder))
                    pairs += seconds(ROWS[name], Path(folder), Path(cache))
        measured[name] = pairs
        print(f"| {name} | {' | '.join(f'{number:.1f}' for number in pairs)} |", flush=True)
    if given.out is not None:
        given.out.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
