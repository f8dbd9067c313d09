"""What a model file is, as plain data."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ase.data import chemical_symbols

from painn_fast import units
from painn_fast.errors import PaiNNFastError
from painn_fast.io.load import find, load
from painn_fast.nn import Potential


def describe(name_or_path: str | Path, **load_options: Any) -> dict[str, Any]:
    """Configuration, units, parameters and origin of a model.

    Args:
        name_or_path: what `painn_fast.load` takes.
        load_options: further arguments of `painn_fast.load`, such as energy_unit.

    Returns:
        JSON-able; `cutoff` in Å, `sha256` of the file's bytes, `elements` as symbols or None where the file does not
        tell, `model_card` the Markdown file beside the model or None; in `trained_in` None for a unit that neither the
        file nor the options state, and without which the model cannot be evaluated.

    Raises:
        PaiNNFastError: as `painn_fast.load`.
    """
    path = find(name_or_path)
    potential, missing = _loaded(path, load_options)
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
            kind: None if kind in missing else getattr(config, f"{kind}_unit")
            for kind in ("energy", "length", "dipole", "polarizability")
        },
        "provenance": dict(config.provenance),
        "representation": config.representation.model_dump(mode="json"),
        "heads": [head.model_dump(mode="json") for head in config.heads],
    }


def _loaded(path: Path, options: dict[str, Any]) -> tuple[Potential, set[str]]:
    """A model, with units of our own in the place of those that nobody states, and the kinds of these."""
    missing: set[str] = set()
    while True:
        stand_ins = {f"{kind}_unit": next(iter(units.KINDS[kind])) for kind in missing}
        try:
            return load(path, **{**options, **stand_ins}), missing
        except PaiNNFastError as error:
            kind = error.what.removeprefix("missing unit of ")
            if kind == error.what or kind in missing:
                raise
            missing.add(kind)
