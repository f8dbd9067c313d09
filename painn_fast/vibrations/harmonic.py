"""The harmonic spectrum of a model: Hessian, d mu / dR and d alpha / dR at the minimum, and the roughness there."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import ase
import numpy as np

from painn_fast.correlation.series import invariants
from painn_fast.errors import PaiNNFastError
from painn_fast.nn import Potential
from painn_fast.units import AMU_A2_PER_FS2, DEBYE, SPEED_OF_LIGHT
from painn_fast.vibrations.assignment import character, mode_name
from painn_fast.vibrations.batch_relax import relax_many
from painn_fast.vibrations.derivatives import (
    STEP,
    Derivatives,
    derivatives,
    derivatives_of_many,
    hessian,
    in_float64,
)
from painn_fast.vibrations.method import METHODS, Method
from painn_fast.vibrations.relax import NEAR, check_molecule, internal_modes, relax

ROUGH = 2.0
"""cm-1: a larger roughness gives a warning."""
KM_PER_MOL = 42.2561 / DEBYE**2
"""N_A / (12 eps0 c^2), km/mol per e^2/amu; 42.2561 per (D/Å)^2/amu."""


@dataclass(frozen=True)
class Roughness:
    """Distance of the wavenumbers of the analytic Hessian from those by differences over 0.01 and 0.02 Å.

    Modes are matched in order of their wavenumber, imaginary ones negative.

    Example:
        >>> from painn_fast.vibrations import Roughness
        >>> Roughness(largest=0.9, mean=0.2).smooth, Roughness(largest=40.9, mean=7.7).smooth
        (True, False)
    """

    largest: float  # cm-1, of one mode; compared with the limit of 2
    mean: float  # cm-1, mean absolute difference over all modes

    @property
    def smooth(self) -> bool:
        """Whether no line differs by more than the limit."""
        return self.largest <= ROUGH

    def __str__(self) -> str:
        return f"{self.largest:.2f} cm-1 at most, {self.mean:.2f} cm-1 in the mean"


@dataclass(frozen=True)
class HarmonicSpectrum:
    """Normal modes of a molecule at a stationary point, K of them, in order of their wavenumber.

    Imaginary frequencies are negative. Intensities are double-harmonic: linear dipole and polarizability.

    Example:
        >>> import painn_fast as pf
        >>> from ase.build import molecule
        >>> from painn_fast.vibrations import harmonic
        >>> lines = harmonic(pf.load("ethanol"), molecule("CH3CH2OH"))
        >>> lines.names[-1], lines.modes.shape
        ('O-H stretch', (21, 9, 3))
    """

    atoms: ase.Atoms
    wavenumber: np.ndarray  # [K] cm-1
    modes: np.ndarray  # [K, n, 3] dR/dQ, 1/sqrt(amu): sum over atoms of m |dR/dQ|^2 = 1
    intensity: np.ndarray | None  # [K] km/mol, None for a model without dipole
    isotropic: np.ndarray | None  # [K] a'^2, Å^4/amu, None for a model without polarizability
    anisotropic: np.ndarray | None  # [K] gamma'^2, Å^4/amu
    names: tuple[str, ...]  # such as "O-H stretch"
    method: Method = "differences"  # of the derivatives
    roughness: Roughness | None = None  # of the surface at the minimum
    conformer: np.ndarray | None = None  # [K] of a mixture, in which intensities have the weight of their conformer
    conformers: tuple[tuple[str, float], ...] = ()  # names and populations

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

    def about(self) -> dict[str, str]:
        """Method of the derivatives and roughness of the surface, for the header of a table."""
        where = "at the minimum" if self.method == "analytic" else f"over {STEP:g} and {2 * STEP:g} Å, h^2 term removed"
        header = {"derivatives": f"{'analytic' if self.method == 'analytic' else 'central differences'} {where}"}
        if self.roughness is not None:
            header["roughness"] = f"{self.roughness} (lines of the analytic Hessian against those by differences)"
        if self.conformers:
            shares = ", ".join(f"{name} {100.0 * share:.1f} %" for name, share in self.conformers)
            header["conformers"] = f"{shares} (harmonic free energies)"
        return header


def harmonic(
    model: Potential, atoms: ase.Atoms, *, relaxed: bool = False, method: Method = "differences"
) -> HarmonicSpectrum:
    """Relax a molecule in float64, and analyse its vibrations.

    Args:
        model: with an energy; dipole and polarizability give intensities. Differences are taken in its own precision;
            float32 moves no line by more than some 0.02 cm-1.
        atoms: in vacuum; isotopes by their masses.
        relaxed: whether `atoms` is at the minimum already.
        method: "differences", of forces, dipoles and polarizabilities over 0.01 and 0.02 Å with the h^2 term removed,
            or "analytic", from derivatives at the minimum itself.

    Returns:
        The modes at the minimum, translations and rotations projected out.

    Raises:
        PaiNNFastError: if the structure does not fit the model, or does not relax; for an unknown method.

    Warns:
        UserWarning: of imaginary frequencies, and of a surface rougher than 2 cm-1.

    Example:
        >>> import painn_fast as pf
        >>> from ase.build import molecule
        >>> from painn_fast.vibrations import harmonic
        >>> lines = harmonic(pf.load("ethanol"), molecule("CH3CH2OH"))
        >>> lines.names[-1], bool(3850 < lines.wavenumber[-1] < 3950), lines.roughness.smooth
        ('O-H stretch', True, True)
    """
    _check(atoms, method)
    double = in_float64(model)
    minimum = atoms.copy() if relaxed else relax(double, atoms)
    spectrum = _spectrum(minimum, derivatives(model if method == "differences" else double, minimum, method), method)
    other = hessian(double, minimum, "analytic") if method == "differences" else hessian(model, minimum)
    rough = _difference(spectrum.wavenumber, normal_modes(minimum, other)[0])
    if not rough.smooth:
        warnings.warn(_rough_surface(rough), UserWarning, stacklevel=2)
    return replace(spectrum, roughness=rough)


def harmonic_many(
    model: Potential,
    molecules: Sequence[ase.Atoms],
    *,
    relaxed: bool = False,
    tell: Callable[[str], None] = lambda message: None,
) -> list[HarmonicSpectrum]:
    """As `harmonic` by differences, of many molecules in batches; the roughness of the surface is not determined.

    Args:
        model: as for `harmonic`.
        molecules: in vacuum, different ones welcome.
        relaxed: whether they are at their minima already.
        tell: called with a line about the progress now and then.

    Returns:
        One entry a molecule, in order.

    Raises:
        PaiNNFastError: if a structure does not fit the model, or does not relax.

    Warns:
        UserWarning: of imaginary frequencies.

    Example:
        >>> import painn_fast as pf
        >>> from ase.build import molecule
        >>> from painn_fast.vibrations import harmonic_many
        >>> lines = harmonic_many(pf.load("ethanol"), [molecule("CH3OH"), molecule("C2H6")])
        >>> [len(one.wavenumber) for one in lines]
        [12, 18]
    """
    for atoms in molecules:
        _check(atoms, "differences")
    minima = [atoms.copy() for atoms in molecules]
    if not relaxed:
        double = in_float64(model)
        near = relax_many(double, molecules, tolerance=NEAR, tell=tell)
        minima = []
        for k, one in enumerate(near):
            tell(f"minimum {k + 1} of {len(near)}")
            minima.append(relax(double, one.atoms))
    spectra = []
    for atoms, slopes in zip(minima, derivatives_of_many(model, minima), strict=True):
        spectra.append(_spectrum(atoms, slopes, "differences"))
        tell(f"Hessian {len(spectra)} of {len(minima)}")
    return spectra


def _check(atoms: ase.Atoms, method: Method) -> None:
    if len(atoms) < 2:
        raise PaiNNFastError("vibrations need at least two atoms", got=len(atoms))
    if method not in METHODS:
        raise PaiNNFastError("unknown kind of Hessian", got=repr(method), expected=" | ".join(METHODS))
    check_molecule(atoms)


def _spectrum(minimum: ase.Atoms, slopes: Derivatives, method: Method) -> HarmonicSpectrum:
    wavenumber, modes = normal_modes(minimum, slopes.hessian)
    if (wavenumber < 0).any():
        listed = ", ".join(f"{-nu:.0f}i" for nu in wavenumber[wavenumber < 0])
        warnings.warn(f"imaginary frequencies: {listed} cm-1; not a minimum", UserWarning, stacklevel=3)
    intensity = isotropic = anisotropic = None
    if slopes.dipole is not None:
        intensity = infrared_intensities(modes, slopes.dipole)
    if slopes.polarizability is not None:
        isotropic, anisotropic = raman_invariants(modes, slopes.polarizability)
    names = tuple(mode_name(share) for share in character(minimum, slopes.hessian, modes))
    return HarmonicSpectrum(minimum, wavenumber, modes, intensity, isotropic, anisotropic, names, method)


def roughness(model: Potential, atoms: ase.Atoms, *, relaxed: bool = False) -> Roughness:
    """Compare the lines of the analytic Hessian with those by differences, at the minimum next to a structure.

    Args:
        model: with an energy.
        atoms: a molecule in vacuum.
        relaxed: whether `atoms` is at the minimum already.

    Returns:
        Largest and mean difference, cm-1.

    Raises:
        PaiNNFastError: if the structure does not fit the model, or does not relax.

    Example:
        >>> import painn_fast as pf
        >>> from ase.build import molecule
        >>> from painn_fast.vibrations import roughness
        >>> roughness(pf.load("ethanol"), molecule("CH3CH2OH")).largest < 2.0
        True
    """
    check_molecule(atoms)
    double = in_float64(model)
    minimum = atoms if relaxed else relax(double, atoms)
    matrices = hessian(model, minimum, "differences"), hessian(double, minimum, "analytic")
    return _difference(*(normal_modes(minimum, matrix)[0] for matrix in matrices))


def _difference(one: np.ndarray, other: np.ndarray) -> Roughness:
    off = np.abs(one - other)
    return Roughness(float(off.max()), float(off.mean()))


def _rough_surface(rough: Roughness) -> str:
    return (
        f"the surface is rough at its minimum: wavenumbers of the analytic Hessian and of central differences over "
        f"{STEP:g} and {2 * STEP:g} Å are up to {rough.largest:.1f} cm-1 apart, {rough.mean:.1f} in the mean (limit "
        f"{ROUGH:g}), the least error of the lines. A model trained with a larger representation.epsilon, such "
        "as 1e-3, is smooth"
    )


def normal_modes(atoms: ase.Atoms, hessian: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vibrations, translations and rotations projected out.

    Args:
        atoms: n of them, with their masses.
        hessian: [3 n, 3 n] eV/Å^2.

    Returns:
        Wavenumbers [K] cm-1, ascending, imaginary ones negative, and modes dR/dQ [K, n, 3] 1/sqrt(amu).
    """
    weight, frame, curvature, vectors = internal_modes(atoms, hessian)
    omega = np.sign(curvature) * np.sqrt(np.abs(curvature) / AMU_A2_PER_FS2)  # 1/fs
    modes = (weight[:, None] * (frame @ vectors)).T.reshape(-1, len(atoms), 3)
    return omega / (2.0 * np.pi * SPEED_OF_LIGHT), modes


def infrared_intensities(modes: np.ndarray, polar_tensors: np.ndarray) -> np.ndarray:
    """Integrated intensities [K] km/mol, from modes [K, n, 3] and d mu / dR [3, n, 3] in e."""
    slope = np.einsum("inj,knj->ki", polar_tensors, modes)  # d mu / dQ, e / sqrt(amu)
    return KM_PER_MOL * (slope**2).sum(axis=1)


def raman_invariants(modes: np.ndarray, derivative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a'^2 and gamma'^2 [K] Å^4/amu, from modes [K, n, 3] and d alpha / dR [3, 3, n, 3] in Å^2."""
    return invariants_squared(np.einsum("ijnc,knc->kij", derivative, modes))


def invariants_squared(tensors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a^2 and gamma^2 [K] of symmetric tensors [K, 3, 3]."""
    mean, deviator = invariants(tensors)
    return (mean**2).sum(axis=1), (deviator**2).sum(axis=1)


def depolarisation_ratio(isotropic: np.ndarray, anisotropic: np.ndarray) -> np.ndarray:
    """3 gamma^2 / (45 a^2 + 4 gamma^2), 0 to 3/4; NaN without scattering. Noise below zero counts as zero."""
    isotropic, anisotropic = np.maximum(isotropic, 0.0), np.maximum(anisotropic, 0.0)
    below = 45.0 * isotropic + 4.0 * anisotropic
    return np.where(below > 0, np.minimum(3.0 * anisotropic / np.where(below > 0, below, 1.0), 0.75), np.nan)
