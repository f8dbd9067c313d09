"""`painn_fast.load`: a bundled name, our own file, or one of SchNetPack's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from painn_fast.errors import PaiNNFastError
from painn_fast.io.find import HEADS, SAFETENSORS, bundled, find, heads_of
from painn_fast.io.model_file import load_model
from painn_fast.io.schnetpack_file import load_schnetpack
from painn_fast.nn import Potential
from painn_fast.nn.config import Head

TYPES = {"float32": torch.float32, "float64": torch.float64}
OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of what torch.save wrote before version 1.6."""


def load(
    name_or_path: str | Path,
    *,
    energy_unit: str | None = None,
    length_unit: str = "Ang",
    dipole_unit: str | None = None,
    polarizability_unit: str | None = None,
    heads: Sequence[Head] | str | None = None,
    epsilon: float | None = None,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str = "cpu",
) -> Potential:
    """Load a model.

    Args:
        name_or_path: a bundled model such as "ethanol", a painn-fast `.safetensors` file, or a SchNetPack file
            (`best_model`, `best_inference_model`, `.task`, `.ckpt`, a state dict), which is read without SchNetPack and
            without executing anything in it.
        energy_unit: unit that a SchNetPack model was trained in, such as "kcal/mol", which its files do not contain.
        length_unit: unit of its positions.
        dipole_unit: unit of its dipoles, if it gives any.
        polarizability_unit: unit of its polarizabilities, if it gives any.
        heads: for a plain state dict with more than an energy: what its output modules are, in order, also by their
            names, "energy,dipole".
        epsilon: for a plain state dict, which does not hold it: in |V v| = sqrt(V^2 + epsilon); None is SchNetPack's
            1e-8.
        dtype: torch.float32 or torch.float64 for the network, also by its name; None keeps the file's.
        device: where to put it.

    Returns:
        A `Potential` in evaluation mode; results come in eV, Å and e whatever the file's units.

    Raises:
        PaiNNFastError: for anything in the file that is not understood, and for a unit that is missing or superfluous.

    Example:
        >>> import painn_fast as pf
        >>> model = pf.load("ethanol", dtype="float64")
        >>> model.cutoff, model.dtype  # Å
        (5.0, torch.float64)
        >>> "polarizability" in model.properties
        True
    """
    dtype = dtype_of(dtype)
    if epsilon is not None and (isinstance(epsilon, bool) or not isinstance(epsilon, int | float)):
        raise PaiNNFastError("not a number", where="epsilon", got=repr(epsilon)[:100], expected="such as 1e-8")
    if heads is not None and not isinstance(heads, str | list | tuple):
        raise PaiNNFastError("not a list of heads", where="heads", got=repr(heads)[:100], expected=" | ".join(HEADS))
    heads = heads_of(heads) if isinstance(heads, str) else heads
    path = find(name_or_path)
    units = {"energy_unit": energy_unit, "dipole_unit": dipole_unit, "polarizability_unit": polarizability_unit}
    with open(path, "rb") as file:
        magic = file.read(16)
    if magic[8:9] == SAFETENSORS:
        length = None if length_unit == "Ang" else length_unit
        given = {**units, "heads": heads, "epsilon": epsilon, "length_unit": length}
        superfluous = ", ".join(name for name, value in given.items() if value is not None)
        if superfluous:
            what = "this file contains its units and heads"
            raise PaiNNFastError(what, where=path, got=superfluous, fix="leave them out")
        potential = load_model(path)
    elif magic[:2] == b"PK":
        potential = load_schnetpack(path, length_unit=length_unit, heads=heads, epsilon=epsilon, **units)
    else:
        raise _unknown(path, magic)
    return potential.to(device=device_of(device), dtype=dtype)


def dtype_of(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """A type that networks run in, also by its name.

    Raises:
        PaiNNFastError: for another.
    """
    found = TYPES.get(dtype.removeprefix("torch.")) if isinstance(dtype, str) else dtype
    if found not in (None, *TYPES.values()) or (found is None and dtype is not None):
        raise PaiNNFastError("no network runs in this type", got=dtype, expected="torch.float32 or torch.float64")
    return found


def device_of(device: torch.device | str | int | None) -> torch.device | None:
    """A device of this machine, also by its name; None stays None.

    Raises:
        PaiNNFastError: for another.
    """
    if device is None:
        return None
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:  # of torch without CUDA, without a GPU
        raise PaiNNFastError(
            "no such device", got=f"{device}: {str(error)[:200]}", expected="cpu, cuda, cuda:1, ..."
        ) from None
    if found.type not in ("cpu", "cuda"):
        raise PaiNNFastError("no such device", got=device, expected="cpu, cuda, cuda:1, ...")
    return found


def _unknown(path: Path, magic: bytes) -> PaiNNFastError:
    if magic.startswith(OLD_TORCH):
        fix = "load and save it again with a newer torch, if you trust it"
        return PaiNNFastError("a file from torch older than 1.6", where=path, fix=fix)
    return PaiNNFastError(
        "neither a painn-fast model nor a SchNetPack file",
        where=path,
        got=f"a file that begins with {magic[:8]!r}" if magic else "an empty file",
        expected=f"safetensors, the zip format of torch.save, or a bundled model: {', '.join(bundled())}",
    )
