"""Models for TorchSim: many systems in one batch on the engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import ase
import numpy as np
import torch
from torch import Tensor

from painn_fast.engine.select import evaluator_for
from painn_fast.errors import PaiNNFastError
from painn_fast.evaluate import report_ignored_charges
from painn_fast.graph import AtomicBatch, batch_atoms
from painn_fast.graph.batch import ALL_PAIRS_UP_TO, CLOSEST
from painn_fast.graph.cells import FARTHEST
from painn_fast.graph.skin import SKIN
from painn_fast.io import load
from painn_fast.kernels.neighbors.cpu import list_holds
from painn_fast.nn import Potential

try:
    from torch_sim.models.interface import ModelInterface
except ImportError as error:
    fix = "pip install torch-sim-atomistic; version 0.6 needs Python 3.12 or newer"
    raise PaiNNFastError("TorchSim cannot be imported", got=str(error), fix=fix) from error

__all__ = ["TorchSimModel"]

USUAL = ("energy", "forces", "stress")
ELECTRONIC = ("charge", "spin")
"""Extras of a state that a model may depend on: total charge (e) and spin multiplicity (2S + 1) of each system."""


class TorchSimModel(ModelInterface):
    """A model as TorchSim calls it.

    Results are in TorchSim's units: eV, eV/Å, eV/Å³ with its sign; and e Å, Å³. Systems of a state without a cell
    that is periodic in three directions have no stress, it is NaN. Total charge and spin multiplicity of each system
    are the extras `charge` and `spin` of the state, as far as it has them and the model depends on them.

    Args:
        model: a potential, or what `painn_fast.load` takes.
        properties: results beside energy, forces and stress that go into the extras of a state, such as "dipole",
            "polarizability", "charges" or "energies".
        dtype: of the state. The network runs in the dtype of its weights, sums are float64.
        device: "cpu", "cuda", ... where the model is loaded.
        compute_forces: whether results have forces.
        compute_stress: whether results have the stress.
        load_options: further arguments of `painn_fast.load`, such as energy_unit.

    Raises:
        PaiNNFastError: for a property that the model does not have, and as `painn_fast.load` does.

    Example:
        >>> import torch_sim
        >>> from ase.build import molecule
        >>> from painn_fast.adapters.torchsim import TorchSimModel
        >>> model = TorchSimModel("ethanol", properties=["dipole"])
        >>> state = torch_sim.initialize_state([molecule("CH3CH2OH")] * 3, model.device, model.dtype)
        >>> results = model(state)
        >>> results["energy"].shape, results["forces"].shape, results["dipole"].shape
        (torch.Size([3]), torch.Size([27, 3]), torch.Size([3, 3]))
    """

    def __init__(
        self,
        model: Potential | str | Path,
        *,
        properties: Sequence[str] = (),
        dtype: torch.dtype = torch.float64,
        device: str | torch.device | None = None,
        compute_forces: bool = True,
        compute_stress: bool = True,
        **load_options: Any,
    ) -> None:
        super().__init__()
        given = load_options if device is None else {"device": str(device), **load_options}
        if isinstance(model, Potential) and given:
            raise PaiNNFastError("a model that is loaded takes no more options", got=", ".join(given))
        self.potential: Potential = model if isinstance(model, Potential) else load(model, **given)
        if isinstance(properties, str):
            raise PaiNNFastError("one name where a list is expected", got=properties, fix=f"write [{properties!r}]")
        unknown = [name for name in ("energy", *properties) if name not in self.potential.known]
        if unknown:
            known = ", ".join(name for name in self.potential.properties if name not in USUAL)
            raise PaiNNFastError("the model does not give these", got=", ".join(unknown), expected=known)
        self.properties = tuple(dict.fromkeys(properties))
        self._device, self._dtype = self.potential.device, dtype
        self._compute_forces, self._compute_stress = compute_forces, compute_stress
        self._graph: _Graph | None = None

    @ModelInterface.compute_stress.setter
    def compute_stress(self, wanted: bool) -> None:
        """Whether results have the stress."""
        self._compute_stress = wanted

    @ModelInterface.compute_forces.setter
    def compute_forces(self, wanted: bool) -> None:
        """Whether results have forces."""
        self._compute_forces = wanted

    def forward(self, state: Any, **_: Any) -> dict[str, Tensor]:
        """Results of all systems of a state.

        Args:
            state: a `SimState`.

        Returns:
            energy [M], forces [N, 3], stress [M, 3, 3], and the other properties by their names.

        Raises:
            PaiNNFastError: for elements that the model does not know, a property that is not defined for the systems,
                atoms on top of each other, and results that are not finite; systems are called structures there.
        """
        periodic = bool(torch.as_tensor(state.pbc).all())
        names = ["energy", *["forces"] * self.compute_forces]
        names += ["stress"] * (self.compute_stress and periodic)
        names += [name for name in self.properties if name not in names]
        evaluator = evaluator_for(self.potential, properties=names)
        self._graph = graph = self._current(state, skips_far_pairs=evaluator.engine is not None)
        self.potential.check(graph.batch, names)
        batch = graph.batch.with_positions(state.positions.detach().double())
        results = evaluator(batch, names, finite=True, kept=graph.workspaces)
        if self.compute_stress and not periodic:
            results["stress"] = torch.full((batch.n_molecules, 3, 3), torch.nan, device=self.device)
        return {name: value.detach().to(self.dtype) for name, value in results.items()}

    def _current(self, state: Any, *, skips_far_pairs: bool) -> _Graph:
        """The graph of the last call if it serves for this state too, else a new one."""
        parts = [state.atomic_numbers, state.system_idx, state.row_vector_cell, torch.as_tensor(state.pbc)]
        parts += [value for name in ELECTRONIC if (value := getattr(state, name, None)) is not None]
        key = tuple(part.detach().clone() for part in parts)
        positions = state.positions.detach().double().cpu().numpy()
        if self._graph is not None and self._graph.serves(key, positions):
            return self._graph
        systems = _systems(state, positions)
        skin = SKIN if skips_far_pairs and self.device.type == "cpu" else 0.0
        try:
            graph = _Graph(key, batch_atoms(systems, self.potential.cutoff + skin), skin, self.device)
        except PaiNNFastError:  # such as a skin that finds too many pairs
            graph = _Graph(key, batch_atoms(systems, self.potential.cutoff), 0.0, self.device)
        report_ignored_charges(self.potential, graph.batch)
        return graph


class _Graph:
    """The edges of a state, as long as its atoms have not moved by half of the skin."""

    def __init__(self, key: tuple[Tensor, ...], batch: AtomicBatch, skin: float, device: torch.device) -> None:
        small = not bool(batch.pbc.any()) and int(batch.n_atoms.max()) <= ALL_PAIRS_UP_TO
        self.key, self.skin = key, np.inf if small else skin  # all pairs hold at any positions
        self.arrays = [tensor.numpy() for tensor in (batch.positions, batch.receiver, batch.sender, batch.shift)]
        self.batch = batch.to(device)
        self.workspaces: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    def serves(self, key: tuple[Tensor, ...], positions: np.ndarray) -> bool:
        """Whether a state is of the same systems, with no pair that the list lacks."""
        if len(key) != len(self.key) or not all(map(torch.equal, key, self.key)):
            return False
        return bool(list_holds(positions, *self.arrays, (0.5 * self.skin) ** 2, FARTHEST, CLOSEST**2))


def _systems(state: Any, positions: np.ndarray) -> list[ase.Atoms]:
    """The systems of a state, with their charges and multiplicities."""
    numbers, cells = (part.detach().cpu().numpy() for part in (state.atomic_numbers, state.row_vector_cell))
    ends = np.cumsum(np.bincount(state.system_idx.cpu().numpy(), minlength=len(cells)))
    pbc = torch.as_tensor(state.pbc).cpu().numpy()
    given = {name: getattr(state, name, None) for name in ELECTRONIC}
    infos = [{name: float(values[k]) for name, values in given.items() if values is not None} for k in range(len(ends))]
    return [
        ase.Atoms(numbers[start:end], positions[start:end], cell=cell, pbc=pbc, info=info)
        for start, end, cell, info in zip([0, *ends], ends, cells, infos, strict=False)
    ]
