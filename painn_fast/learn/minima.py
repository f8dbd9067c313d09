"""Conformers on any surface: torsion starts, relaxed in one batch, without duplicates; and the modes of each."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass

import ase
import numpy as np

from painn_fast.errors import PaiNNFastError
from painn_fast.learn.surface import MethodForces
from painn_fast.vibrations.conformers import ROUGHLY, SAME_ENERGY, STARTS, WINDOW
from painn_fast.vibrations.derivatives import differences
from painn_fast.vibrations.harmonic import infrared_intensities, normal_modes
from painn_fast.vibrations.isometries import isometries
from painn_fast.vibrations.minima import minima
from painn_fast.vibrations.relax import check_molecule
from painn_fast.vibrations.torsions import connected, starts, torsions


@dataclass(frozen=True)
class Minimum:
    """A minimum of a surface, with its harmonic modes."""

    atoms: ase.Atoms
    energy: float  # eV
    wavenumber: np.ndarray  # [K] cm-1, imaginary ones negative
    modes: np.ndarray  # [K, n, 3] dR/dQ, 1/sqrt(amu)
    intensity: np.ndarray | None  # [K] km/mol, None of a method without dipoles


def conformers(surface: MethodForces, given: ase.Atoms, *, seed: int, rdkit: bool | None = None) -> list[ase.Atoms]:
    """Distinct minima within 0.25 eV of the lowest, the lowest first.

    Args:
        surface: of this molecule.
        given: a structure of it.
        seed: of a choice among very many starts.
        rdkit: also start from conformers of RDKit; default: if it is installed.

    Raises:
        PaiNNFastError: if no structure relaxes to a minimum with the bonds of the given one.
    """
    check_molecule(given)
    begin = starts(given, torsions(given), STARTS, seed)
    if importlib.util.find_spec("rdkit") is not None if rdkit is None else rdkit:
        begin += embedded(given, seed, round(surface.atoms.info.get("charge", 0)))
    relaxed, energies = minima(surface.evaluated, begin)
    bonds = connected(given)
    whole = [k for k, one in enumerate(relaxed) if np.isfinite(energies[k]) and (connected(one) == bonds).all()]
    if not whole:
        raise PaiNNFastError(
            "no minimum with the bonds of the structure", where=f"{given.get_chemical_formula()}, {surface.how.theory}",
            got=f"other bonds from each of {len(begin)} starts", fix="check the structure, or choose another method",
        )  # fmt: skip
    lowest = min(energies[k] for k in whole)
    kept: list[int] = []
    for k in sorted(whole, key=lambda k: (energies[k], k)):
        near = (j for j in kept if abs(energies[j] - energies[k]) <= SAME_ENERGY)
        if energies[k] <= lowest + WINDOW and not any(any(isometries(relaxed[j], relaxed[k], ROUGHLY)) for j in near):
            kept.append(k)
    return [relaxed[k] for k in kept]


def embedded(given: ase.Atoms, seed: int, charge: int) -> list[ase.Atoms]:
    """Conformers that RDKit embeds, of the bonds that it perceives; none where it perceives no valid molecule.

    Args:
        given: the molecule.
        seed: of the embedding.
        charge: e, of the molecule.
    """
    try:
        from rdkit import Chem
        from rdkit.Chem import rdDetermineBonds, rdDistGeom
    except ImportError:
        raise PaiNNFastError("rdkit is not installed", fix="pip install rdkit, or leave it out") from None
    lines = [f"{len(given)}", ""]
    lines += [f"{symbol} {x} {y} {z}" for symbol, (x, y, z) in zip(given.symbols, given.positions, strict=True)]
    molecule = Chem.MolFromXYZBlock("\n".join(lines))
    try:
        rdDetermineBonds.DetermineBonds(molecule, charge=charge)
    except ValueError as error:
        warnings.warn(f"RDKit finds no bonds, and no conformers: {error}", UserWarning, stacklevel=2)
        return []
    made = []
    for k in rdDistGeom.EmbedMultipleConfs(molecule, STARTS // 2, randomSeed=seed % 2**31):
        one = given.copy()
        one.positions = molecule.GetConformer(k).GetPositions()
        made.append(one)
    return made


def modes(surface: MethodForces, atoms: ase.Atoms) -> Minimum:
    """Harmonic lines of a method at a minimum, from differences of forces and dipoles over 0.01 and 0.02 Å."""
    entries: list[dict[str, object]] = []

    def compute(moved: list[ase.Atoms]) -> dict[str, list[object]]:
        entries.extend(surface.entries([atoms, *moved]))
        failed = [entry["failed"] for entry in entries if "failed" in entry]
        if failed:
            raise PaiNNFastError("no Hessian", where=surface.how.theory, got=failed[0])
        names = ("forces", "dipole") if all("dipole" in entry for entry in entries) else ("forces",)
        return {name: [entry[name] for entry in entries[1:]] for name in names}

    slopes = differences(compute, atoms)
    matrix = -slopes["forces"].reshape(3 * len(atoms), -1)
    wavenumber, own = normal_modes(atoms, 0.5 * (matrix + matrix.T))
    dipole = np.moveaxis(slopes["dipole"], (0, 1), (-2, -1)) if "dipole" in slopes else None
    intensity = None if dipole is None else infrared_intensities(own, dipole)
    return Minimum(atoms, float(entries[0]["energy"]), wavenumber, own, intensity)  # type: ignore[arg-type]
