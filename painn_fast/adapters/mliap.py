"""Models for LAMMPS's `pair_style mliap unified`, on several processes: features of ghost atoms come by exchange.

Written to the interface of `lammps.mliap.mliap_unified_abc`, whose import needs a shared library of Python, and of the
data that LAMMPS's Kokkos version hands over, whose exchanges message passing needs. Not run in such a build.
"""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor

from painn_fast import units
from painn_fast.errors import PaiNNFastError
from painn_fast.evaluate import loaded
from painn_fast.nn import Potential
from painn_fast.units import KCAL_PER_MOL

UNITS = {"metal": 1.0, "real": KCAL_PER_MOL}
"""LAMMPS's unit of energy in eV, by its style of units."""


class Unified:
    """A model as ML-IAP calls it; `pickle(file)` writes what `pair_style mliap unified file 0` reads.

    Args:
        model: a potential, or what `painn_fast.load` takes; none with an embedding of charge or spin.
        style: LAMMPS's units, "metal" or "real".
        load_options: further arguments of `painn_fast.load`, such as energy_unit.

    Raises:
        PaiNNFastError: for other units, and a model without an energy, without a list of its elements, with an
            embedding of charge or spin, or that is several.

    Example:
        >>> from painn_fast.adapters.mliap import Unified
        >>> unified = Unified("ethanol")
        >>> unified.element_types, 2 * unified.rcutfac  # Å
        (['H', 'C', 'O'], 5.0)
        >>> unified.pickle("ethanol.mliap")
    """

    def __init__(self, model: Potential | str | Path, style: str = "metal", **load_options: Any) -> None:
        potential = loaded(model, load_options)
        if not isinstance(potential, Potential):
            raise PaiNNFastError("ML-IAP takes one model", got=type(potential).__name__, expected="a potential")
        if style not in UNITS:
            raise PaiNNFastError("other units of LAMMPS", where="style", got=repr(style), expected=" | ".join(UNITS))
        name, network = f"model '{potential.config.name}'", potential.config.representation
        if "energy" not in potential.properties or potential.config.elements is None:
            raise PaiNNFastError("ML-IAP needs an energy and a list of elements", where=name)
        if network.charge_embedding is not None or network.spin_embedding is not None:
            raise PaiNNFastError(
                "an embedding of charge or spin depends on atoms of all processes", where=name,
                fix="use painn_fast.adapters.lammps.FixExternal on one process",
            )  # fmt: skip
        symbols = [chemical_symbols[number] for number in potential.config.elements]
        self.interface: Any = None  # set by LAMMPS
        self.element_types, self.ndescriptors, self.nparams = symbols, 1, 1
        self.rcutfac = 0.5 * potential.cutoff
        self.model, self.energy_unit = copy.deepcopy(potential).requires_grad_(False).eval(), UNITS[style]
        self.numbers = torch.tensor(potential.config.elements)

    def pickle(self, file: str | Path) -> None:
        """Write this object for `pair_style mliap unified`."""
        with Path(file).open("wb") as stream:
            pickle.dump(self, stream)

    def compute_descriptors(self, data: Any) -> None:
        """Nothing: the network has none."""

    def compute_gradients(self, data: Any) -> None:
        """Nothing: see `compute_forces`."""

    def compute_forces(self, data: Any) -> None:
        """Energy, energies of local atoms, and forces of pairs; a process without pairs takes part in the exchanges."""
        device = self.model.device
        numbers = self.numbers.to(device)[torch.as_tensor(data.elems, device=device).long()]  # ghosts included
        given = torch.zeros(0, 3) if data.npairs == 0 else torch.as_tensor(data.rij)
        r_ij = given.to(device, torch.float64, copy=True).requires_grad_()  # from i to j, Å
        ends = (torch.zeros(0),) * 2 if data.npairs == 0 else (data.pair_i, data.pair_j)
        i, j = (torch.as_tensor(end, device=device).long() for end in ends)
        energies = self._energies(numbers, r_ij, i, j, data)
        (slope,) = torch.autograd.grad(energies.sum(), r_ij)  # its sign is that of LAMMPS: f_i += slope, f_j -= slope
        energies = energies.detach()
        torch.as_tensor(data.eatoms)[: data.nlocal] = energies  # LAMMPS's memory
        data.energy = float(energies.sum())
        if data.npairs:
            data.update_pair_forces(slope.contiguous())

    def _energies(self, numbers: Tensor, r_ij: Tensor, i: Tensor, j: Tensor, data: Any) -> Tensor:
        """Energies of local atoms [n], as `painn_fast.nn.PaiNN` makes them, with an exchange between layers."""
        network: Any = self.model.representation
        head: Any = self.model.heads["energy"]
        n = int(data.nlocal)
        length = units.factor("length", self.model.config.length_unit)
        r = (r_ij / length).to(self.model.dtype)
        d = torch.linalg.vector_norm(r, dim=1)
        filters = (network.filter(network.radial_basis(d)) * network.cutoff_function(d)[:, None]).chunk(
            network.n_filters, dim=-1
        )
        graph: Any = SimpleNamespace(numbers=numbers, receiver=i, sender=j)
        s = network.embed(graph)
        v = r.new_zeros(len(numbers), 3, s.shape[1])
        for layer in range(network.config.n_layers):
            if layer:
                s, v = _with_ghosts(s, v, len(numbers), data)
            message = network.message[layer % len(network.message)]
            s, v = message(s, v, filters[layer % len(filters)], r / d[:, None], graph)
            s, v = network.update[layer % len(network.update)](s[:n], v[:n])
        atomic: Tensor = head.network(s)[:, 0].double() + head.atomic_reference[numbers[:n]] + head.mean
        return atomic * (units.factor("energy", self.model.config.energy_unit) / self.energy_unit)


def _with_ghosts(s: Tensor, v: Tensor, n_total: int, data: Any) -> tuple[Tensor, Tensor]:
    """Features of local atoms and, from the processes that own them, of ghosts: [N, F] and [N, 3, F]."""
    features = s.shape[1]
    local = torch.cat([s, v.flatten(1)], dim=1)
    every = _Exchange.apply(torch.cat([local, local.new_zeros(n_total - len(local), local.shape[1])]), data)
    return every[:, :features], every[:, features:].unflatten(1, (3, features))


class _Exchange(torch.autograd.Function):
    """LAMMPS's communication; backward adds gradients of ghosts to those of their owners."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, data: Any) -> Tensor:
        ctx.data, received = data, torch.empty_like(features)
        data.forward_exchange(features.contiguous(), received, features.shape[1])
        return received

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        summed = torch.empty_like(gradient, memory_format=torch.contiguous_format)
        ctx.data.reverse_exchange(gradient.contiguous(), summed, gradient.shape[1])
        return summed, None
