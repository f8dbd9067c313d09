"""A trained model as people use it: structures in, energies, forces and the rest out, in eV, Å and e."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NoReturn, Self

import numpy as np
import torch
from ase.data import atomic_masses, chemical_symbols
from torch import Tensor, nn

from painn_fast import units
from painn_fast.errors import PaiNNFastError, UndefinedProperty
from painn_fast.graph import AtomicBatch
from painn_fast.nn import fused
from painn_fast.nn.config import DipoleHead, EnergyHead, PotentialConfig, ScalarHead, SpatialExtentHead, head_name
from painn_fast.nn.defined import defined, depends_on_cell
from painn_fast.nn.heads import Atomwise, Dipole, Polarizability, SpatialExtent, build_heads
from painn_fast.nn.layers import Float64Buffers
from painn_fast.nn.painn import PaiNN


class Potential(Float64Buffers):
    """PaiNN with its heads.

    Weights keep the units that they were trained in (`config`); results are in eV, Å, e Å and Å³ always.
    Positions and sums are float64, the network runs in the dtype of its parameters.

    Args:
        config: representation, heads and units.
    """

    standard_masses: Tensor  # [119] amu

    def __init__(self, config: PotentialConfig) -> None:
        super().__init__()
        self.config = config
        self.representation = PaiNN(config.representation)
        names = [head_name(head) for head in config.heads]
        self.heads = nn.ModuleDict(dict(zip(names, build_heads(config.heads, config.representation), strict=True)))
        self.backend = "auto"
        """"auto" and "fused" run compiled operations where there are some; "reference" runs plain PyTorch."""
        self.register_buffer("standard_masses", torch.tensor(atomic_masses, dtype=torch.float64), persistent=False)

    def __prepare_scriptable__(self) -> NoReturn:
        """What `torch.jit.script` calls first."""
        raise PaiNNFastError(
            "a model of painn-fast cannot be scripted by torch.jit",
            where=f"model '{self.config.name}'",
            fix="`painn-fast convert` writes a state dict that SchNetPack loads, whose models can be",
        )

    @property
    def cutoff(self) -> float:
        """Å."""
        return self.config.representation.cutoff * units.factor("length", self.config.length_unit)

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type that the network runs in."""
        return self._embedding.dtype

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self._embedding.device

    @property
    def _embedding(self) -> Tensor:
        """Without torch's search for names, which takes 2 us."""
        weight: Any = self._modules["representation"]._modules["embedding"]._parameters["weight"]  # type: ignore[union-attr]
        return weight

    @property
    def properties(self) -> tuple[str, ...]:
        """Names of everything that `forward` can give."""
        names: list[str] = []
        for head in self.config.heads:
            match head:
                case EnergyHead():
                    names += ["energy", "energies", "forces", "stress"]
                case DipoleHead():
                    names += ["dipole", "charges"] + ["dipole_magnitude"] * head.magnitude
                case _:
                    names.append(head_name(head))
        return tuple(names)

    @cached_property
    def known(self) -> frozenset[str]:
        """`properties` as a set."""
        return frozenset(self.properties)

    @cached_property
    def _elements(self) -> frozenset[int]:
        """Atomic numbers that the model was trained on."""
        known = self.config.elements
        return frozenset(range(1, self.config.representation.max_z) if known is None else known)

    @contextmanager
    def reference(self) -> Iterator[Self]:
        """Inside of it, the network runs in plain PyTorch, without fused operations."""
        before, self.backend = self.backend, "reference"
        try:
            yield self
        finally:
            self.backend = before

    @property
    def fused(self) -> bool:
        """Whether the network runs in compiled operations."""
        return self.backend != "reference" and fused.available(self.representation)

    def forward(
        self, batch: AtomicBatch, properties: Sequence[str] = ("energy", "forces"), *, create_graph: bool = False
    ) -> dict[str, Tensor]:
        """Evaluate a batch.

        Args:
            batch: atoms and edges, on the device of the model. If its positions require a gradient, derivatives flow
                back to them.
            properties: names out of `self.properties`.
            create_graph: keep what is needed to differentiate forces and stress again (training, Hessians).

        Returns:
            energy [M] and energies [N] eV, forces [N, 3] eV/Å, stress [M, 3, 3] eV/Å³ (tension positive),
            dipole [M, 3] and dipole_magnitude [M] e Å, charges [N] e, polarizability [M, 3, 3] Å³,
            spatial_extent [M] Å², scalars [M] in their own unit (energies in eV). NaN where a property is not defined
            for a structure, such as the stress of a molecule beside crystals.

        Raises:
            PaiNNFastError: for a property that the model does not have, or that is not defined for any structure.
        """
        self.check(batch, properties, partly=True)
        lacking = _lacking(batch, properties)
        tracked = torch.is_grad_enabled()
        with torch.set_grad_enabled(tracked or "forces" in properties or "stress" in properties):
            results = self._forward(batch, properties, create_graph)
        for name, structures in lacking.items():
            of_rows = structures[batch.molecule] if name == "charges" else structures
            of_rows = of_rows.view(-1, *[1] * (results[name].ndim - 1))
            results[name] = results[name].masked_fill(of_rows, torch.nan)
        return results if tracked else {name: value.detach() for name, value in results.items()}

    def _forward(self, batch: AtomicBatch, properties: Sequence[str], create_graph: bool) -> dict[str, Tensor]:
        leaves: dict[str, Tensor] = {}
        once = not batch.positions.requires_grad  # or the caller may want more derivatives
        if "forces" in properties:
            positions = batch.positions if batch.positions.requires_grad else batch.positions.detach().requires_grad_()
            batch = batch.with_positions(positions)
            leaves["forces"] = positions
        r_ij = batch.edge_vectors()
        if "stress" in properties:
            leaves["stress"] = torch.zeros_like(batch.cell).requires_grad_()
            strain = leaves["stress"][batch.molecule[batch.receiver]]  # [E, 3, 3]
            r_ij = r_ij + (r_ij[:, None, :] @ strain)[:, 0]
        length = units.factor("length", self.config.length_unit)
        network = getattr(self.heads["energy"], "network", None) if "energy" in self.heads else None
        r_ij, read = (r_ij / length).to(self.dtype), None
        if self.fused:
            s, v, read = fused.features(self.representation, batch, r_ij, network, once=once)
        else:
            s, v = self.representation(batch, r_ij)
        results = self.results_of_heads(s, v, batch, properties, read)
        if leaves:
            results |= self._derivatives(results["energy"], leaves, batch, create_graph)
        return {name: results[name] for name in properties}

    def results_of_heads(
        self, s: Tensor, v: Tensor, batch: AtomicBatch, properties: Sequence[str], read: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Results of the heads for features s [N, F] and v [N, 3, F], those that `properties` need, in our units.

        `read` [N]: the output of the network of the energy for s, if that is known.
        """
        results: dict[str, Tensor] = {}
        length = units.factor("length", self.config.length_unit)
        r = (self._from_centre_of_mass(batch) / length).to(self.dtype) if self._needs_positions(properties) else s
        for head in self.config.heads:
            module = self.heads[head_name(head)]
            match module:
                case Atomwise() if isinstance(head, EnergyHead):
                    if {"energy", "energies", "forces", "stress"} & set(properties):
                        unit = units.factor("energy", self.config.energy_unit)
                        total, atomic = module(s, batch, read)
                        results |= {"energy": total * unit, "energies": atomic * unit}
                case Atomwise() if isinstance(head, ScalarHead) and head.name in properties:
                    results[head.name] = module(s, batch)[0] * (units.energy_size(head.unit) or 1.0)
                case Dipole() if {"dipole", "charges", "dipole_magnitude"} & set(properties):
                    unit = units.factor("dipole", self.config.dipole_unit)
                    dipole, charges = module(s, v, r, batch.total_charge * length / unit, batch)
                    results |= {"dipole": dipole * unit, "charges": charges * unit / length}
                    results["dipole_magnitude"] = torch.linalg.vector_norm(results["dipole"], dim=1)
                case Polarizability() if "polarizability" in properties:
                    unit = units.factor("polarizability", self.config.polarizability_unit)
                    results["polarizability"] = module(s, v, r, batch) * unit
                case SpatialExtent() if isinstance(head, SpatialExtentHead) and "spatial_extent" in properties:
                    unit = units.BOHR**2 if head.unit == "Bohr^2" else 1.0
                    results["spatial_extent"] = module(s, r, batch) * unit
        return results

    def _derivatives(
        self, energy: Tensor, leaves: dict[str, Tensor], batch: AtomicBatch, create_graph: bool
    ) -> dict[str, Tensor]:
        """Forces and stress as derivatives of the energy; zero where nothing depends on it (lone atoms)."""
        gradients = torch.autograd.grad(
            energy.sum(), list(leaves.values()), create_graph=create_graph, materialize_grads=True
        )
        results = {}
        for name, gradient in zip(leaves, gradients, strict=True):
            if name == "forces":
                results[name] = -gradient
            else:
                volume = torch.linalg.det(batch.cell).abs()
                volume = torch.where(defined("stress", batch.pbc), volume, 1.0)  # 0 / 0 would reach the gradients
                results[name] = gradient / volume[:, None, None]
        return results

    def _needs_positions(self, properties: Sequence[str]) -> bool:
        return bool({"dipole", "charges", "dipole_magnitude", "polarizability", "spatial_extent"} & set(properties))

    def _from_centre_of_mass(self, batch: AtomicBatch) -> Tensor:
        mass = self.standard_masses[batch.numbers][:, None]
        centre = batch.sum_over_atoms(mass * batch.positions) / batch.sum_over_atoms(mass)
        return batch.positions - centre[batch.molecule]

    def check(self, batch: AtomicBatch, properties: Sequence[str], *, partly: bool = False) -> None:
        """Raise PaiNNFastError for elements and UndefinedProperty for properties that the model cannot give.

        `partly`: a property that is not defined for some of the structures is none of these.
        """
        for name in properties:
            if name not in self.known:
                raise UndefinedProperty(
                    "the model does not give this property",
                    where=f"model '{self.config.name}'",
                    got=repr(name),
                    expected=" | ".join(self.properties),
                )
        lacks_stress = _undefined("stress", batch, partly=partly) if "stress" in properties else None
        if lacks_stress is not None:
            got = batch.periodic[lacks_stress].tolist()
            raise UndefinedProperty("stress needs a cell that is periodic in three directions", got=got)
        if self._needs_positions(properties) and _undefined("dipole", batch, partly=partly) is not None:
            raise UndefinedProperty(
                "dipole, polarizability and spatial extent are not defined in a periodic cell",
                got=", ".join(sorted(set(properties) - {"energy", "energies", "forces", "stress"})),
                fix="set atoms.pbc = False for a molecule in vacuum",
            )
        self.require_elements(batch.elements)

    def require_elements(self, numbers: Set[int]) -> None:
        """Raise PaiNNFastError if an atomic number is not one that the model was trained on."""
        unknown = sorted(numbers - self._elements)
        if unknown:
            known, largest = self.config.elements, self.config.representation.max_z - 1
            raise PaiNNFastError(
                "an element that the model does not know",
                where=f"model '{self.config.name}'",
                got=", ".join(chemical_symbols[z] if 0 <= z < len(chemical_symbols) else str(z) for z in unknown),
                expected=", ".join(chemical_symbols[z] for z in known) if known else f"Z up to {largest}",
                fix="use a model trained with it",
            )


def _undefined(name: str, batch: AtomicBatch, *, partly: bool) -> int | None:
    """The first structure without a property; `partly`: only if no structure has it."""
    has = defined(name, batch.periodic)
    if bool(has.any() if partly else has.all()):
        return None
    return int(np.flatnonzero(~has)[0])


def _lacking(batch: AtomicBatch, properties: Sequence[str]) -> dict[str, Tensor]:
    """Which structures [M] lack a property that others of the batch have."""
    return {
        name: ~defined(name, batch.pbc)
        for name in properties
        if depends_on_cell(name) and not bool(defined(name, batch.periodic).all())
    }
