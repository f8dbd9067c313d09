"""SchNetPack's files to ours, ours to a state dict that SchNetPack loads."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from painn_fast.errors import PaiNNFastError
from painn_fast.io.find import PROGRAM, check_target
from painn_fast.io.load import load
from painn_fast.io.model_file import save_model
from painn_fast.io.schnetpack_file import NOTE, Note
from painn_fast.io.schnetpack_names import to_schnetpack_state_dict
from painn_fast.nn import RepresentationConfig
from painn_fast.runtime.atomic import atomic_write


def convert(
    source: str | Path, target: str | Path, *, overwrite: bool = False, properties: Sequence[str] | None = None,
    compiled: bool = False, **load_options: Any,
) -> Path:  # fmt: skip
    """Convert a model file.

    Args:
        source: what `painn_fast.load` takes.
        target: `.safetensors` for a painn-fast model, `.pt` or `.pth` for a state dict with SchNetPack's names
            (`schnetpack_names.to_schnetpack_state_dict`), tensors alone, without pickled classes; `.pt2` for a program
            of `torch.export`, the network in plain PyTorch with its derivatives, for any number of atoms, edges and
            molecules.
        overwrite: replace `target` if it exists.
        properties: results of a program, by default energy, forces, dipole and polarizability as far as it has them.
        compiled: compile a program for this processor, by AOTInductor, which takes minutes and a C++ compiler.
        load_options: further arguments of `painn_fast.load`, such as energy_unit.

    Returns:
        The path written.

    Raises:
        PaiNNFastError: if `target` exists or has another ending, and as `painn_fast.load`; nothing is written then.

    Example:
        >>> from painn_fast.io import convert, load
        >>> convert("ethanol", "for_schnetpack.pt")
        PosixPath('for_schnetpack.pt')
        >>> units = {"energy_unit": "eV", "dipole_unit": "e Ang", "polarizability_unit": "Ang^3"}
        >>> back = load("for_schnetpack.pt", heads="energy,dipole,polarizability", **units)
        >>> back.properties == load("ethanol").properties
        True
    """
    target = Path(target)
    check_target(target, overwrite=overwrite)
    if (properties or compiled) and target.suffix != PROGRAM:
        raise PaiNNFastError("properties and compilation are of programs", where=target, expected=f"ending {PROGRAM}")
    potential = load(source, **load_options)
    if target.suffix == PROGRAM:
        from painn_fast.io.exported import save_program  # takes a second to import

        save_program(potential, target, properties, compiled=compiled)
        return target
    if target.suffix == ".safetensors":
        save_model(potential, target)
        return target
    state = to_schnetpack_state_dict(potential)
    with atomic_write(target) as temporary:
        torch.save(state, temporary)
        _note(temporary, potential.config.representation)
    return target


def _note(path: Path, config: RepresentationConfig) -> None:
    """Add what a state dict does not contain in an entry of its own, which torch ignores and `load` reads."""
    with zipfile.ZipFile(path, "a") as archive:
        folder = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
        archive.writestr(folder + NOTE, Note.of(config).model_dump_json())
