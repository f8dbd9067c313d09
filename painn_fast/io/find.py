"""Which file a model is in, and names that `load` takes: what can be refused without torch."""

from __future__ import annotations

import json
import re
from pathlib import Path

from painn_fast import units
from painn_fast.errors import PaiNNFastError
from painn_fast.nn.config import DipoleHead, EnergyHead, Head, PolarizabilityHead

MODELS = Path(__file__).parent.parent / "models"
SUFFIX = ".safetensors"
MINIMA = "minima"
"""Key of a model's provenance."""
MAX_HEADER = 16 * 2**20
"""Bytes of the configuration and its provenance; a few thousand are usual."""
SAFETENSORS = b"{"
"""After eight bytes of length JSON begins."""
DTYPES = ("float32", "float64")
STATE_DICTS, PROGRAM = (".pt", ".pth"), ".pt2"
AFTER_MODEL = 'STRUCTURE after MODEL, or structure = "FILE" in settings and in Python'
"""How verbs that take a structure without a flag are given one."""
DEVICE = re.compile(r"(cpu|cuda)(:\d{1,4})?")
HEADS = {"energy": EnergyHead, "dipole": DipoleHead, "polarizability": PolarizabilityHead}
"""Heads that a state dict may have, by their names."""


def bundled() -> list[str]:
    """Names of the models that come with the package.

    Returns:
        The names, sorted.

    Example:
        >>> from painn_fast.io import bundled
        >>> "ethanol" in bundled()
        True
    """
    return sorted(path.stem for path in MODELS.glob("*.safetensors"))


def find(name_or_path: str | Path) -> Path:
    """The file behind a bundled name or a path.

    Raises:
        PaiNNFastError: if there is no such file; lists the bundled names.
    """
    if not isinstance(name_or_path, str | Path):
        raise PaiNNFastError(
            "not a model",
            got=type(name_or_path).__name__,
            expected=f"a potential, a file, or a bundled model: {', '.join(bundled())}",
            fix="write Ensemble([...]) for several models" if isinstance(name_or_path, list | tuple) else None,
        )
    if str(name_or_path) in bundled():
        return MODELS / f"{name_or_path}.safetensors"
    path = Path(name_or_path)
    if not path.is_file():
        raise PaiNNFastError(
            "no such model", got=str(name_or_path), expected=f"a file, or a bundled model: {', '.join(bundled())}"
        )
    return path


def declares_units(name_or_path: str | Path) -> bool:
    """Whether a model is one of our files, which need no units and take none.

    Raises:
        PaiNNFastError: if there is no such file.
    """
    with open(find(name_or_path), "rb") as file:
        return file.read(16)[8:9] == SAFETENSORS


def require_model(*models: str) -> None:
    """Refuse settings in which no model is named.

    Raises:
        PaiNNFastError: listing the bundled ones.
    """
    if not any(models):
        expected = f"a file, or a bundled model: {', '.join(bundled())}"
        fix = 'painn-fast md --model ethanol, painn-fast spectrum ethanol, or model = "ethanol" in the settings'
        raise PaiNNFastError("no model", where="model", expected=expected, fix=fix)


def start_structure(
    structure: str | Path | None, model: str, fix: str = '--structure FILE, or structure = "FILE" in the settings'
) -> Path:
    """The file with the structures to start from: the one that is given, that of a bundled model, or the model's own if
    it holds minima; `painn_fast.io.minima.start_structures` reads any of them.

    Args:
        structure: a file, if one is given.
        model: a bundled model, or a file.
        fix: how to name a file.

    Raises:
        PaiNNFastError: if there is neither.
    """
    own = MODELS / f"{model}.xyz"
    if structure is not None or (model in bundled() and own.exists()):
        return own if structure is None else Path(structure)
    if _has_minima(Path(model)):
        return Path(model)
    expected = "a file that ASE reads; bundled models have one of their own, and those of `painn-fast learn`"
    raise PaiNNFastError("no structure to start from", where=model or "structure", expected=expected, fix=fix)


def _has_minima(path: Path) -> bool:
    """Whether a model's file holds minima; not whether it is intact, which `load` checks."""
    if path.suffix != SUFFIX or not path.is_file():
        return False
    with path.open("rb") as file:
        text = file.read(min(int.from_bytes(file.read(8), "little"), MAX_HEADER))
    try:
        return MINIMA in json.loads(json.loads(text)["__metadata__"]["painn_fast"])["config"]["provenance"]
    except (ValueError, KeyError, TypeError):
        return False


def check_names(
    *, dtype: str | None = None, device: str | None = None, heads: str | None = None, **given: str | None
) -> None:
    """Refuse names that `load` would refuse for any model: its arguments, as words; `given` are units by their kinds.

    Raises:
        PaiNNFastError: for one that is none.
    """
    if dtype is not None and dtype.removeprefix("torch.") not in DTYPES:
        raise PaiNNFastError("no network runs in this type", got=dtype, expected="torch.float32 or torch.float64")
    if device is not None and not DEVICE.fullmatch(device):
        raise PaiNNFastError("no such device", got=device, expected="cpu, cuda, cuda:1, ...")
    if heads is not None:
        heads_of(heads)
    for name, unit in given.items():
        if unit is not None and name.endswith("_unit"):
            units.factor(name.removesuffix("_unit"), unit)


def heads_of(names: str) -> list[Head]:
    """Heads of a state dict by their names: "energy,dipole".

    Raises:
        PaiNNFastError: for an unknown one.
    """
    chosen = [name.strip() for name in names.split(",")]
    for name in chosen:
        if name not in HEADS:
            raise PaiNNFastError("unknown head", where="heads", got=repr(name), expected=" | ".join(HEADS))
    return [HEADS[name]() for name in chosen]


def check_target(target: Path, *, overwrite: bool = False) -> None:
    """Refuse a file to convert to: one that exists, or with an ending of no format.

    Raises:
        PaiNNFastError: saying which.
    """
    if target.suffix not in (".safetensors", *STATE_DICTS, PROGRAM):
        raise PaiNNFastError(
            "unknown format of the target",
            where=target,
            got=f"ending '{target.suffix}'",
            expected=f".safetensors for painn-fast, {' or '.join(STATE_DICTS)} for a state dict of SchNetPack, "
            f"{PROGRAM} for a program of torch.export",
        )
    if target.exists() and not overwrite:
        raise PaiNNFastError("the target exists already", where=target, fix="choose another name, or --overwrite")
