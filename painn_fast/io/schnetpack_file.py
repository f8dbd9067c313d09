"""SchNetPack's files: `best_model`, `best_inference_model`, `.task`, `.ckpt` and state dicts, of versions 2.0 to 2.2.

SchNetPack is not needed, and nothing in a file is executed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from painn_fast.errors import MissingUnits, PaiNNFastError, SuperfluousUnits, UnitsError, reading
from painn_fast.io.foreign_pickle import Record, read_torch_pickle
from painn_fast.io.schnetpack_modules import Activation, Description, Module, describe_model, tensors
from painn_fast.io.schnetpack_weights import Weights, build, describe_weights
from painn_fast.io.torch_archive import TensorRecord, TorchArchive
from painn_fast.nn import Potential
from painn_fast.nn.config import ElectronicConfig, Head, RepresentationConfig, head_name
from painn_fast.settings import Settings

MAX_DEPTH = 4
"""Of dictionaries around a state dict, and of classes around a model."""
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model")
"""Names under which training scripts keep a model; Lightning's is the first."""
OTHER_WRAPPERS = ("weights", "checkpoint", "best_model", "ema_state_dict", "ema_model", "ema", "net", "network")
"""Names of a state dict in files that have none of the first."""
COUNTER = "n_averaged"
"""Beside the weights that torch.optim.swa_utils has averaged."""
WRAPPING_CLASSES = {"AtomisticTask": "model", "DataParallel": "module", "DistributedDataParallel": "module"}
TRANSPARENT = {"_orig_mod", "module"}
"""Parts of names that `torch.compile` and the parallel wrappers of torch put in; none is a name of SchNetPack's."""
REPRESENTATION = re.compile(r"((?:model\.){0,4})representation\.")


def load_schnetpack(
    path: str | Path,
    *,
    energy_unit: str | None = None,
    length_unit: str = "Ang",
    dipole_unit: str | None = None,
    polarizability_unit: str | None = None,
    heads: Sequence[Head] | None = None,
    epsilon: float | None = None,
) -> Potential:
    """Read a model that SchNetPack wrote.

    Args:
        path: a pickled model or task, a Lightning checkpoint or a state dict.
        energy_unit: unit of the energies that the model was trained on, which no file contains. Needed if it gives any.
        length_unit: unit of the positions.
        dipole_unit: of the dipoles; needed if it gives any.
        polarizability_unit: of the polarizabilities; needed if it gives any.
        heads: for a state dict with more than an energy: what the output modules with weights are, in order.
        epsilon: for a state dict of a network with another epsilon than SchNetPack's 1e-8.

    Returns:
        A `Potential` in the file's dtype, in evaluation mode.

    Raises:
        MissingUnits: for units that are needed and not given.
        SuperfluousUnits: for units of properties that the model does not give.
        PaiNNFastError: for anything in the file that is not understood, which it names.

    Example:
        >>> from painn_fast.io import convert, load_schnetpack
        >>> from painn_fast.nn import DipoleHead, EnergyHead, PolarizabilityHead
        >>> path = convert("ethanol", "weights.pt")
        >>> heads = [EnergyHead(), DipoleHead(), PolarizabilityHead()]
        >>> units = {"energy_unit": "eV", "dipole_unit": "e Ang", "polarizability_unit": "Ang^3"}
        >>> load_schnetpack(path, heads=heads, **units).properties[0]
        'energy'
    """
    path = Path(path)
    with TorchArchive(path) as archive:
        content = read_torch_pickle(archive)
        description, records = _describe(content, str(path))
        weights = Weights({name: archive.tensor(record) for name, record in records.items()}, str(path))
        noted = {} if description is not None else _noted(archive)
    if description is None:
        noted |= {} if epsilon is None else {"epsilon": epsilon}
        description = describe_weights(weights, heads, **noted)
    elif heads is not None or epsilon is not None:
        got = "heads" if heads is not None else "epsilon"
        raise PaiNNFastError("this file contains its heads and epsilon", where=path, got=got, fix="leave it out")
    units = {"energy": energy_unit, "dipole": dipole_unit, "polarizability": polarizability_unit}
    given = {name: unit for name, unit in units.items() if unit is not None}
    _check_units(given, [head_name(head) for head in description.heads.values()], path)
    own_units = {f"{name}_unit": unit for name, unit in given.items()} | {"length_unit": length_unit}
    return build(weights, description, own_units, path.stem, _provenance(path, description))


EXAMPLE_UNIT = {"energy": "kcal/mol", "dipole": "D", "polarizability": "Ang^3"}


def _check_units(given: dict[str, str], heads: list[str], path: Path) -> None:
    """Raise PaiNNFastError unless there is a unit for each head that needs one, and for no other."""
    missing = tuple(name for name in heads if name in EXAMPLE_UNIT.keys() - given.keys())
    superfluous = tuple(name for name in given if name not in heads)
    error: UnitsError | None = None
    if missing:
        name = missing[0]
        error = MissingUnits(
            f"missing unit of {name}", where=path, expected=f"{name}_unit, which SchNetPack's files do not contain",
            fix=f'give the unit in which the model was trained, such as {name}_unit="{EXAMPLE_UNIT[name]}"',
        )  # fmt: skip
    elif superfluous:
        error = SuperfluousUnits(
            "a unit of a property that the model does not give", where=path, fix="leave it out",
            got=", ".join(f"{name}_unit" for name in superfluous), expected=f"units of {', '.join(heads)}",
        )  # fmt: skip
    if error is not None:
        error.names = missing or superfluous
        raise error


NOTE = "painn_fast.json"


class Note(Settings):
    """What `painn-fast convert` writes beside a state dict, which does not contain it."""

    epsilon: float = Field(ge=1e-30, le=1.0)
    activation: Activation
    embedding_activation: Activation

    @classmethod
    def of(cls, config: RepresentationConfig) -> Note:
        """Of a network."""
        embedding = config.charge_embedding or config.spin_embedding or ElectronicConfig()
        return cls(epsilon=config.epsilon, activation=config.activation, embedding_activation=embedding.activation)


def _noted(archive: TorchArchive) -> dict[str, Any]:
    """The note beside a state dict; SchNetPack's own files have none."""
    text = archive.note(NOTE)
    if text is None:
        return {}
    with reading("a damaged note beside a state dict", f"{archive.path}, {NOTE}"):
        return Note.parse(json.loads(text), where=f"{archive.path}, {NOTE}").model_dump()


def _provenance(path: Path, description: Description) -> dict[str, str]:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    origin = {"origin": f"SchNetPack {description.version}, file {path.name}, SHA-256 {digest}"}
    return origin | ({"assumed": description.assumed} if description.assumed else {})


def _describe(content: Any, where: str) -> tuple[Description | None, dict[str, TensorRecord]]:
    """What the model is, None for a plain state dict, and its weights by SchNetPack's names."""
    found = list(_models(content, MAX_DEPTH, set()))
    if not found and isinstance(content, dict):
        got = ", ".join(str(name)[:100] for name in list(content)[:3]) or "nothing"
        raise PaiNNFastError("not a state dict of SchNetPack", where=where, got=got, expected="representation...")
    if len(found) != 1:
        expected = "a model, a task, a checkpoint or a state dict"
        got = f"{len(found)} models" if found else type(content).__name__
        raise PaiNNFastError("not a SchNetPack model", where=where, got=got, expected=expected)
    inner, around = found[0]
    if isinstance(inner, Record):
        model = _unwrapped(Module(inner, "", where))
        return describe_model(model), tensors(model)
    settings = around.get("hyper_parameters")
    pickled = settings.get("model") if isinstance(settings, dict) else None
    weights = _weights(inner, where)
    return (describe_model(Module(pickled, "", where)) if isinstance(pickled, Record) else None), weights


def _models(content: Any, depth: int, seen: set[int]) -> Iterator[tuple[Record | dict[Any, Any], dict[Any, Any]]]:
    """Pickled models and state dicts in what was saved, each with the dictionary around it.

    A training script keeps them under one name or another, beside the epoch and the state of the optimizer.
    """
    state = isinstance(content, dict) and any(isinstance(value, TensorRecord) for value in content.values())
    if state or isinstance(content, Record):
        yield content, {}
    elif isinstance(content, dict) and depth and id(content) not in seen:
        seen.add(id(content))  # a pickle may hold a dictionary that holds itself
        for names in (WRAPPERS, OTHER_WRAPPERS):
            found = [pair for name in names for pair in _models(content.get(name), depth - 1, seen)]
            yield from ((inner, around or content) for inner, around in found)
            if found:
                break


def _unwrapped(model: Module) -> Module:
    """The model in a task, or in what runs copies of it on several devices."""
    for _ in range(MAX_DEPTH):
        if model.short not in WRAPPING_CLASSES:
            break
        model = model.child(WRAPPING_CLASSES[model.short], named=False)
    return model


def _weights(state: dict[Any, Any], where: str) -> dict[str, TensorRecord]:
    """A state dict by SchNetPack's names, whatever wrapped the model; entries beside the model are left out."""
    state = {name: value for name, value in state.items() if name != COUNTER}
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, TensorRecord):
            got = f"{repr(name)[:100]}: {type(value).__name__}"
            raise PaiNNFastError("not a state dict of SchNetPack", where=where, got=got)
    bare = {name: ".".join(part for part in name.split(".") if part not in TRANSPARENT) for name in state}
    prefixes = {match[1] for name in bare.values() if (match := REPRESENTATION.match(name))}
    if len(prefixes) != 1:
        got = ", ".join(name[:100] for name in list(state)[:3]) or "nothing"
        what = "a state dict of several models" if prefixes else "not a state dict of SchNetPack"
        raise PaiNNFastError(what, where=where, got=got, expected="representation...")
    prefix = prefixes.pop()
    weights: dict[str, TensorRecord] = {}
    for name, plain in bare.items():
        if plain.startswith(prefix) and weights.setdefault(plain.removeprefix(prefix), state[name]) is not state[name]:
            raise PaiNNFastError("a state dict with two entries for one weight", where=where, got=name[:200])
    return weights
