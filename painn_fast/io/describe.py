"""What a model file is, as plain data."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ase.data import chemical_symbols

from painn_fast.io.load import find, load


def describe(name_or_path: str | Path, **load_options: Any) -> dict[str, Any]:
    """Configuration, units, parameters and origin of a model.

    Args:
        name_or_path: what `painn_fast.load` takes.
        load_options: further arguments of `painn_fast.load`, such as energy_unit.

    Returns:
        JSON-able; `cutoff` in Å, `sha256` of the file's bytes, `elements` as symbols or None where the file does not
        tell, `model_card` the Markdown file beside the model or None.

    Raises:
        PaiNNFastError: as `painn_fast.load`.
    """
    path = find(name_or_path)
    potential = load(path, **load_options)
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
            "energy": config.energy_unit,
            "length": config.length_unit,
            "dipole": config.dipole_unit,
            "polarizability": config.polarizability_unit,
        },
        "provenance": dict(config.provenance),
        "representation": config.representation.model_dump(mode="json"),
        "heads": [head.model_dump(mode="json") for head in config.heads],
    }
