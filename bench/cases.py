"""What is measured: structures and a model of the paper's size with fixed random weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import ase
import numpy as np
from ase.build import molecule
from ase.collections import g2

from painn_fast.nn import Potential, PotentialConfig, RepresentationConfig
from painn_fast.testing import random_potential


def _rattled(structures: Iterable[ase.Atoms]) -> list[ase.Atoms]:
    """Off their symmetric places: there vectors vanish, and forces in float32 are noise for every backend."""
    generator, moved = np.random.default_rng(0), []
    for atoms in structures:
        copy = atoms.copy()
        copy.positions += generator.normal(scale=0.05, size=atoms.positions.shape)
        moved.append(copy)
    return moved


def _organic() -> list[ase.Atoms]:
    """50 different organic molecules of H, C, N, O, F with up to 14 atoms."""
    fitting = [name for name in g2.names if set(g2[name].numbers) <= {1, 6, 7, 8, 9} and 6 in g2[name].numbers]
    return [g2[name] for name in sorted(fitting, key=lambda name: (-len(g2[name]), name))[:50]]


def _water_box() -> list[ase.Atoms]:
    """216 water molecules on a lattice with random orientations, 648 atoms, periodic, 0.997 g/cm³."""
    edge, generator, box = 18.64, np.random.default_rng(0), ase.Atoms()
    for index in np.ndindex(6, 6, 6):
        water = molecule("H2O")
        water.euler_rotate(*generator.uniform(0, 360, 3), center="COM")
        water.positions += (np.array(index) + 0.5) * edge / 6
        box += water
    box.set_cell([edge] * 3)
    box.pbc = True
    return [box]


CASES: dict[str, Callable[[], list[ase.Atoms]]] = {
    "ethanol-1": lambda: _rattled([molecule("CH3CH2OH")]),
    "ethanol-64": lambda: _rattled([molecule("CH3CH2OH")] * 64),
    "organic-50": lambda: _rattled(_organic()),
    "water-216": _water_box,
}


def paper_model() -> Potential:
    """F = 128, 3 layers, 20 sinc functions, cosine cut-off 5 Å, float32."""
    return random_potential(PotentialConfig(representation=RepresentationConfig(), name="paper")).float().eval()
