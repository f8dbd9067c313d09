"""The harmonic spectrum of a model: one Hessian, d mu / dR and d alpha / dR at the minimum."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import ase
import numpy as np

from painn_fast.errors import PaiNNFastError
from painn_fast.evaluate import evaluate
from painn_fast.graph import batch_atoms
from painn_fast.md.streams import invariants
from painn_fast.nn import Potential
from painn_fast.nn.derivatives import dipole_derivative, polarizability_derivative
from painn_fast.spectra.assignment import character, mode_name
from painn_fast.spectra.infrared import KM_PER_MOL
from painn_fast.spectra.raman import depolarisation_ratio
from painn_fast.spectra.relax import check_free, in_float64, internal_frame, relax
from painn_fast.units import AMU_A2_PER_FS2, SPEED_OF_LIGHT


@dataclass(frozen=True)
class HarmonicSpectrum:
    """Normal modes of a molecule at a stationary point, K of them, in order of their wavenumber.

    Imaginary frequencies are negative. Intensities are double-harmonic: linear dipole and polarizability.
    """

    atoms: ase.Atoms
    wavenumber: np.ndarray  # [K] cm-1
    modes: np.ndarray  # [K, n, 3] dR/dQ, 1/sqrt(amu): sum over atoms of m |dR/dQ|^2 = 1
    intensity: np.ndarray | None  # [K] km/mol, None for a model without dipole
    isotropic: np.ndarray | None  # [K] a'^2, Å^4/amu, None for a model without polarizability
    anisotropic: np.ndarray | None  # [K] gamma'^2, Å^4/amu
    names: tuple[str, ...]  # such as "O-H stretch"

    @property
    def activity(self) -> np.ndarray | None:
        """Raman activity 45 a'^2 + 7 gamma'^2 [K] Å^4/amu."""
        if self.isotropic is None or self.anisotropic is None:
            return None
        return 45.0 * self.isotropic + 7.0 * self.anisotropic

    @property
    def depolarisation(self) -> np.ndarray | None:
        """Depolarisation ratio [K], 0 to 3/4."""
        if self.isotropic is None or self.anisotropic is None:
            return None
        return depolarisation_ratio(self.isotropic, self.anisotropic)


def harmonic(model: Potential, atoms: ase.Atoms, *, relaxed: bool = False) -> HarmonicSpectrum:
    """Relax a molecule and analyse its vibrations, in float64.

    Args:
        model: with an energy; dipole and polarizability give intensities.
        atoms: in vacuum; isotopes by their masses.
        relaxed: whether `atoms` is at the minimum already.

    Raises:
        PaiNNFastError: if the structure does not fit the model, or does not relax.

    Warns:
        UserWarning: of imaginary frequencies.
    """
    if len(atoms) < 2:
        raise PaiNNFastError("vibrations need at least two atoms", got=len(atoms))
    check_free(atoms)
    model = in_float64(model)
    minimum = atoms.copy() if relaxed else relax(model, atoms)
    hessian = evaluate(model, [minimum], ("hessian",))["hessian"][0]
    wavenumber, modes = normal_modes(minimum, hessian)
    if (wavenumber < 0).any():
        listed = ", ".join(f"{-nu:.0f}i" for nu in wavenumber[wavenumber < 0])
        warnings.warn(f"imaginary frequencies: {listed} cm-1; not a minimum", UserWarning, stacklevel=2)
    batch = batch_atoms([minimum], model.cutoff).to(model.device)
    intensity = isotropic = anisotropic = None
    if "dipole" in model.properties:
        intensity = infrared_intensities(modes, dipole_derivative(model, batch).detach().cpu().numpy())
    if "polarizability" in model.properties:
        isotropic, anisotropic = raman_invariants(modes, polarizability_derivative(model, batch).detach().cpu().numpy())
    names = tuple(mode_name(share) for share in character(minimum, hessian, modes))
    return HarmonicSpectrum(minimum, wavenumber, modes, intensity, isotropic, anisotropic, names)


def normal_modes(atoms: ase.Atoms, hessian: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vibrations, translations and rotations projected out.

    Args:
        atoms: n of them, with their masses.
        hessian: [3 n, 3 n] eV/Å^2.

    Returns:
        Wavenumbers [K] cm-1, ascending, imaginary ones negative, and modes dR/dQ [K, n, 3] 1/sqrt(amu).
    """
    weight = np.repeat(atoms.get_masses() ** -0.5, 3)
    frame = internal_frame(atoms)
    curvature, vectors = np.linalg.eigh(frame.T @ (weight[:, None] * hessian * weight) @ frame)
    omega = np.sign(curvature) * np.sqrt(np.abs(curvature) / AMU_A2_PER_FS2)  # 1/fs
    modes = (weight[:, None] * (frame @ vectors)).T.reshape(-1, len(atoms), 3)
    return omega / (2.0 * np.pi * SPEED_OF_LIGHT), modes


def infrared_intensities(modes: np.ndarray, polar_tensors: np.ndarray) -> np.ndarray:
    """Integrated intensities [K] km/mol, from modes [K, n, 3] and d mu / dR [3, n, 3] in e."""
    slope = np.einsum("inj,knj->ki", polar_tensors, modes)  # d mu / dQ, e / sqrt(amu)
    return KM_PER_MOL * (slope**2).sum(axis=1)


def raman_invariants(modes: np.ndarray, derivative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a'^2 and gamma'^2 [K] Å^4/amu, from modes [K, n, 3] and d alpha / dR [3, 3, n, 3] in Å^2."""
    slope = np.einsum("ijnc,knc->kij", derivative, modes)
    mean, deviator = invariants(slope)
    return (mean**2).sum(axis=1), (deviator**2).sum(axis=1)
