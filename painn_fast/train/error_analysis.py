"""Errors of a model in detail: by element, by size of force, by structure, and under rotation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols
from scipy.spatial.transform import Rotation

from painn_fast.io.structures import write_extxyz
from painn_fast.nn import Potential
from painn_fast.train.data import Dataset
from painn_fast.train.data.dataset import PER_ATOM, by_row
from painn_fast.train.evaluation import Arrays, errors, predict, report_unit

BINS = 8
TENSORS = {"forces": 1, "dipole": 1, "stress": 2, "polarizability": 2}
"""Labels that turn with the molecule, and their rank."""

Rows = list[dict[str, Any]]


def by_element(predicted: np.ndarray, data: Dataset, size: float) -> Rows:
    """Mean absolute error of a component of the force on atoms of each element; `size` is that of the unit."""
    error = np.abs(predicted - data.labels["forces"]) / size
    rows = []
    for z in np.unique(data.numbers):
        own = error[data.numbers == z]
        known = np.isfinite(own).all(axis=1)
        if known.any():
            rows.append({"element": chemical_symbols[z], "mae": float(own[known].mean()), "atoms": int(known.sum())})
    return rows


def by_magnitude(predicted: np.ndarray, data: Dataset, size: float) -> Rows:
    """The same by length of the reference force, in bins of equal numbers of atoms."""
    label = data.labels["forces"]
    known = np.isfinite(label).all(axis=1)
    length = np.linalg.norm(label[known], axis=1) / size
    error = np.abs(predicted - label)[known].mean(axis=1) / size
    edges = np.quantile(length, np.linspace(0, 1, BINS + 1))
    bin_of = np.clip(np.searchsorted(edges, length, side="right") - 1, 0, BINS - 1)
    rows = []
    for k in np.unique(bin_of).tolist():
        own = error[bin_of == k]
        rows.append({"from": float(edges[k]), "to": float(edges[k + 1]), "mae": float(own.mean()), "atoms": len(own)})
    return rows


def of_structures(name: str, predicted: np.ndarray, data: Dataset) -> np.ndarray:
    """Root mean squared error [n] of a label in each structure, in our units; NaN for structures without it."""
    square = by_row((predicted - data.labels[name]) ** 2).mean(axis=1)
    if name in PER_ATOM:
        square = np.add.reduceat(square, data.first[:-1]) / data.n_atoms
    return np.asarray(np.sqrt(square))


def write_worst(
    path: Path, name: str, predicted: Arrays, data: Dataset, potential: Potential, number: int = 20
) -> None:
    """The structures with the largest errors of a label as extended XYZ: labels as results, predictions beside them."""
    score = of_structures(name, predicted[name], data)
    order = np.argsort(-np.nan_to_num(score, nan=-1.0))[:number]
    size, unit = report_unit(name, potential)
    frames = []
    for row in (int(k) for k in order if np.isfinite(score[k])):
        atoms = slice(data.first[row], data.first[row + 1])
        frame = data.atoms(row)
        results = {}
        for label, values in predicted.items():
            where: Any = atoms if label in PER_ATOM else row
            if not (np.isfinite(values[where]).all() and np.isfinite(data.labels[label][where]).all()):
                continue  # a label that this structure lacks
            target = frame.arrays if label in PER_ATOM else frame.info
            target[f"predicted_{label}"] = values[where]
            if label in ("energy", "forces", "dipole"):
                results[label] = data.labels[label][where]
            else:
                target[label] = data.labels[label][where]
            if label in data.units:
                frame.info[f"{label}_unit"] = data.units[label]
        frame.calc = SinglePointCalculator(frame, **results)
        frame.info |= {"file": data.files[data.file[row]], "frame": int(data.frame[row])}
        frame.info[f"rmse_{name}"], frame.info["rmse_unit"] = float(score[row] / size), unit
        frames.append(frame)
    write_extxyz(path, frames)


def rotated(data: Dataset, seed: int = 0) -> Dataset:
    """The same structures, each turned at random, and their labels with them."""
    turns = Rotation.random(len(data), random_state=seed).as_matrix()
    of_atoms = np.repeat(turns, data.n_atoms, axis=0)
    labels = dict(data.labels)
    for name, rank in TENSORS.items():
        if name in labels:
            turn = of_atoms if name in PER_ATOM else turns
            order = "nij,nj->ni" if rank == 1 else "nij,njk,nlk->nil"
            labels[name] = np.einsum(order, turn, labels[name], *([turn] if rank == 2 else []))
    return dataclasses.replace(
        data,
        positions=np.einsum("nij,nj->ni", of_atoms, data.positions),
        cell=np.einsum("nij,nkj->nki", turns, data.cell),
        labels=labels,
    )


def rotation_change(potential: Potential, data: Dataset, seed: int = 0) -> float:
    """Largest relative change of the error of a property when all structures turn at random.

    The mean absolute error of a component depends on the frame by itself; what is compared is the root mean square over
    components, which does not.
    """
    before, turned = errors(predict(potential, data), data, potential), rotated(data, seed)
    after = errors(predict(potential, turned), turned, potential)
    changes = [abs(float(after[name]["rmse"]) / float(row["rmse"]) - 1) for name, row in before.items() if row["rmse"]]
    return max(changes, default=0.0)
