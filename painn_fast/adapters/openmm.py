"""Models for OpenMM: the potential "painn-fast" of openmm-ml's `MLPotential`, by an `openmm.PythonForce`.

OpenMM and openmm-ml are imported here, and openmm-ml imports this module by its entry point, so it imports no more than
it needs to register. OpenMM uses nm, kJ/mol and ps.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openmm
from openmm import unit
from openmmml.mlpotential import MLPotentialImpl, MLPotentialImplFactory

from painn_fast.errors import PaiNNFastError
from painn_fast.units import KJ_PER_MOL

if TYPE_CHECKING:
    import ase

    from painn_fast.adapters.copies import Copies
    from painn_fast.ensemble import Several
    from painn_fast.nn import Potential

ANGSTROM_PER_NM = 10.0


class PotentialFactory(MLPotentialImplFactory):
    """What the entry point names: makes the potential for `MLPotential("painn-fast", model=...)`."""

    def createImpl(self, name: str, **args: Any) -> ModelPotential:
        """The potential of a model; arguments are those of `ModelPotential`."""
        if "model" not in args:
            raise PaiNNFastError(
                "no model", where=f"MLPotential('{name}')", expected="a name, a file or a loaded model",
                fix=f"write MLPotential('{name}', model='ethanol')",
            )  # fmt: skip
        return ModelPotential(**args)


class ModelPotential(MLPotentialImpl):
    """A model as openmm-ml adds it to a `System`.

    Args:
        model: a potential, an ensemble or a sum of them, or what `painn_fast.load` takes.
        device: "cpu", "cuda", ...; None uses the model where it is.
        backend: "auto", "fused" or "reference".
        dtype: "float32" or "float64", of the network; None keeps the model's.
        load_options: further arguments of `painn_fast.load`, such as energy_unit.
    """

    def __init__(
        self, model: Potential | Several | str | Path, device: Any = None, backend: str = "auto", dtype: Any = None,
        **load_options: Any,
    ) -> None:  # fmt: skip
        from painn_fast.ase import PaiNNCalculator

        self.model = PaiNNCalculator(model, device, backend, dtype=dtype, **load_options).potential
        self.backend = backend

    def addForces(
        self, topology: Any, system: Any, atoms: Iterable[int] | None, forceGroup: int, *, charge: float = 0.0,
        multiplicity: float = 1.0, integrator: BatchedRPMDIntegrator | None = None, **others: Any,
    ) -> None:  # fmt: skip
        """Add the force to a system; called by openmm-ml, which passes on arguments of `createSystem`.

        Args:
            topology: elements, and whether there is a periodic box.
            system: takes the force.
            atoms: indices of those that the model acts on; None for all.
            forceGroup: of the force.
            charge: total charge of these atoms, e.
            multiplicity: their spin multiplicity 2S + 1.
            integrator: a `BatchedRPMDIntegrator` whose beads go into one batch.
            others: of the embedding; without one there are none.

        Raises:
            PaiNNFastError: for an atom without an element or with one that the model does not know, and for an unknown
                argument.
        """
        import ase

        from painn_fast.ensemble import Several

        if others and atoms is None:
            raise PaiNNFastError(
                "createSystem has no such argument", got=", ".join(others),
                expected="charge | multiplicity | integrator | removeCMMotion",
            )  # fmt: skip
        chosen = None if atoms is None else [int(index) for index in atoms]
        numbers = _numbers(topology, chosen)
        for one in self.model.members if isinstance(self.model, Several) else [self.model]:
            one.require_elements(set(numbers))
        periodic = topology.getPeriodicBoxVectors() is not None or system.usesPeriodicBoundaryConditions()
        structure = ase.Atoms(numbers, pbc=periodic, info={"charge": charge, "spin_multiplicity": multiplicity})
        integrator = _batching(integrator, system)
        force = openmm.PythonForce(Computation(self.model, structure, chosen, self.backend, integrator))
        force.setForceGroup(forceGroup)
        force.setUsesPeriodicBoundaryConditions(periodic)
        if chosen is not None:
            force.setParticles(chosen)
        system.addForce(force)

    def getMLLongRange(self) -> bool:
        """Messages end at the cut-off."""
        return False


class BatchedRPMDIntegrator(openmm.RPMDIntegrator):
    """`openmm.RPMDIntegrator` whose beads go to a model in one batch, where OpenMM allows it.

    Give it to `createSystem(..., integrator=integrator)` and to the `Simulation` or `Context`. Arguments, trajectories
    and everything else are those of `RPMDIntegrator`. Beads are evaluated one by one if the platform is that of a GPU,
    which calls Python from a thread of its own, with contractions, and if the system has virtual sites.

    Example:
        >>> import openmm
        >>> from openmmml import MLPotential
        >>> from painn_fast.adapters.openmm import BatchedRPMDIntegrator
        >>> topology = openmm.app.Topology()
        >>> residue = topology.addResidue("MOL", topology.addChain())
        >>> for symbol in ("O", "H", "H"):
        ...     atom = topology.addAtom(symbol, openmm.app.Element.getBySymbol(symbol), residue)
        >>> integrator = BatchedRPMDIntegrator(4, 300.0, 1.0, 0.0005)  # beads, K, 1/ps, ps
        >>> system = MLPotential("painn-fast", model="ethanol").createSystem(topology, integrator=integrator)
        >>> context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
        >>> for bead in range(4):
        ...     integrator.setPositions(bead, [[0, 0, 0.01], [0, 0.076, -0.05], [0, -0.076, -0.05]])  # nm
        >>> integrator.step(2)
    """

    stepping = False

    def step(self, steps: int) -> None:
        """Advance by a number of steps."""
        self.stepping = True
        try:
            super().step(steps)
        finally:
            self.stepping = False


class Computation:
    """Energy (kJ/mol) and forces (kJ/mol/nm) of a state, as `PythonForce` calls it.

    `RPMDIntegrator` asks for the beads one after another, all of which it has moved before. On the first one they are
    read and evaluated together, and the other results wait until their positions come.

    Args:
        model: a potential, an ensemble or a sum.
        atoms: elements, periodic directions, charge and spin multiplicity.
        particles: indices of the atoms in the system; None if they are all.
        backend: "auto", "fused" or "reference".
        integrator: whose beads go together; None for each alone.
    """

    def __init__(
        self, model: Potential | Several, atoms: ase.Atoms, particles: list[int] | None, backend: str,
        integrator: BatchedRPMDIntegrator | None = None,
    ) -> None:  # fmt: skip
        from painn_fast.adapters.copies import Copies

        self.atoms, self.particles, self.integrator = atoms, particles, integrator
        self._copies: dict[int, Copies] = defaultdict(lambda: Copies(model, atoms, backend))
        self._known: dict[bytes, tuple[float, np.ndarray]] = {}
        self._given = model, atoms, particles, backend

    def __reduce__(self) -> tuple[Any, ...]:
        """OpenMM serializes forces, an integrator is no part of that: the beads of what is read are evaluated alone."""
        return Computation, self._given

    def __call__(self, state: Any) -> tuple[float, np.ndarray]:
        """Energy and forces [n, 3] of an `openmm.State`."""
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
        if self.atoms.pbc.any():
            cell = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom)
            if not np.array_equal(cell, self.atoms.cell.array):
                self.atoms.cell = cell
                self._known.clear()
        if self.integrator is None or not _may_read_beads(self.integrator):
            return self._evaluated(positions[None])[0]
        key = positions.tobytes()
        if key not in self._known:
            self._known = self._of_beads(self.integrator, key)
        return self._known[key]

    def _of_beads(self, integrator: BatchedRPMDIntegrator, key: bytes) -> dict[bytes, tuple[float, np.ndarray]]:
        """Results of all beads by their positions, among them those in `key`; a barostat moves one after another."""
        beads = np.array([self._bead(integrator, copy) for copy in range(integrator.getNumCopies())])
        keys = [bead.tobytes() for bead in beads]
        if key not in keys:
            raise PaiNNFastError(
                "OpenMM asks for forces at positions that are those of no bead", where="BatchedRPMDIntegrator",
                fix="use openmm.RPMDIntegrator, and no argument integrator",
            )  # fmt: skip
        integrator.getState(keys.index(key))  # reading a bead has put it into the context; now the one in work is back
        new = [k for k, one in enumerate(keys) if one not in self._known]
        known = self._known | dict(zip([keys[k] for k in new], self._evaluated(beads[new]), strict=True))
        return {one: known[one] for one in keys}

    def _bead(self, integrator: BatchedRPMDIntegrator, copy: int) -> np.ndarray:
        """Positions [n, 3] Å of the atoms of one bead that the model acts on."""
        positions = integrator.getState(copy, getPositions=True).getPositions(asNumpy=True)
        inside: np.ndarray = positions.value_in_unit(unit.angstrom)
        return inside if self.particles is None else inside[self.particles]

    def _evaluated(self, positions: np.ndarray) -> list[tuple[float, np.ndarray]]:
        """Energy and forces of each of the copies at positions [B, n, 3] Å."""
        results = self._copies[len(positions)](positions)
        pairs = zip(results["energy"], results["forces"], strict=True)
        return [(energy / KJ_PER_MOL, forces * (ANGSTROM_PER_NM / KJ_PER_MOL)) for energy, forces in pairs]


def _may_read_beads(integrator: BatchedRPMDIntegrator) -> bool:
    """Whether a bead is asked for, by a thread that Python has started: those of OpenMM may not read others."""
    here = threading.get_ident()
    return integrator.stepping and any(thread.ident == here for thread in threading.enumerate())


def _batching(integrator: Any, system: Any) -> BatchedRPMDIntegrator | None:
    """The integrator, if all that it asks for are its beads; what it does with others overwrites the context."""
    if integrator is None:
        return None
    if not isinstance(integrator, BatchedRPMDIntegrator):
        raise PaiNNFastError(
            "not an integrator whose beads can be read", where="integrator", got=type(integrator).__name__,
            expected="painn_fast.adapters.openmm.BatchedRPMDIntegrator",
        )  # fmt: skip
    sites = any(system.isVirtualSite(index) for index in range(system.getNumParticles()))
    return None if sites or len(integrator.getContractions()) else integrator


def _numbers(topology: Any, chosen: list[int] | None) -> list[int]:
    """Atomic numbers of the chosen atoms of a topology."""
    atoms = list(topology.atoms())
    numbers = []
    for index in range(len(atoms)) if chosen is None else chosen:
        if atoms[index].element is None:
            raise PaiNNFastError(
                "an atom without an element", where=f"topology, atom {index} ({atoms[index].name})",
                fix="leave it out of the atoms of the model, or give it an element",
            )  # fmt: skip
        numbers.append(atoms[index].element.atomic_number)
    return numbers
