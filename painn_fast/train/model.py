"""The model that a training begins with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from painn_fast import units
from painn_fast.errors import PaiNNFastError, SuperfluousUnits
from painn_fast.io import load
from painn_fast.io.find import declares_units
from painn_fast.nn import Potential, PotentialConfig, ScalarHead
from painn_fast.nn.config import head_name
from painn_fast.runtime.progress import warn
from painn_fast.train.data import Dataset
from painn_fast.train.loss import set_references
from painn_fast.train.settings import TrainSettings, labels_of


def first_model(settings: TrainSettings, data: Dataset, elements: tuple[int, ...]) -> Potential:
    """A model with random weights and the means of the data, or one that goes on from another model.

    Args:
        settings: seed, sizes, heads, model to start from.
        data: training structures.
        elements: atomic numbers of all structures.

    Raises:
        PaiNNFastError: if the settings ask for another representation, or other units, than those of the model to start
            from, and as `painn_fast.load`. Only epsilon, which has no weights, may be another, where the settings name
            it.
    """
    torch.manual_seed(settings.seed)
    if settings.start_from is None:
        model = Potential(_config(settings, PotentialConfig(representation=settings.representation), elements))
        model.to(_dtype(settings))
        set_references(model, data)
        _keep_unlabelled(model, data, known=())
        return model
    origin = _origin(settings.start_from, settings)
    theirs = origin.config
    differ = {}
    if "representation" in settings.model_fields_set:
        differ = {
            name: f"{getattr(settings.representation, name)} instead of {value}"
            for name, value in theirs.representation
            if getattr(settings.representation, name) != value and name != "epsilon"
        }
        if "epsilon" in settings.representation.model_fields_set:
            smooth = theirs.representation.model_copy(update={"epsilon": settings.representation.epsilon})
            theirs = theirs.model_copy(update={"representation": smooth})
    if differ:
        raise PaiNNFastError(
            "another representation than that of the model to start from",
            where=settings.start_from,
            got=", ".join(f"{name} {change}" for name, change in differ.items()),
            fix="leave [representation] out of the settings",
        )
    known = tuple(sorted({*elements, *(theirs.elements or ())}))
    model = Potential(_config(settings, theirs, known))
    shared = {f"heads.{head_name(head)}." for head in settings.heads if head in theirs.heads}
    kept = {
        name: value
        for name, value in origin.state_dict().items()
        if name.startswith("representation.") or any(name.startswith(head) for head in shared)
    }
    model.load_state_dict(kept, strict=False)
    model.to(_dtype(settings))
    set_references(model, data, kept=tuple(head.removeprefix("heads.").removesuffix(".") for head in shared))
    if settings.freeze_representation:
        model.representation.requires_grad_(False)
    _keep_unlabelled(model, data, known=tuple(shared))
    return model


def _keep_unlabelled(model: Potential, data: Dataset, known: tuple[str, ...]) -> None:
    """Leave heads as they are that no label trains: weight decay alone would make them smaller."""
    for head in model.config.heads:
        name, labels = head_name(head), labels_of((head,))
        if any(data.labelled(label) for label in labels):
            continue
        if f"heads.{name}." not in known:
            warn(f"head {name} keeps random weights: no training structure has {' or '.join(labels)}")
        model.heads[name].requires_grad_(False)


def _origin(name: str, settings: TrainSettings) -> Potential:
    """The model to start from; `model_units` and `start_from_heads` are what a SchNetPack file does not contain."""
    if not declares_units(name):
        try:
            return _load_foreign(name, {str(kind): unit for kind, unit in settings.model_units.items()}, settings)
        except PaiNNFastError as error:
            raise _in_settings(error) from None
    if settings.start_from_heads is not None:
        raise PaiNNFastError("this file contains its heads", where="start_from_heads", fix="leave it out")
    origin = load(name)
    for kind, unit in settings.model_units.items():
        own = getattr(origin.config, f"{kind}_unit")
        if units.factor(kind, unit) != units.factor(kind, own):
            raise PaiNNFastError(
                "the weights of the model to start from work in other units",
                where=f"model_units.{kind}",
                got=unit,
                expected=own,
                fix="leave model_units out",
            )
    return origin


def _load_foreign(name: str, units_of: dict[str, str], settings: TrainSettings) -> Potential:
    options: dict[str, Any] = {f"{kind}_unit": unit for kind, unit in units_of.items()}
    try:
        return load(name, **options, heads=settings.start_from_heads)
    except SuperfluousUnits as error:  # of heads that this training adds
        used = {kind: unit for kind, unit in units_of.items() if kind not in error.names}
        return _load_foreign(name, used, settings)


def _in_settings(error: PaiNNFastError) -> PaiNNFastError:
    """The same with the keys of the settings instead of the arguments of `painn_fast.load`."""
    kind = error.what.removeprefix("missing unit of ")
    if kind != error.what:
        fix = f'declare the unit in which it was trained: model_units = {{ {kind} = "..." }} in the settings'
        return error.replaced(expected=f"model_units.{kind}", fix=fix)
    if error.fix is not None and "heads=" in error.fix:
        fix = 'name its heads, in order: start_from_heads = "energy,dipole" in the settings'
        return error.replaced(fix=fix)
    return error


def _config(settings: TrainSettings, basis: PotentialConfig, elements: tuple[int, ...]) -> PotentialConfig:
    own: dict[str, Any] = {f"{kind}_unit": unit for kind, unit in settings.model_units.items()}
    own |= {"heads": settings.heads, "elements": elements, "name": settings.name, "provenance": {}}
    return PotentialConfig.parse({**basis.model_dump(), **own}, where="heads")


def _dtype(settings: TrainSettings) -> torch.dtype:
    return torch.float64 if settings.precision == "float64" else torch.float32


def check_units_of_scalars(settings: TrainSettings, data: Dataset) -> None:
    """A scalar that is no energy is learned in the unit of its labels, so its head must name that one."""
    for head in settings.heads:
        own = data.units.get(head.name) if isinstance(head, ScalarHead) else None
        if isinstance(head, ScalarHead) and own is not None:
            expected = head.unit if units.energy_size(head.unit) is None else "eV"
            if own.casefold() != expected.strip().casefold():
                raise PaiNNFastError(
                    f"labels of {head.name} are in another unit than its head",
                    where=", ".join(data.files),
                    got=own,
                    expected=head.unit,
                    fix=f'change unit of the head, or set units = {{ {head.name} = "{head.unit}" }} if it is that',
                )


def elements_of(data: dict[str, Dataset]) -> tuple[int, ...]:
    """Atomic numbers of all structures."""
    return tuple(np.unique(np.concatenate([part.numbers for part in data.values()])).tolist())


def use_precision(settings: TrainSettings) -> None:
    """Products of torch on GPUs as the settings have them."""
    torch.backends.cuda.matmul.allow_tf32 = settings.precision == "tf32"


def output_file(settings: TrainSettings) -> Path:
    """The trained model."""
    return Path(settings.output) / f"{settings.name}.safetensors"
