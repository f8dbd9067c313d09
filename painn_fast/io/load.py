"""`painn_fast.load`: a bundled name, our own file, or one of SchNetPack's."""

from __future__ import annotations

from pathlib import Path

import torch

from painn_fast.errors import PaiNNFastError
from painn_fast.io.model_file import load_model
from painn_fast.nn import Potential

MODELS = Path(__file__).parent.parent / "models"


def bundled() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.stem for path in MODELS.glob("*.safetensors"))


def find(name_or_path: str | Path) -> Path:
    """The file behind a bundled name or a path.

    Raises:
        PaiNNFastError: if there is no such file; lists the bundled names.
    """
    if str(name_or_path) in bundled():
        return MODELS / f"{name_or_path}.safetensors"
    path = Path(name_or_path)
    if not path.is_file():
        raise PaiNNFastError(
            "no such model", got=str(name_or_path), expected=f"a file, or a bundled model: {', '.join(bundled())}"
        )
    return path


def load(
    name_or_path: str | Path,
    *,
    energy_unit: str | None = None,
    length_unit: str = "Ang",
    dipole_unit: str = "e Ang",
    polarizability_unit: str = "Ang^3",
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> Potential:
    """Load a model.

    Args:
        name_or_path: a bundled model such as "ethanol", a painn-fast `.safetensors` file, or a SchNetPack file
            (`best_model`, `best_inference_model`, `.task`, `.ckpt`, a state dict), which is read without SchNetPack and
            without executing anything that it says.
        energy_unit: unit that a SchNetPack model was trained in, such as "kcal/mol"; its files do not tell.
        length_unit: unit of its positions.
        dipole_unit: unit of its dipoles.
        polarizability_unit: unit of its polarizabilities.
        dtype: torch.float32 or torch.float64 for the network; None keeps the file's.
        device: where to put it.

    Returns:
        A `Potential` in evaluation mode; results come in eV, Å and e whatever the file's units.

    Raises:
        PaiNNFastError: for anything in the file that is not understood, and for a unit that is missing or superfluous.
    """
    path = find(name_or_path)
    with open(path, "rb") as file:
        magic = file.read(16)
    if magic[8:9] == b"{":  # safetensors: eight bytes of length, then JSON
        if energy_unit is not None:
            raise PaiNNFastError("this file says its units itself", where=path, got=f"energy_unit={energy_unit!r}", fix="leave it out")
        potential = load_model(path)
    elif magic[:2] == b"PK":
        from painn_fast.io.schnetpack_file import load_schnetpack

        potential = load_schnetpack(
            path,
            energy_unit=energy_unit,
            length_unit=length_unit,
            dipole_unit=dipole_unit,
            polarizability_unit=polarizability_unit,
        )
    else:
        raise PaiNNFastError(
            "neither a painn-fast model nor a SchNetPack file",
            where=path,
            got=f"a file that begins with {magic[:8]!r}" if magic else "an empty file",
            expected="safetensors, or the zip format of torch.save",
        )
    return potential.to(device=device, dtype=dtype)
