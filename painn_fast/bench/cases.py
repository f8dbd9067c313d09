"""What is measured: structures, and a model of the paper's size with fixed random weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import ase
import ase.io
import numpy as np
from ase.build import molecule

from painn_fast.errors import PaiNNFastError

if TYPE_CHECKING:
    from painn_fast.nn import Potential

WATER_SPACING = 18.64 / 6
"""Å between molecules on a cubic lattice: 0.997 g/cm³."""
WATER_UNIT = (4, 4, 2)
"""Molecules along each side of the box that larger ones repeat, 96 atoms."""
INFERENCE = ("forward", "energy_forces", "evaluate")
TRAINING = ("training_step", "training_energy")
"""A step of training on energies and forces, or on energies alone."""
SINGLE = (*INFERENCE, "calculator")
"""Of cases with one structure; energies and forces by ASE's calculator, of which `energy_forces` is the lower limit."""
SIMULATOR = "simulator_step"
"""A step of ring polymers in SchNetPack's own simulator; each structure is a bead."""
PROPERTIES = "properties"
"""Energies, forces, dipoles and polarizabilities, beside electronic structure; no case has it by default: aspirin takes
minutes."""
MODES = (*SINGLE, *TRAINING, SIMULATOR, PROPERTIES)
SIDES = ("fused", "reference", "compile", "schnetpack", "accelerate", "dimenet", "pyscf")
"""Programs that are measured; `painn_fast.bench.run` has their classes."""


@dataclass(frozen=True)
class Case:
    """Structures to evaluate.

    Args:
        name: as on the command line.
        unit: makes the structures, or the boxes that they repeat.
        repeats: how often a periodic unit is repeated along each of its vectors; its forces repeat with it, so that
            a box of any size has a float64 reference that fits into memory.
        modes: what is measured by default.
    """

    name: str
    unit: Callable[[], list[ase.Atoms]]
    repeats: tuple[int, int, int] = (1, 1, 1)
    modes: tuple[str, ...] = INFERENCE

    @property
    def copies(self) -> int:
        """Units in a structure."""
        return int(np.prod(self.repeats))

    @property
    def atoms(self) -> int:
        """In all structures together."""
        return self.copies * sum(map(len, self.unit()))

    def structures(self) -> list[ase.Atoms]:
        """The structures, the same ones each time."""
        return [atoms.repeat(self.repeats) if self.copies > 1 else atoms for atoms in self.unit()]


def rattled(structures: Iterable[ase.Atoms]) -> list[ase.Atoms]:
    """Off their symmetric positions: there vectors vanish, and forces in float32 are noise for every side."""
    generator, moved = np.random.default_rng(0), []
    for atoms in structures:
        copy = atoms.copy()
        copy.positions += generator.normal(scale=0.05, size=atoms.positions.shape)
        moved.append(copy)
    return moved


def water_box(sides: tuple[int, int, int]) -> ase.Atoms:
    """A periodic box of water on a lattice with random orientations, 0.997 g/cm³; molecules along each side."""
    generator, box = np.random.default_rng(0), ase.Atoms()
    for index in np.ndindex(*sides):
        water = molecule("H2O")
        water.euler_rotate(*generator.uniform(0, 360, 3), center="COM")
        water.positions += (np.array(index) + 0.5) * WATER_SPACING
        box += water
    box.set_cell(np.multiply(sides, WATER_SPACING))
    box.pbc = True
    return box


def molecules(which: str) -> list[ase.Atoms]:
    """Frames of `molecules.xyz`, as ASE names them: molecules like QM9's from 0 to 99, then aspirin."""
    return list(ase.io.read(Path(__file__).with_name("molecules.xyz"), which))


def _ethanol(copies: int, modes: tuple[str, ...] = INFERENCE) -> Case:
    return Case(f"ethanol-{copies}", lambda: rattled([molecule("CH3CH2OH")] * copies), modes=modes)


def _scaling(*repeats: int) -> Case:
    atoms = 3 * int(np.prod(WATER_UNIT) * np.prod(repeats))
    a, b, c = repeats
    return Case(f"scaling-{atoms}", lambda: [water_box(WATER_UNIT)], (a, b, c), ("energy_forces",))


def _cases() -> dict[str, Case]:
    cases = [
        _ethanol(1, modes=SINGLE),
        _ethanol(10, modes=("training_step",)),
        _ethanol(16, modes=(SIMULATOR,)),
        _ethanol(32, modes=("energy_forces",)),
        _ethanol(64),
        _ethanol(1024),
        Case("qm9-50", lambda: rattled(molecules(":50"))),
        Case("qm9-100", lambda: rattled(molecules(":100")), modes=("training_energy",)),
        Case("aspirin-1", lambda: rattled(molecules("100:")), modes=()),
        Case("aspirin-32", lambda: rattled(molecules("100:") * 32)),
        Case("water-216", lambda: [water_box((6, 6, 6))], modes=SINGLE),
        *(_scaling(*r) for r in ((1, 1, 1), (1, 1, 3), (2, 2, 3), (2, 2, 8), (5, 5, 4), (8, 8, 5), (8, 8, 16))),
    ]
    return {case.name: case for case in cases}


CASES = _cases()


def choose(names: Iterable[str]) -> list[Case]:
    """Cases by name; "scaling" stands for all of its sizes, no name at all for every case.

    Raises:
        PaiNNFastError: for a name that is no case.
    """
    chosen = []
    for name in names:
        fitting = [case for case in CASES.values() if name in (case.name, case.name.rsplit("-", 1)[0])]
        if name not in CASES and name != "scaling":
            expected = ", ".join([*CASES, "scaling"])
            raise PaiNNFastError("no such case of the benchmark", got=repr(name), expected=expected)
        chosen += fitting
    return chosen or list(CASES.values())


def known(names: Iterable[str], allowed: Sequence[str], what: str) -> list[str]:
    """Names of sides or modes.

    Raises:
        PaiNNFastError: for one that is none.
    """
    chosen = list(names)
    for name in chosen:
        if name not in allowed:
            raise PaiNNFastError(f"no such {what} of the benchmark", got=repr(name), expected=", ".join(allowed))
    return chosen


def paper_model(device: str = "cpu", mode: str = "") -> Potential:
    """F = 128, 3 layers, 20 sinc functions, cosine cut-off 5 Å, float32, atomic references of zero; an energy, and in
    the mode "properties" a dipole and a polarizability."""
    import torch

    from painn_fast.nn import DipoleHead, EnergyHead, PolarizabilityHead, PotentialConfig, RepresentationConfig
    from painn_fast.testing import random_potential

    heads = (EnergyHead(), DipoleHead(), PolarizabilityHead()) if mode == PROPERTIES else (EnergyHead(),)
    config = PotentialConfig(representation=RepresentationConfig(), heads=heads, name="paper")
    potential = random_potential(config)
    head = potential.heads["energy"]
    with torch.no_grad():
        for name in ("atomic_reference", "mean"):
            getattr(head, name).zero_()
    return potential.float().eval().to(device)
