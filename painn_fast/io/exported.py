"""A model as a program of `torch.export`, for programs that link PyTorch and know nothing of this package."""

from __future__ import annotations

import copy
import json
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from painn_fast.errors import PaiNNFastError
from painn_fast.graph import AtomicBatch
from painn_fast.io.model_file import fingerprint
from painn_fast.nn import Potential
from painn_fast.nn.defined import defined, depends_on_cell
from painn_fast.runtime.atomic import atomic_write

INPUTS = (
    "numbers",
    "positions",
    "molecule",
    "receiver",
    "sender",
    "shift",
    "cell",
    "total_charge",
    "spin_multiplicity",
)
"""Arguments of the program, as fields of `AtomicBatch`."""
USUAL = ("energy", "forces", "dipole", "polarizability")
PER_ATOM = ("energies", "forces", "charges")
METADATA = "painn-fast.json"
"""Beside the program: what its numbers mean."""
COMPILERS = ("c++", "g++", "clang++")


class Program(nn.Module):
    """The reference as a function of tensors alone.

    Args:
        potential: a model; its network is copied.
        properties: names of the results, in their order.
    """

    def __init__(self, potential: Potential, properties: Sequence[str]) -> None:
        super().__init__()
        self.potential = copy.deepcopy(potential).eval().requires_grad_(False)
        self.potential.backend = "reference"
        self.properties = tuple(properties)

    def forward(
        self,
        numbers: Tensor,  # [N] int64
        positions: Tensor,  # [N, 3] float64, Å
        molecule: Tensor,  # [N] int64, ascending from 0
        receiver: Tensor,  # [E] int64
        sender: Tensor,  # [E] int64
        shift: Tensor,  # [E, 3] float64, Å
        cell: Tensor,  # [M, 3, 3] float64, Å, rows are the vectors; zeros without one
        total_charge: Tensor,  # [M] float64, e
        spin_multiplicity: Tensor,  # [M] float64
    ) -> dict[str, Tensor]:
        """Results as `Potential` has them; pairs beyond the cut-off contribute nothing, and each needs its opposite."""
        pbc = (cell != 0).any(dim=2)
        n_atoms = torch.zeros_like(total_charge, dtype=torch.int64).index_add(0, molecule, torch.ones_like(molecule))
        batch = AtomicBatch(
            numbers, positions, molecule, n_atoms, receiver, sender, shift, receiver, cell, pbc, total_charge,
            spin_multiplicity,
        )  # fmt: skip
        results = self.potential._forward(batch, self.properties, create_graph=False)
        for name in filter(depends_on_cell, self.properties):
            has = defined(name, pbc)[molecule if name in PER_ATOM else slice(None)]
            value = results[name]
            results[name] = torch.where(has.view(-1, *[1] * (value.ndim - 1)), value, torch.nan)
        return {name: value.detach() for name, value in results.items()}


def check_properties(potential: Potential, properties: Sequence[str] | None) -> tuple[str, ...]:
    """Names of results: the usual ones that a model has, or those that are asked for.

    Raises:
        PaiNNFastError: for one that the model does not have.
    """
    known = potential.properties
    chosen = tuple(properties or [name for name in USUAL if name in known] or known)
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise PaiNNFastError("the model does not give these", got=", ".join(unknown), expected=" | ".join(known))
    return chosen


def export_program(potential: Potential, properties: Sequence[str] | None = None) -> torch.export.ExportedProgram:
    """The reference as an exported program, forces and stress included, for any number of atoms, edges and molecules.

    Args:
        potential: a model.
        properties: names of the results; by default energy, forces, dipole and polarizability as far as it has them.

    Returns:
        A program that takes the tensors `INPUTS` and gives a dictionary of results.

    Raises:
        PaiNNFastError: for a property that the model does not have.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    program = Program(potential, check_properties(potential, properties))
    example = _example(potential)
    atoms, edges, molecules = Dim("atoms", min=2), Dim("edges", min=2), Dim("molecules", min=1)
    first = [{0: atoms}] * 3 + [{0: edges}] * 3 + [{0: molecules}] * 3
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")  # of torch's own code
        # derivatives become operations of a graph first: export itself does not follow torch.autograd.grad
        graph = make_fx(program, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*example)
        return torch.export.export(graph, example, dynamic_shapes=tuple(first), strict=False)


def save_program(
    potential: Potential, target: Path, properties: Sequence[str] | None = None, *, compiled: bool = False
) -> None:
    """Write an exported program, or its code compiled for this processor by AOTInductor.

    Args:
        potential: a model, on the device that the program is for.
        target: a new .pt2 file.
        properties: as in `export_program`.
        compiled: compile it; loads with `torch._inductor.aoti_load_package`, or in C++ without Python.

    Raises:
        PaiNNFastError: as `export_program`, and without a C++ compiler.
    """
    if compiled and not any(map(shutil.which, COMPILERS)):
        raise PaiNNFastError("no C++ compiler", expected=" or ".join(COMPILERS), fix="install one, such as g++")
    names = check_properties(potential, properties)
    program = export_program(potential, names)
    about = _about(potential, names)
    with atomic_write(target) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not compiled:
            torch.export.save(program, temporary, extra_files={METADATA: json.dumps(about, indent=2)})
            return
        package = temporary.with_suffix(".pt2")  # the only ending that it takes
        try:
            metadata = {name: json.dumps(value) for name, value in about.items()}
            options = {"aot_inductor.metadata": metadata}
            torch._inductor.aoti_compile_and_package(program, package_path=str(package), inductor_configs=options)
            package.replace(temporary)
        finally:
            package.unlink(missing_ok=True)


def _about(potential: Potential, names: Sequence[str]) -> dict[str, Any]:
    units = {"positions": "Ang", "energy": "eV", "energies": "eV", "forces": "eV/Ang", "stress": "eV/Ang^3"}
    units |= {"dipole": "e Ang", "charges": "e", "polarizability": "Ang^3"}
    return {
        "model": potential.config.name,
        "sha256": fingerprint(potential.state_dict()),
        "inputs": INPUTS,
        "results": list(names),
        "units": units,
        "cutoff": potential.cutoff,
        "elements": potential.config.elements,
        "dtype": str(potential.dtype).removeprefix("torch."),
    }


def _example(potential: Potential) -> tuple[Tensor, ...]:
    """Two molecules of different sizes, which no dimension of the program is to remember."""
    known = potential.config.elements or (1,)
    numbers = torch.full((5,), known[0])
    positions = torch.eye(5, 3, dtype=torch.float64) * 1.1 + torch.arange(5.0)[:, None] / 7
    pairs = [(i, j) for own in (range(3), range(3, 5)) for i in own for j in own if i != j]
    receiver, sender = torch.tensor(pairs).T.contiguous()
    of_molecules = (torch.zeros(2, 3, 3), torch.zeros(2), torch.ones(2))
    example = (
        numbers, positions, torch.tensor([0, 0, 0, 1, 1]), receiver, sender, torch.zeros(len(pairs), 3), *of_molecules
    )  # fmt: skip
    doubled = (one.double() if one.is_floating_point() else one for one in example)
    return tuple(one.to(potential.device) for one in doubled)
