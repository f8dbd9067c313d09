"""Relaxation and Hessians of many molecules, beside one by one: `python bench/relax.py [--count 200] [--out FILE]`.

Molecules of H, C and O with up to 29 atoms, put together as those of the benchmark and displaced by 0.05 Å, on the
energy of the bundled ethanol model, which knows few of them: only such as come to a minimum. In one batch by
`painn_fast.vibrations.relax_many`, molecule by molecule by ASE's BFGS with our calculator, and, where SchNetPack is
installed, by ASE's BFGS with its SpkCalculator, of which a few stand for all. Then Hessians of the first hundred:
differences of forces in batches, and analytic ones of a few, one by one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase.optimize import BFGS
from molecules import qm9_like

import painn_fast as pf
from painn_fast.bench.peers import import_schnetpack, schnetpack_calculator, schnetpack_model
from painn_fast.errors import PaiNNFastError
from painn_fast.nn import EnergyHead, Potential
from painn_fast.vibrations import hessian, relax_many
from painn_fast.vibrations.derivatives import derivatives_of_many

FORCE, STEPS = 0.01, 1000
"""eV/Å; steps at most."""
SAME = 1e-3
"""eV between two energies of one minimum."""
HESSIANS, FEW = 100, 20


def energy_alone(potential: Potential) -> Potential:
    """The model without its other heads, which SchNetPack's calculator would evaluate each time."""
    heads = tuple(head for head in potential.config.heads if isinstance(head, EnergyHead))
    alone, values = Potential(potential.config.model_copy(update={"heads": heads})), potential.state_dict()
    alone.load_state_dict({name: values[name] for name in alone.state_dict()})
    return alone.to(potential.dtype).eval()


def molecules(potential: Potential, count: int) -> list[ase.Atoms]:
    """Different ones, displaced, that come to a minimum; others fall into a hole of the surface."""
    some, rng = qm9_like(2 * count, {1, 6, 8}), np.random.default_rng(0)
    for atoms in some:
        atoms.positions += 0.05 * rng.normal(size=atoms.positions.shape)
    ends = relax_many(potential, some, tolerance=FORCE, steps=STEPS)
    return [atoms for atoms, end in zip(some, ends, strict=True) if end.converged][:count]


def timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result, seconds of the processor, seconds by the clock."""
    start, clock = time.process_time(), time.perf_counter()
    result = call()
    return result, time.process_time() - start, time.perf_counter() - clock


def one_by_one(calculator: Any, structures: list[ase.Atoms]) -> tuple[list[ase.Atoms], int]:
    """Where ASE's BFGS ends, and all its steps."""
    ends, steps = [], 0
    for start in structures:
        atoms = start.copy()
        atoms.calc = calculator
        search = BFGS(atoms, logfile=None)
        with suppress(PaiNNFastError):  # of atoms on top of each other, where rounding led to another way
            search.run(fmax=FORCE, steps=STEPS)
        ends.append(ase.Atoms(atoms.numbers, atoms.positions))
        steps += search.nsteps
    return ends, steps


def relaxations(potential: Potential, some: list[ase.Atoms]) -> dict[str, Any]:
    """Of all molecules, by each way."""
    print(f"in one batch: {len(some)} molecules", file=sys.stderr)
    relaxed, cpu, clock = timed(lambda: relax_many(potential, some, tolerance=FORCE, steps=STEPS))
    batch = np.array([end.energy for end in relaxed])
    rows: dict[str, Any] = {"batch": {"processor": cpu, "clock": clock, "steps": sum(end.steps for end in relaxed)}}
    sides: dict[str, tuple[Any, int]] = {"our calculator": (pf.PaiNNCalculator(potential), 1)}
    try:
        spk = import_schnetpack()
        model = schnetpack_model(spk, potential, with_forces=True)
        sides["SpkCalculator"] = schnetpack_calculator(spk, model, potential), max(1, len(some) // FEW)
    except ImportError as error:
        print(f"no SchNetPack: {error}", file=sys.stderr)
    for name, (calculator, every) in sides.items():
        print(f"one by one: {name}, {len(some[::every])} molecules", file=sys.stderr)
        one_by_one(calculator, some[:1])
        (ends, steps), cpu, clock = timed(lambda: one_by_one(calculator, some[::every]))  # noqa: B023  called at once
        away = np.array(pf.evaluate(potential, ends, ["energy"])["energy"]) - batch[::every]
        share = len(some) / len(ends)
        rows[name] = {
            "processor": share * cpu, "clock": share * clock, "steps": share * steps, "molecules": len(ends),
            "other minima": int((abs(away) > SAME).sum()),
        }  # fmt: skip
    return rows


def second_derivatives(potential: Potential, some: list[ase.Atoms]) -> dict[str, Any]:
    """Hessians of all molecules in batches, and analytic ones of a few."""
    few = some[:: max(1, len(some) // FEW)]
    print(f"Hessians of {len(some)} molecules in batches, analytic ones of {len(few)}", file=sys.stderr)
    list(derivatives_of_many(potential, some[:2], ()))
    hessian(potential, some[0], "analytic")
    _, cpu, clock = timed(lambda: list(derivatives_of_many(potential, some, ())))
    _, own, own_clock = timed(lambda: [hessian(potential, atoms, "analytic") for atoms in few])
    share = len(some) / len(few)
    return {
        "batch": {"processor": cpu, "clock": clock},
        "analytic": {"processor": own * share, "clock": own_clock * share, "molecules": len(few)},
    }


def main() -> None:
    """Measure, print a table, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="molecules")
    parser.add_argument("--out", type=Path, help="write the numbers here too, as JSON")
    given = parser.parse_args()
    potential = energy_alone(pf.load("ethanol"))
    print(f"putting together {given.count} molecules that come to a minimum", file=sys.stderr)
    some = molecules(potential, given.count)
    measured = {
        "relaxation": relaxations(potential, some),
        "Hessians": second_derivatives(potential, some[:HESSIANS]),
    }
    for what, rows in measured.items():
        print(f"{what}:")
        for name, row in rows.items():
            share = {key: row[key] / rows["batch"][key] for key in ("processor", "clock")}
            words = ", ".join(f"{key} {value:.4g}" for key, value in row.items())
            print(f"  {name}: {words}; {share['processor']:.1f}x and {share['clock']:.1f}x of the batch")
    if given.out is not None:
        given.out.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
