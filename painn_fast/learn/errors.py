"""Errors of a committee on held-out beads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ase
import ase.io
import numpy as np

from painn_fast import units
from painn_fast.ensemble import Ensemble
from painn_fast.evaluate import evaluate
from painn_fast.io import load

KCAL = units.factor("energy", "kcal/mol")


@dataclass(frozen=True)
class HeldOut:
    """Predictions and labels of held-out beads, kcal/mol and kcal/mol/Å, dipoles in e Å."""

    energy: np.ndarray  # [B, 2] label and prediction, without the mean of the labels
    forces: np.ndarray  # [B, n, 3, 2]
    spread: np.ndarray  # [B, n] of the committee's force on an atom
    others: dict[str, np.ndarray]  # [B, ..., 2] of dipole and polarizability

    @property
    def table(self) -> dict[str, float]:
        """Mean absolute errors, of components of vectors and tensors."""
        own = {"energy": self.energy, "forces": self.forces, **self.others}
        errors = {name: float(np.nanmean(np.abs(both[..., 1] - both[..., 0]))) for name, both in own.items()}
        return {**errors, "spread": float(self.spread.mean())}


def held_out(models: Sequence[Path], chosen: Path, files: Sequence[Path]) -> HeldOut:
    """Evaluate a model on labelled files, with the spread of the committee that it is of."""
    frames: list[ase.Atoms] = [one for path in files for one in ase.io.read(path, ":")]
    model = load(chosen)
    names = [name for name in ("energy", "forces", "dipole", "polarizability") if name in model.properties]
    results = evaluate(model, frames, names)
    spread = np.array(evaluate(Ensemble(models), frames, ("forces_spread",))["forces_spread"])
    labels = {
        "energy": [one.get_potential_energy() for one in frames],
        "forces": [one.get_forces() for one in frames],
        "dipole": [one.calc.results.get("dipole", np.full(3, np.nan)) for one in frames],
        "polarizability": [np.reshape(one.info.get("polarizability", np.full(9, np.nan)), (3, 3)) for one in frames],
    }
    both = {name: np.stack([np.array(labels[name]), np.array(results[name])], axis=-1) for name in names}
    energy = (both["energy"] - both["energy"][:, 0].mean()) / KCAL
    others: dict[str, np.ndarray] = {name: both[name] for name in ("dipole", "polarizability") if name in both}
    return HeldOut(energy, both["forces"] / KCAL, spread / KCAL, others)
