"""PaiNN's energy and forces on a CPU, scheduled by hand: matrix products from torch, everything between from numba.

The adjoint is that of `kernels/message` and `kernels/update`; the first layer, whose scalars depend on the element
alone and whose vectors are zero, and the last one, whose vectors no energy needs, do less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from painn_fast import units
from painn_fast.errors import PaiNNFastError
from painn_fast.graph import AtomicBatch
from painn_fast.kernels.message.cpu import edge_geometry, message_bwd, message_fwd
from painn_fast.kernels.radial.table import FilterTable, tabulate
from painn_fast.kernels.update.cpu import gate_bwd, gate_fwd, norm_bwd, norm_fwd
from painn_fast.nn import PaiNN, Potential

AGREEMENT = 1e-3
"""Relative to the largest force: far above rounding, far below what a mistake would do."""
GIVES = {"energy", "energies", "forces", "dipole", "charges", "dipole_magnitude", "polarizability", "spatial_extent"}


def supports(potential: Potential) -> bool:
    """Whether the engine can run this model: the paper's network with silu, on a CPU; others run the reference."""
    config = potential.config.representation
    return (
        config.ablation == "none"
        and config.activation == "silu"
        and not potential.representation.electronic
        and "energy" in potential.heads
        and potential.device.type == "cpu"
    )


@dataclass
class Workspace:
    """Memory for one batch, filled anew at every evaluation. N atoms, E edges, F features, L layers."""

    batch: AtomicBatch
    dtype: torch.dtype
    features: int
    layers: int
    arrays: dict[str, np.ndarray] = field(init=False)
    tensors: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        n, e, f, layers = self.batch.n_total, self.batch.receiver.shape[0], self.features, self.layers
        shapes = {
            "direction": (e, 3), "fraction": (e,), "distance": (e,),
            "x": (layers, n, 3 * f), "h": (layers, n, f), "v": (layers + 1, n, 3, f), "s": (n, f),
            "vw": (layers, n, 3, 2 * f), "context": (layers, n, 2 * f), "dot": (layers, n, f), "k": (layers, n, f),
            "y": (layers, n, 3 * f), "gs": (n, f), "gv": (n, 3, f), "gv_in": (n, 3, f), "gy": (n, 3 * f),
            "g_context": (n, 2 * f), "g_vw": (n, 3, 2 * f), "gx": (n, 3 * f),
        }  # fmt: skip
        self.tensors = {name: torch.zeros(shape, dtype=self.dtype) for name, shape in shapes.items()}
        self.tensors["force"] = torch.zeros(n, 3, dtype=torch.float64)
        self.tensors["knot"] = torch.zeros(e, dtype=torch.int64)
        self.tensors |= {name: getattr(self.batch, name) for name in ("row_ptr", "sender", "shift")}
        self.arrays = {name: tensor.numpy() for name, tensor in self.tensors.items()}


@dataclass(frozen=True)
class _Layer:
    message: nn.Sequential
    channel_mix: Tensor  # [2 F, F]
    context: nn.Sequential
    table: FilterTable
    rows: np.ndarray  # the table's


class CpuEngine:
    """Energies, forces and properties of batches, equal to the potential's own within the filter table's error (1e-6).

    Args:
        potential: a model that `supports` accepts; its weights are read once.
    """

    def __init__(self, potential: Potential) -> None:
        self.potential = potential.eval()
        network = potential.representation
        self.config = potential.config.representation
        self.dtype = potential.dtype
        self.length = units.factor("length", potential.config.length_unit)
        self.layers = [self._layer(network, k) for k in range(self.config.n_layers)]
        self.checked = False
        with torch.no_grad():
            self.first_x = self.layers[0].message(network.embedding.weight)  # [max_z, 3 F]

    def _layer(self, network: PaiNN, k: int) -> _Layer:
        blocks = len(network.message)
        message: Any = network.message[k % blocks]
        update: Any = network.update[k % blocks]
        table = self._table(network, k)
        return _Layer(
            message.context,
            update.channel_mix.weight.detach(),
            update.context,
            table,
            table.rows.numpy(),
        )

    def _table(self, network: PaiNN, k: int) -> FilterTable:
        """The filter of layer k, computed in float64 from the weights as they are."""
        width = 3 * self.config.n_features
        start = 0 if self.config.shared_filters else k * width
        weight = network.filter.weight.detach().double()[start : start + width]
        bias = network.filter.bias.detach().double()[start : start + width]

        def filters(d: Tensor) -> Tensor:
            return nn.functional.linear(network.radial_basis(d), weight, bias) * network.cutoff_function(d)[:, None]

        return tabulate(filters, self.config.cutoff, dtype=self.dtype)

    def workspace(self, batch: AtomicBatch) -> Workspace:
        """Memory for batches with this graph."""
        return Workspace(batch, self.dtype, self.config.n_features, self.config.n_layers)

    def __call__(
        self, work: Workspace, positions: Tensor, properties: Sequence[str] = ("energy", "forces")
    ) -> dict[str, Tensor]:
        """Properties at positions [N, 3] Å; the same names, shapes and units as `Potential`.

        Results do not share memory with the workspace.
        """
        with torch.no_grad():
            batch = work.batch.with_positions(positions)
            if not self.checked:
                self._check(work, batch)
            self._geometry(work, positions)
            self._forward(work)
            s, v = work.tensors["s"], work.tensors["v"][-1]
            results = self.potential.results_of_heads(s, v, batch, properties)
            if "forces" in properties:
                self._backward(work)
                unit = units.factor("energy", self.potential.config.energy_unit) / self.length
                results["forces"] = work.tensors["force"] * unit
            return {name: results[name] for name in properties}

    def _check(self, work: Workspace, batch: AtomicBatch) -> None:
        """Compare with the reference once, on the first real positions, and refuse to go on if they disagree."""
        self.checked = True
        got = self(work, batch.positions, ("forces",))["forces"]
        expected = self.potential(batch, ("forces",))["forces"]
        error = float((got - expected).abs().max())
        allowed = AGREEMENT * max(1.0, float(expected.abs().max()))
        if error > allowed:  # NaN, which both then give, is for the guards of the caller
            raise PaiNNFastError(
                "the fast engine disagrees with the reference",
                where=f"model '{self.potential.config.name}'",
                got=f"forces off by {error:.2e} eV/Å",
                expected=f"at most {allowed:.0e}",
                fix='use backend="reference", and please report it',
            )

    def _geometry(self, work: Workspace, positions: Tensor) -> None:
        a, table = work.arrays, self.layers[0].table
        edge_geometry(
            positions.numpy(), a["row_ptr"], a["sender"], a["shift"], 1.0 / self.length, table.start, table.spacing,
            table.cutoff, a["direction"], a["distance"], a["knot"], a["fraction"],
        )  # fmt: skip

    def _forward(self, work: Workspace) -> None:
        t, a = work.tensors, work.arrays
        t["s"].copy_(self.potential.representation.embedding.weight[work.batch.numbers])
        t["v"][0].zero_()
        t["x"][0].copy_(self.first_x[work.batch.numbers])
        for k, layer in enumerate(self.layers):
            if k > 0:
                _mlp(layer.message, t["s"], t["h"][k], t["x"][k])
            t["v"][k + 1].copy_(t["v"][k])
            message_fwd(
                a["x"][k], a["v"][k], layer.rows, a["row_ptr"], a["sender"], a["direction"], a["knot"], a["fraction"],
                k > 0, a["s"], a["v"][k + 1],
            )  # fmt: skip
            torch.mm(t["v"][k + 1].flatten(0, 1), layer.channel_mix.T, out=t["vw"][k].flatten(0, 1))
            norm_fwd(a["s"], a["vw"][k], self.config.epsilon, a["context"][k], a["dot"][k])
            _mlp(layer.context, t["context"][k], t["k"][k], t["y"][k])
            gate_fwd(a["y"][k], a["vw"][k], a["dot"][k], True, a["s"], a["v"][k + 1])

    def _backward(self, work: Workspace) -> None:
        """Force [N, 3] per model unit of length, from the adjoint of the energy."""
        t, a = work.tensors, work.arrays
        t["force"].zero_()
        head: Any = self.potential.heads["energy"]
        t["gs"].copy_(_energy_adjoint(head.network, t["s"]))
        for k in range(self.config.n_layers - 1, -1, -1):
            layer, inner = self.layers[k], k < self.config.n_layers - 1
            gate_bwd(a["gs"], a["gv"], a["vw"][k], a["dot"][k], inner, a["gy"])
            _mlp_adjoint(layer.context, t["gy"], t["k"][k], t["g_context"])
            norm_bwd(a["gs"], a["gv"], a["y"][k], a["vw"][k], a["context"][k], a["g_context"], inner, a["g_vw"])
            gv, g_vw = t["gv"].flatten(0, 1), t["g_vw"].flatten(0, 1)
            torch.addmm(gv, g_vw, layer.channel_mix, beta=1.0 if inner else 0.0, out=gv)
            t["gv_in"].copy_(t["gv"])
            message_bwd(
                a["x"][k], a["v"][k], a["gs"], a["gv"], layer.rows, layer.table.spacing, a["row_ptr"], a["sender"],
                a["direction"], a["distance"], a["knot"], a["fraction"], k > 0, a["gx"], a["gv_in"], a["force"],
            )  # fmt: skip
            if k > 0:
                t["gs"] += _mlp_adjoint(layer.message, t["gx"], t["h"][k])
                t["gv"].copy_(t["gv_in"])


def _mlp(mlp: Any, x: Tensor, hidden: Tensor, out: Tensor) -> None:
    """Two dense layers into memory that is there; `hidden` keeps what goes into the activation."""
    torch.addmm(mlp[0].bias, x, mlp[0].weight.T, out=hidden)
    torch.addmm(mlp[2].bias, silu(hidden), mlp[2].weight.T, out=out)


def _mlp_adjoint(mlp: Any, g: Tensor, hidden: Tensor, out: Tensor | None = None) -> Tensor:
    """Adjoint of the input of `_mlp`."""
    return torch.mm(torch.ops.aten.silu_backward(g @ mlp[2].weight, hidden), mlp[0].weight, out=out)


def _energy_adjoint(mlp: nn.Sequential, s: Tensor) -> Tensor:
    """d(sum of atomic energies) / ds [N, F] for a network of any depth."""
    hidden = []
    x = s
    for module in mlp:
        if not isinstance(module, nn.Linear):
            hidden.append(x)
        x = module(x)
    g = torch.ones_like(x)
    for module in reversed(mlp):
        g = g @ module.weight if isinstance(module, nn.Linear) else torch.ops.aten.silu_backward(g, hidden.pop())
    return g
