"""Evaluate a model on ASE structures: a list of Atoms and property names in, NumPy arrays out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import ase
import numpy as np
import torch
from torch import Tensor

from painn_fast.engine import check_backend
from painn_fast.engine.check import require_finite
from painn_fast.ensemble import SPREAD, VOIGT, Several, evaluator_of
from painn_fast.errors import PaiNNFastError
from painn_fast.graph import AtomicBatch, batch_atoms
from painn_fast.graph.batch import OF_MOLECULES, require_structures
from painn_fast.graph.kept import KeptGraph, Workspaces, is_small
from painn_fast.graph.neighbors import Edges
from painn_fast.graph.skin import SKIN
from painn_fast.nn import Potential, hessian
from painn_fast.nn.defined import defined, depends_on_cell, undefined_entry
from painn_fast.runtime.progress import warn

ATOMS_PER_BATCH = 1024
PER_ATOM = {f"{name}{of}" for name in ("energies", "forces", "charges") for of in ("", SPREAD)}
SIMPLE = {f"{name}{of}" for name in ("energy", "energies", "forces") for of in ("", SPREAD)}
"""Those that every model with an engine has, and every structure; spreads, ensembles of these."""
NUMBERED = re.compile(r"(?:structure|molecule) (\d+)")
"""The structure of a batch that an error names."""
_warned: WeakSet[Potential] = WeakSet()
"""Models whose ignored charges and spins have been reported."""
_kept: WeakKeyDictionary[Potential | Several, KeptGraph] = WeakKeyDictionary()
"""The graph of the structure that each model evaluated last alone."""


def evaluate(
    model: Potential | Several | str | Path,
    molecules: Sequence[ase.Atoms],
    properties: Sequence[str] = ("energy", "forces"),
    *,
    backend: str = "auto",
    atoms_per_batch: int = ATOMS_PER_BATCH,
    **load_options: Any,
) -> dict[str, list[Any]]:
    """Properties of many structures, batched.

    Args:
        model: a potential, an ensemble or a sum of them, or what `painn_fast.load` takes.
        molecules: `ase.Atoms` or subclasses, different ones welcome; they are not changed.
        properties: names out of `model.properties`, and "hessian"; of an ensemble also spreads, "forces_spread".
        backend: "auto", "fused" (the engine, an error where it cannot run the model) or "reference".
        atoms_per_batch: upper limit of atoms evaluated at once; a larger structure makes a batch of its own.
        load_options: further arguments of `painn_fast.load`, such as energy_unit.

    Returns:
        Property name to a list with one entry a structure, in eV, Å, e: energy float, energies [n], forces [n, 3],
        stress [6] (ASE sign and Voigt order, eV/Å³), dipole [3] e Å, charges [n] e, polarizability [3, 3] Å³,
        hessian [3 n, 3 n] eV/Å², other scalars float. NaN where a property is not defined for a structure but is for
        others, such as the stress of a molecule beside crystals.

    Raises:
        PaiNNFastError: for a structure or a property that the model cannot handle, and results that are not finite;
            names the structure by its index in `molecules`.

    Example:
        >>> import painn_fast as pf
        >>> from ase.build import molecule
        >>> out = pf.evaluate("ethanol", [molecule("CH3CH2OH"), molecule("CH3OH")], ["energy", "forces"])
        >>> round(out["energy"][0], 1)  # eV
        -4211.2
        >>> [forces.shape for forces in out["forces"]]
        [(9, 3), (6, 3)]
    """
    check_backend(backend)
    properties, molecules = _listed(properties, molecules, atoms_per_batch)
    potential = loaded(model, load_options)
    results: dict[str, list[Any]] = {name: [None] * len(molecules) for name in properties}
    for rows, names in _alike(molecules, properties):
        for name in set(properties) - set(names):
            for row in rows:
                results[name][row] = undefined_entry(name, len(molecules[row]))
        for group in _groups(molecules, rows, atoms_per_batch):
            chosen = [molecules[row] for row in group]
            with _indices_of_the_caller(group):
                if len(chosen) == 1 and _is_kept(chosen[0], potential):
                    kept = _kept.setdefault(potential, KeptGraph())
                    values = evaluate_again(potential, chosen[0], names, kept, backend=backend)
                else:
                    batch = batch_atoms(chosen, potential.cutoff).to(potential.device)
                    if any(atoms.info for atoms in chosen):
                        report_ignored_charges(potential, batch)
                    values = evaluate_batch(potential, batch, names, backend=backend)
            for name, entries in values.items():
                for row, entry in zip(group, entries, strict=True):
                    results[name][row] = entry
    return results


def evaluate_again(
    model: Potential | Several, atoms: ase.Atoms, properties: Sequence[str], kept: KeptGraph, *, backend: str = "auto"
) -> dict[str, list[Any]]:
    """As `evaluate` for one structure that may be that of the last call at other positions; errors name it 0.

    Args:
        model: a potential, an ensemble or a sum.
        atoms: the structure.
        properties: as in `evaluate`.
        kept: its graph and what engines keep for it, left for the next call.
        backend: as in `evaluate`.
    """

    def skin() -> float:
        return SKIN if _skips_far_pairs(model, properties, backend) else 0.0

    builds = kept.builds
    batch, workspaces = kept.batch(atoms, model.cutoff, model.device, skin)
    if kept.builds != builds and atoms.info:
        report_ignored_charges(model, batch)
    return evaluate_batch(model, batch, properties, backend=backend, kept=workspaces)


def _is_kept(atoms: ase.Atoms, model: Potential | Several) -> bool:
    """Whether the graph of a structure alone is left for the next call: on a GPU memory for large ones is short."""
    return model.device.type == "cpu" or is_small(atoms)


def _skips_far_pairs(model: Potential | Several, properties: Sequence[str], backend: str) -> bool:
    """Whether pairs beyond the cut-off leave the results as they are, bit for bit: on a CPU the engine skips them."""
    if model.device.type != "cpu" or "hessian" in properties:
        return False
    return evaluator_of(model, backend, properties).engine is not None


def _listed(properties: Any, molecules: Any, atoms_per_batch: Any) -> tuple[list[str], list[ase.Atoms]]:
    """Properties and structures as lists, after a check of their types."""
    if isinstance(properties, str):
        raise PaiNNFastError("one name where a list is expected", got=repr(properties), fix=f"write [{properties!r}]")
    if not isinstance(properties, Iterable):
        raise PaiNNFastError("not a list of properties", got=type(properties).__name__, expected="names in a list")
    if isinstance(atoms_per_batch, bool) or not isinstance(atoms_per_batch, int | np.integer) or atoms_per_batch < 1:
        raise PaiNNFastError(
            "not a number of atoms", where="atoms_per_batch", got=repr(atoms_per_batch), expected="1 or more"
        )
    if isinstance(molecules, ase.Atoms):
        raise PaiNNFastError("one structure where a list is expected", fix="write evaluate(model, [atoms])")
    if isinstance(molecules, str) or not isinstance(molecules, Iterable):
        raise PaiNNFastError("not a list of structures", got=type(molecules).__name__, expected="ase.Atoms in a list")
    listed = list(molecules)
    require_structures(listed)
    return list(properties), listed


@contextmanager
def _indices_of_the_caller(rows: Sequence[int]) -> Iterator[None]:
    """Errors name a structure by its index in a batch; here by its index `rows[index]` in the caller's list."""
    try:
        yield
    except PaiNNFastError as error:
        where, number = NUMBERED.subn(lambda match: f"structure {rows[int(match[1])]}", str(error.where), count=1)
        if not number:
            raise
        raise error.replaced(where=where) from error.__cause__


def report_ignored_charges(model: Potential | Several, batch: AtomicBatch) -> None:
    """Warn, once a model, of a total charge or a spin multiplicity that its network does not use."""
    for potential in model.members if isinstance(model, Several) else [model]:
        network = potential.config.representation
        for kind, values, usual, used in (
            ("total charge", batch.total_charge, 0.0, network.charge_embedding),
            ("spin multiplicity", batch.spin_multiplicity, 1.0, network.spin_embedding),
        ):
            if used is None and potential not in _warned and bool((values != usual).any()):
                _warned.add(potential)
                warn(
                    f"a {kind} of {float(values[values != usual][0]):g} is ignored by the network of model "
                    f"'{potential.config.name}', which has no embedding of it: energies and forces are those without"
                )


def _alike(molecules: Sequence[ase.Atoms], properties: Sequence[str]) -> Iterator[tuple[Sequence[int], list[str]]]:
    """Rows of structures with the properties that they have: all at once, unless only some of them have one.

    A property that no structure has is requested all the same, so that the error of the model gives the reason.
    """
    rows = range(len(molecules))
    if len(molecules) < 2 or not any(map(depends_on_cell, properties)):
        yield rows, list(properties)
        return
    pbc = np.array([atoms.pbc for atoms in molecules])
    has = {name: defined(name, pbc) for name in properties}
    has = {name: values if values.any() else ~values for name, values in has.items()}
    table = np.stack(list(has.values()), axis=1)  # [M, properties]
    for kind in np.unique(table, axis=0):
        names = [name for name, asked in zip(properties, kind, strict=True) if asked]
        yield np.flatnonzero((table == kind).all(axis=1)).tolist(), names


def evaluate_batch(
    potential: Potential | Several, batch: AtomicBatch, properties: Sequence[str], *, backend: str = "auto",
    kept: Workspaces | None = None,
) -> dict[str, list[Any]]:  # fmt: skip
    """As `evaluate`, for a batch; `kept` as `Evaluator` has it."""
    direct = [name for name in properties if name != "hessian"]
    results: dict[str, list[Any]] = {}
    if direct:
        if isinstance(potential, Several):
            potential.require(direct)
        evaluator = evaluator_of(potential, backend, direct)
        if evaluator.engine is None or not SIMPLE.issuperset(direct):  # an engine checks elements with the graph
            potential.check(batch, direct)
        values = evaluator(batch, direct, finite=True, kept=kept)
        results = {name: _split(name, value, batch) for name, value in values.items()}
    if "hessian" in properties:
        results["hessian"] = []
        for m, one in enumerate(_single(batch)):
            with _indices_of_the_caller([m]):
                matrix = _hessian(potential, one)
                require_finite({"hessian": matrix.reshape(one.n_total, -1)}, one, one.positions)
            results["hessian"].append(matrix.cpu().numpy())
    return {name: results[name] for name in properties}


def _hessian(model: Potential | Several, one: AtomicBatch) -> Tensor:
    if isinstance(model, Potential):
        return hessian(model, one)
    model.check(one, ["hessian"])
    return model.combined({"hessian": torch.stack([hessian(member, one) for member in model.members])}, ["hessian"])[
        "hessian"
    ]


def loaded(model: Potential | Several | str | Path, load_options: dict[str, Any]) -> Potential | Several:
    """A model as it is, or from its file; PaiNNFastError for options of a model that is loaded."""
    if isinstance(model, Potential | Several):
        if load_options:
            raise PaiNNFastError("a model that is loaded takes no more options", got=", ".join(load_options))
        return model
    from painn_fast.io import load

    return load(model, **load_options)


def _groups(molecules: Sequence[ase.Atoms], rows: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Rows of structures of at most `limit` atoms together."""
    group: list[int] = []
    total = 0
    for row in rows:
        size = len(molecules[row])
        if group and total + size > limit:
            yield group
            group, total = [], 0
        group.append(row)
        total += size
    yield group  # empty only if nothing was given, which batch_atoms refuses


def _split(name: str, value: Tensor, batch: AtomicBatch) -> list[Any]:
    """One entry a molecule: arrays for tensors and atoms, floats for scalars."""
    array = value.numpy(force=True)
    if name in PER_ATOM and batch.n_molecules == 1:
        return [array]
    if name in PER_ATOM:
        ends = np.cumsum(batch.n_atoms.cpu().numpy()).tolist()
        return [array[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    if name == "stress":
        return list(array[:, *VOIGT])
    return list(array) if array.ndim > 1 else array.tolist()


def _single(batch: AtomicBatch) -> Iterator[AtomicBatch]:
    """The molecules of a batch, each as a batch of its own."""
    ends = torch.cumsum(batch.n_atoms, 0).tolist()
    for m, end in enumerate(ends):
        start = end - int(batch.n_atoms[m])
        first, last = int(batch.row_ptr[start]), int(batch.row_ptr[end])
        own, edges = slice(m, m + 1), slice(first, last)
        i, j, mirror = batch.receiver[edges] - start, batch.sender[edges] - start, batch.mirror[edges] - first
        yield AtomicBatch.of(
            batch.n_atoms[own],
            Edges(i, j, batch.shift[edges], mirror),
            numbers=batch.numbers[start:end],
            positions=batch.positions[start:end],
            **{name: getattr(batch, name)[own] for name in OF_MOLECULES},
        )
