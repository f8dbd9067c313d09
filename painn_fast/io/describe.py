"""Description of a model file as plain data."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ase.data import chemical_symbols

from painn_fast.engine.paths import paths
from painn_fast.errors import MissingUnits
from painn_fast.io.find import find
from painn_fast.io.load import load
from painn_fast.io.minima import without_minima
from painn_fast.nn import Potential
from painn_fast.units import KINDS


def describe(name_or_path: str | Path, **load_options: Any) -> dict[str, Any]:
    """Configuration, units, parameters and origin of a model.

    Args:
        name_or_path: what `painn_fast.load` takes.
        load_options: further arguments of `painn_fast.load`, such as energy_unit.

    Returns:
        JSON-able; `cutoff` in Å, `sha256` of the file's bytes, `elements` as symbols or None if the file does not
        state them, `model_card` the Markdown file beside the model or None, units in `trained_in` None if neither the
        file nor `load_options` state them, `paths` by device and purpose with the way that evaluates the model and why.

    Raises:
        PaiNNFastError: as `painn_fast.load`, but for units that are missing.
    """
    path = find(name_or_path)
    potential, unstated = _load(path, load_options)
    config = potential.config
    card = path.with_suffix(".md")
    return {
        "name": config.name,
        "file": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "model_card": str(card) if card.is_file() else None,
        "properties": list(potential.properties),
        "elements": [chemical_symbols[z] for z in config.elements] if config.elements is not None else None,
        "cutoff": potential.cutoff,
        "parameters": sum(parameter.numel() for parameter in potential.parameters()),
        "dtype": str(next(potential.parameters()).dtype).removeprefix("torch."),
        "trained_in": {
            kind: None if kind in unstated else getattr(config, f"{kind}_unit")
            for kind in ("energy", "length", "dipole", "polarizability")
        },
        "provenance": without_minima(config.provenance),
        "representation": config.representation.model_dump(mode="json"),
        "paths": {
            device: {purpose: path._asdict() for purpose, path in found.items()}
            for device, found in paths(potential).items()
        },
        "heads": [head.model_dump(mode="json") for head in config.heads],
    }


def _load(path: Path, options: dict[str, Any]) -> tuple[Potential, tuple[str, ...]]:
    """A model to be described, not evaluated, and the kinds of its units that are not stated."""
    try:
        return load(path, **options), ()
    except MissingUnits as error:
        own = {f"{kind}_unit": next(iter(KINDS[kind])) for kind in error.names}
        return load(path, **{**options, **own}), error.names
