"""Conformers of a molecule: minima from a search over its torsions, their lines, free energies and populations."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import ase
import numpy as np

from painn_fast.errors import PaiNNFastError
from painn_fast.evaluate import evaluate
from painn_fast.nn import Potential
from painn_fast.units import HBAR, KB, SPEED_OF_LIGHT, require_temperature
from painn_fast.vibrations.batch_relax import relax_many
from painn_fast.vibrations.derivatives import in_float64
from painn_fast.vibrations.harmonic import HarmonicSpectrum, Roughness, harmonic
from painn_fast.vibrations.isometries import isometries
from painn_fast.vibrations.method import Method
from painn_fast.vibrations.relax import LINEAR, check_molecule, relax
from painn_fast.vibrations.torsions import Torsion, angles, apart, connected, starts, torsions

STARTS = 64
"""Structures that are relaxed, at most."""
ENOUGH = 0.003
"""eV/Å: largest force that is left by the search; above the rounding of float32."""
STEPS = 300
WINDOW = 0.25
"""eV above the lowest minimum, 10 kB T at 300 K, beyond which minima are left out."""
SAME_ENERGY = 0.002
"""eV between roughly relaxed structures of one minimum."""
ROUGHLY, EXACTLY = 0.15, 0.02
"""Å within which structures are one, before and after relaxation to the end."""
DISTINCT = 20.0
"""Degrees between angles of different wells."""
SHAPES = ((30.0, "cis"), (90.0, "gauche"), (150.0, "anticlinal"), (180.0, "trans"))
"""Names of angles up to these, degrees."""


@dataclass(frozen=True)
class Conformer:
    """One minimum, its mirror image included.

    Example:
        >>> import painn_fast as pf
        >>> from ase.build import molecule
        >>> from painn_fast.vibrations import conformers
        >>> trans = conformers(pf.load("ethanol"), molecule("CH3CH2OH"), search=False).members[0]
        >>> trans.name, trans.population, abs(round(float(trans.wells[0, 0])))
        ('trans', 1.0, 180)
    """

    name: str  # of its torsions, such as "gauche"
    lines: HarmonicSpectrum  # with the minimum, `lines.atoms`
    energy: float  # eV above the lowest minimum
    free_energy: float  # eV above the lowest conformer's, mirror image and symmetry number included
    population: float  # share in equilibrium, 0 to 1
    degeneracy: int  # 2 with a mirror image of its own, else 1
    symmetry: int  # symmetry number of its rotations
    wells: np.ndarray  # [W, T] degrees, torsion angles of all starts that ended here, and of their mirror images

    @property
    def atoms(self) -> ase.Atoms:
        """The minimum."""
        return self.lines.atoms


@dataclass(frozen=True)
class Conformers:
    """Conformers of a molecule, the most populated first.

    Example:
        >>> from painn_fast.vibrations import Conformers
        >>> Conformers((), (), temperature=300.0, quantum=True).populations
        array([], dtype=float64)
    """

    members: tuple[Conformer, ...]
    torsions: tuple[Torsion, ...]
    temperature: float  # K
    quantum: bool  # partition functions of quantum oscillators, or of classical ones
    starts: int = 1  # structures that were relaxed
    rejected: tuple[str, ...] = ()  # why other minima were left out

    @property
    def populations(self) -> np.ndarray:
        """Shares in equilibrium, by free energy."""
        return np.array([one.population for one in self.members])

    def __len__(self) -> int:
        return len(self.members)

    @property
    def lines(self) -> HarmonicSpectrum:
        """Lines of the mixture in order of wavenumber, intensities times populations; of a single one its own."""
        first = self.members[0]
        if len(self.members) == 1:
            return first.lines
        each = [one.lines for one in self.members]
        order = np.argsort(np.concatenate([one.wavenumber for one in each]), kind="stable")

        def weighted(name: str) -> np.ndarray | None:
            parts = [getattr(one.lines, name) for one in self.members]
            if any(part is None for part in parts):
                return None
            return np.concatenate([p * part for p, part in zip(self.populations, parts, strict=True)])[order]

        rough = [one.roughness for one in each if one.roughness is not None]
        return replace(
            first.lines,
            roughness=Roughness(max(r.largest for r in rough), float(np.mean([r.mean for r in rough])))
            if rough
            else None,
            wavenumber=np.concatenate([one.wavenumber for one in each])[order],
            modes=np.concatenate([one.modes for one in each])[order],
            intensity=weighted("intensity"),
            isotropic=weighted("isotropic"),
            anisotropic=weighted("anisotropic"),
            names=tuple(np.concatenate([one.names for one in each])[order].tolist()),
            conformer=np.repeat(np.arange(len(each)), [len(one.wavenumber) for one in each])[order],
            conformers=tuple((one.name, one.population) for one in self.members),
        )


def conformers(
    model: Potential,
    atoms: ase.Atoms | Sequence[ase.Atoms],
    *,
    temperature: float = 300.0,
    quantum: bool = True,
    search: bool = True,
    most: int = STARTS,
    seed: int = 0,
    method: Method = "differences",
) -> Conformers:
    """Search the conformers of a molecule, and compute the harmonic lines and the population of each.

    Torsions about rotatable single bonds start on a grid (60, 180 and 300 degrees between tetrahedral atoms, every 60
    degrees else; methyl groups are left as they are). All starts are relaxed in one batch. Duplicates by rotation,
    reflection or exchange of equal atoms are one conformer. Free energies are those of an ideal gas of rigid rotors
    and harmonic oscillators; soft torsions, far from harmonic, are their largest error.

    Args:
        model: with an energy.
        atoms: one structure of a molecule in vacuum, or several of the same molecule, which are relaxed too.
        temperature: K.
        quantum: oscillators of quantum mechanics; False for populations that classical dynamics has.
        search: False relaxes the given structures only.
        most: starts at most; beyond, they are chosen at random.
        seed: of that choice.
        method: of the Hessian, as for `harmonic`.

    Returns:
        The conformers within 0.25 eV of the lowest.

    Raises:
        PaiNNFastError: if the structure does not fit the model, structures are of different molecules, or none relaxes,
            and for a temperature that is not positive.

    Example:
        >>> import painn_fast as pf
        >>> from ase.build import molecule
        >>> from painn_fast.vibrations import conformers
        >>> ethanol = conformers(pf.load("ethanol"), molecule("CH3CH2OH"))
        >>> sorted((one.name, one.degeneracy) for one in ethanol.members)
        [('gauche', 2), ('trans', 1)]
    """
    require_temperature(temperature)
    given = [atoms] if isinstance(atoms, ase.Atoms) else list(atoms)
    first = _checked(given)
    rotatable = tuple(torsions(first))
    begin = [*given[1:], *starts(first, list(rotatable), most, seed)] if search else given
    rough, energies = _relaxed(model, begin) if len(begin) > 1 else (begin, np.zeros(1))
    whole = [k for k, one in enumerate(rough) if not _bonds_changed(first, one)]
    rejected = ["bonds changed"] * (len(rough) - len(whole))
    if not whole:
        raise PaiNNFastError("no conformer", where=first.get_chemical_formula(), got=f"{rejected[0]} from every start")
    double = in_float64(model)
    wells = _wells(double, [rough[k] for k in whole], energies[whole])
    members = []
    for well in wells:
        lines, imaginary = _lines(model, well[0], method)
        if imaginary and len(wells) > 1:
            rejected.append(f"a saddle point, {imaginary}")
        else:
            members.append((lines, _all_angles(well, rotatable)))
    listed = _populated(double, members, rotatable, temperature, quantum)
    return Conformers(listed, rotatable, temperature, quantum, len(begin), tuple(rejected))


def _checked(given: list[ase.Atoms]) -> ase.Atoms:
    """The first of the structures, which must be of one molecule."""
    if not given:
        raise PaiNNFastError("no structure to start from", got="an empty list")
    for k, one in enumerate(given):
        check_molecule(one)
        if one.numbers.tolist() != given[0].numbers.tolist():
            raise PaiNNFastError(
                "conformers of different molecules",
                where=f"structure {k}",
                got="-".join(one.symbols),
                expected="-".join(given[0].symbols),
                fix="give structures of one molecule, its atoms in one order",
            )
    return given[0]


def _relaxed(model: Potential, begin: list[ase.Atoms]) -> tuple[list[ase.Atoms], np.ndarray]:
    """Structures near their minima, and energies [B] eV."""
    ends = relax_many(model, begin, tolerance=ENOUGH, steps=STEPS)
    for end in ends:
        end.atoms.calc = None
    return [end.atoms for end in ends], np.array([end.energy for end in ends])


def _bonds_changed(first: ase.Atoms, one: ase.Atoms) -> bool:
    return bool((connected(first) != connected(one)).any())


def _wells(double: Potential, rough: list[ase.Atoms], energies: np.ndarray) -> list[list[ase.Atoms]]:
    """For each minimum the relaxed structure, then all that ended near it, the lowest first.

    Duplicates are sought among roughly relaxed structures, so that few are relaxed to the end, and again among those.
    """
    near_lowest = np.flatnonzero(energies <= energies.min() + WINDOW).tolist()
    order = sorted(near_lowest, key=lambda k: (energies[k], k))
    groups: list[list[int]] = []
    for k in order:
        near = (g for g in groups if abs(energies[g[0]] - energies[k]) <= SAME_ENERGY)
        same = next((g for g in near if any(isometries(rough[g[0]], rough[k], ROUGHLY))), None)
        groups.append([k]) if same is None else same.append(k)
    wells: list[list[ase.Atoms]] = []
    for group in groups:
        minimum = relax(double, rough[group[0]])
        known = next((well for well in wells if any(isometries(well[0], minimum, EXACTLY))), None)
        members = [minimum, *(rough[k] for k in group)]
        wells.append(members) if known is None else known.extend(members)
    return wells


def _all_angles(well: list[ase.Atoms], rotatable: tuple[Torsion, ...]) -> np.ndarray:
    """Torsion angles [W, T] of the minima of a well, of their mirror images too, each once."""
    own = angles(np.array([one.positions for one in well]), list(rotatable))
    kept: list[np.ndarray] = []
    for one in np.concatenate([own, -own]):
        if not any((apart(one, other) < DISTINCT).all() for other in kept):
            kept.append(one)
    return np.array(kept).reshape(len(kept), len(rotatable))


def _lines(model: Potential, minimum: ase.Atoms, method: Method) -> tuple[HarmonicSpectrum, str]:
    """The harmonic spectrum, and its imaginary wavenumbers in words."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "imaginary frequencies", UserWarning)
        lines = harmonic(model, minimum, relaxed=True, method=method)
    return lines, ", ".join(f"{-nu:.0f}i cm-1" for nu in lines.wavenumber[lines.wavenumber < 0])


def _populated(
    double: Potential,
    members: list[tuple[HarmonicSpectrum, np.ndarray]],
    rotatable: tuple[Torsion, ...],
    temperature: float,
    quantum: bool,
) -> tuple[Conformer, ...]:
    """Conformers with their populations, the largest first."""
    energies = np.array(evaluate(double, [lines.atoms for lines, _ in members], ("energy",))["energy"])
    count = [_symmetry(lines.atoms) for lines, _ in members]
    free = np.array([
        energy + free_energy(lines, temperature, quantum=quantum) - KB * temperature * np.log(degeneracy / symmetry)
        for energy, (lines, _), (degeneracy, symmetry) in zip(energies, members, count, strict=True)
    ])  # fmt: skip
    free -= free.min()
    weights = np.exp(-free / (KB * temperature))
    weights /= weights.sum()
    energies -= energies.min()
    names = _names([wells for _, wells in members])
    order = np.argsort(-weights, kind="stable")
    distinct = _distinct([names[k] for k in order])
    return tuple(
        Conformer(
            name=name,
            lines=members[k][0],
            energy=float(energies[k]),
            free_energy=float(free[k]),
            population=float(weights[k]),
            degeneracy=count[k][0],
            symmetry=count[k][1],
            wells=members[k][1],
        )
        for name, k in zip(distinct, order, strict=True)
    )


def free_energy(lines: HarmonicSpectrum, temperature: float, *, quantum: bool = True) -> float:
    """Free energy of vibrations and rotation, without energy, symmetry number and what all conformers share.

    Args:
        lines: at a minimum; imaginary wavenumbers do not count.
        temperature: K.
        quantum: quantum oscillators, zero-point energy included, or classical ones.

    Returns:
        eV.
    """
    kt = KB * temperature
    quanta = 2.0 * np.pi * HBAR * SPEED_OF_LIGHT * lines.wavenumber[lines.wavenumber > 0]  # eV
    moments = lines.atoms.get_moments_of_inertia()
    rotation = -0.5 * kt * np.log(moments[moments > LINEAR**2 * moments.max()]).sum()
    vibration = 0.5 * quanta + kt * np.log(-np.expm1(-quanta / kt)) if quantum else kt * np.log(quanta / kt)
    return float(vibration.sum() + rotation)


def _symmetry(minimum: ase.Atoms) -> tuple[int, int]:
    """Degeneracy by the mirror image, and symmetry number."""
    own = isometries(minimum, minimum, EXACTLY)
    return (1 if own.improper else 2), max(own.proper, 1)


def _names(wells: list[np.ndarray]) -> list[str]:
    """Of one torsion its shape, of several the first letters, of none "minimum"."""
    shapes = [[next(name for limit, name in SHAPES if abs(angle) <= limit) for angle in own[0]] for own in wells]
    return [shape[0] if len(shape) == 1 else "".join(name[0] for name in shape) or "minimum" for shape in shapes]


def _distinct(names: list[str]) -> list[str]:
    """Names with numbers after those that are not the only ones."""
    seen: dict[str, int] = {}
    numbered = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        numbered.append(f"{name} {seen[name]}" if names.count(name) > 1 else name)
    return numbered
