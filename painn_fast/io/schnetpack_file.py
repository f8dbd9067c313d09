"""SchNetPack's files: `best_model`, `best_inference_model`, `.task`, `.ckpt` and state dicts, of versions 2.0 to 2.2.

SchNetPack is not needed, and nothing in a file is executed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from painn_fast.errors import MissingUnits, PaiNNFastError
from painn_fast.io.foreign_pickle import Record, read_torch_pickle
from painn_fast.io.schnetpack_modules import Description, Module, describe_model, tensors
from painn_fast.io.schnetpack_weights import Weights, build, describe_weights
from painn_fast.io.torch_archive import TensorRecord, TorchArchive
from painn_fast.nn import Potential
from painn_fast.nn.config import Head, head_name


def load_schnetpack(
    path: str | Path,
    *,
    energy_unit: str | None = None,
    length_unit: str = "Ang",
    dipole_unit: str | None = None,
    polarizability_unit: str | None = None,
    heads: Sequence[Head] | None = None,
) -> Potential:
    """Read a model that SchNetPack wrote.

    Args:
        path: a pickled model or task, a Lightning checkpoint or a state dict.
        energy_unit: unit of the energies that the model was trained on; no file tells. Needed if it gives energies.
        length_unit: unit of the positions.
        dipole_unit: of the dipoles; needed if it gives any.
        polarizability_unit: of the polarizabilities; needed if it gives any.
        heads: for a state dict with more than an energy: what the output modules with weights are, in order.

    Returns:
        A `Potential` in the file's dtype, in evaluation mode.

    Raises:
        MissingUnits: for units that are needed and not given.
        PaiNNFastError: for anything in the file that is not understood, which it names.
    """
    path = Path(path)
    with TorchArchive(path) as archive:
        content = read_torch_pickle(archive)
        description, records = _describe(content, str(path))
        weights = Weights({name: archive.tensor(record) for name, record in records.items()}, str(path))
    if description is None:
        description = describe_weights(weights, heads)
    elif heads is not None:
        raise PaiNNFastError("this file says what its heads are", where=path, got="heads", fix="leave them out")
    units = {"energy": energy_unit, "dipole": dipole_unit, "polarizability": polarizability_unit}
    given = {f"{name}_unit": unit for name, unit in units.items() if unit is not None} | {"length_unit": length_unit}
    missing = [name for name in map(head_name, description.heads.values()) if name in units and units[name] is None]
    if missing:
        name = missing[0]
        error = MissingUnits(
            f"missing unit of {name}", where=path, expected=f"{name}_unit, which SchNetPack's files do not tell",
            fix=f'say in which unit the model was trained, such as {name}_unit="{EXAMPLE_UNIT[name]}"',
        )  # fmt: skip
        error.names = tuple(missing)
        raise error
    return build(weights, description, given, path.stem, _provenance(path, description))


EXAMPLE_UNIT = {"energy": "kcal/mol", "dipole": "D", "polarizability": "Ang^3"}


def _provenance(path: Path, description: Description) -> dict[str, str]:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    origin = {"origin": f"SchNetPack {description.version}, file {path.name}, SHA-256 {digest}"}
    return origin | ({"assumed": description.assumed} if description.assumed else {})


def _describe(content: Any, where: str) -> tuple[Description | None, dict[str, TensorRecord]]:
    """What the model is, None for a plain state dict, and its weights by SchNetPack's names."""
    if isinstance(content, Record):
        model = Module(content, "", where)
        if model.short == "AtomisticTask":
            model = Module(model.inside("_modules").get("model"), "", where)
        return describe_model(model), tensors(model)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        weights = _plain(content["state_dict"], where, prefix="model.")
        settings = content.get("hyper_parameters")
        pickled = settings.get("model") if isinstance(settings, dict) else None
        return (describe_model(Module(pickled, "", where)) if isinstance(pickled, Record) else None), weights
    if isinstance(content, dict):
        return None, _plain(content, where)
    expected = "a model, a task, a checkpoint or a state dict"
    raise PaiNNFastError("not a SchNetPack model", where=where, got=type(content).__name__, expected=expected)


def _plain(state: dict[Any, Any], where: str, prefix: str = "") -> dict[str, TensorRecord]:
    """A state dict; names may begin with `model.`, as Lightning writes them."""
    if not prefix and state and all(isinstance(name, str) and name.startswith("model.") for name in state):
        prefix = "model."
    weights: dict[str, TensorRecord] = {}
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, TensorRecord):
            got = f"{name!r}: {type(value).__name__}"[:200]
            raise PaiNNFastError("not a state dict of SchNetPack", where=where, got=got)
        if name.startswith(prefix):
            weights[name.removeprefix(prefix)] = value
    if not any(name.startswith("representation.") for name in weights):
        got = ", ".join(list(weights)[:3])[:200] or "nothing"
        raise PaiNNFastError("not a state dict of SchNetPack", where=where, got=got, expected="representation...")
    return weights
