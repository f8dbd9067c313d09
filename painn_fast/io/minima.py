"""Minima of a molecule in a model's file, so that dynamics and spectra of it need no structure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import ase
import numpy as np

from painn_fast.errors import PaiNNFastError
from painn_fast.graph.charge import charge_and_multiplicity, set_charge_and_multiplicity
from painn_fast.io.find import MINIMA, SUFFIX, start_structure
from painn_fast.io.model_file import load_model
from painn_fast.io.structures import read_structures
from painn_fast.nn import Potential


def keep_minima(potential: Potential, minima: Sequence[ase.Atoms]) -> None:
    """Put minima into the provenance of a model, from where `save_model` writes them; positions in Å.

    Args:
        potential: changed in place.
        minima: of one molecule in vacuum.
    """
    charge, spin = charge_and_multiplicity(minima[0].info, where=minima[0].get_chemical_formula())
    text = json.dumps(
        {
            "symbols": list(minima[0].symbols),
            "charge": charge,
            "spin": spin,
            "positions": [np.round(one.positions, 10).tolist() for one in minima],
        }
    )
    provenance = {**potential.config.provenance, MINIMA: text}
    potential.config = potential.config.model_copy(update={"provenance": provenance})


def minima_of(potential: Potential) -> list[ase.Atoms]:
    """Minima that a model's file has, none of most.

    Raises:
        PaiNNFastError: if they cannot be read.
    """
    text = potential.config.provenance.get(MINIMA)
    if text is None:
        return []
    try:
        values = json.loads(text)
        frames = [ase.Atoms(values["symbols"], positions=positions) for positions in values["positions"]]
        for frame in frames:
            set_charge_and_multiplicity(frame.info, float(values["charge"]), float(values["spin"]))
    except (ValueError, KeyError, TypeError) as error:
        raise PaiNNFastError("minima that cannot be read", where=potential.config.name, got=str(error)) from None
    return frames


def without_minima(provenance: dict[str, str]) -> dict[str, str]:
    """What of a provenance is for people."""
    return {name: text for name, text in provenance.items() if name != MINIMA}


def start_structures(structure: str | Path | None, model: str, **fix: str) -> list[ase.Atoms]:
    """The structures to start from; arguments and errors as of `painn_fast.io.find.start_structure`."""
    path = start_structure(structure, model, **fix)
    return minima_of(load_model(path)) if path.suffix == SUFFIX else read_structures(path)
