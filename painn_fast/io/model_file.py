"""Model files: safetensors with the configuration as JSON in the header, checked key by key when read.

Since version 2 the header has the SHA-256 of the weights, of the configuration and of the whole file, so that a bit
flipped anywhere is noticed. Files of version 1, which need not have them, are read with a note; `save_model` on what
was read, or `painn-fast convert`, writes the same weights in the present version.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from painn_fast.atomic import atomic_write
from painn_fast.errors import PaiNNFastError
from painn_fast.nn import Potential, PotentialConfig
from painn_fast.signature import FIELD, safetensors_intact
from painn_fast.signature import signed_safetensors as as_bytes

KEY = "painn_fast"
FORMAT = "painn-fast model"
VERSION = 2
READABLE = (1, VERSION)


def fingerprint(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of tensors, in order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def _config_fingerprint(config: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def config_fingerprint(config: PotentialConfig) -> str:
    """SHA-256 of all in a configuration that decides numbers: not of its name and of where the weights come from."""
    return _config_fingerprint(config.model_dump(mode="json", exclude={"name", "provenance"}))


def save_model(potential: Potential, path: str | Path) -> None:
    """Write a model in the present version, its weights bit for bit; the file is either whole or not there.

    Args:
        potential: such as `load_model` gives, also of an older file.
        path: the file, `.safetensors`; replaced if it is there.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in potential.state_dict().items()}
    config = potential.config.model_dump(mode="json")
    header = {
        "format": FORMAT,
        "version": VERSION,
        "sha256": fingerprint(tensors),
        "config_sha256": _config_fingerprint(config),
        "config": config,
    }
    with atomic_write(path) as temporary:
        temporary.write_bytes(as_bytes(tensors, KEY, header))


def read_header(path: str | Path) -> dict[str, Any]:
    """The JSON header of a model file: format, version, sha256 of the weights, config and its sha256.

    Raises:
        PaiNNFastError: if the file is truncated, of another format or of a later version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
    except (OSError, SafetensorError) as error:
        raise PaiNNFastError(
            "not a readable safetensors file", where=path, got=str(error), fix="the file is damaged or of another kind"
        ) from None
    if text is None:
        raise PaiNNFastError(
            "a safetensors file without a painn-fast header",
            where=path,
            fix="for a plain state dict say what it is with `painn-fast convert`",
        )
    try:
        header = json.loads(text)
    except json.JSONDecodeError as error:
        raise PaiNNFastError("the header is not JSON", where=path, got=str(error)) from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise PaiNNFastError("not a painn-fast model", where=path, got=str(_form(header))[:80], expected=FORMAT)
    if type(header.get("version")) is not int or header["version"] not in READABLE:
        raise PaiNNFastError(
            "a model file of another version",
            where=path,
            got=header.get("version"),
            expected=" or ".join(map(str, READABLE)),
            fix="update painn-fast",
        )
    return header


def _form(header: Any) -> Any:
    """What a header calls its format."""
    return header.get("format") if isinstance(header, dict) else type(header).__name__


def load_model(path: str | Path) -> Potential:
    """Read a model file written by `save_model`.

    Raises:
        PaiNNFastError: naming the file and the key that is missing, unexpected, misshapen or not finite, or telling
            that the contents changed since it was written.
    """
    header = read_header(path)
    values = header.get("config")
    if not isinstance(values, dict):
        raise PaiNNFastError("the header has no configuration", where=path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dictionary
    except (OSError, SafetensorError) as error:
        raise PaiNNFastError("not a readable safetensors file", where=path, got=str(error)) from None
    _check_sizes(values, tensors, str(path))
    config = PotentialConfig.parse(values, where=f"configuration in {path}")
    _check_config(header, values, path)
    potential = _empty(config, tensors, str(path))
    fill(potential, tensors, where=str(path))
    if fingerprint(tensors) != header.get("sha256"):
        raise PaiNNFastError(
            "the weights are not those that were written", where=path, got="another SHA-256", fix=FETCH
        )
    _check_file(header, path)
    return potential.eval()


FETCH = "fetch the file again"


def _check_config(header: dict[str, Any], values: dict[str, Any], path: str | Path) -> None:
    """Raise PaiNNFastError unless the configuration is what was written, or the file is old and has no hash of it."""
    found = header.get("config_sha256")
    if found is None and header["version"] > 1:
        raise PaiNNFastError(
            "a model file without a hash of its configuration", where=path, expected="config_sha256", fix=FETCH
        )
    if found is not None and found != _config_fingerprint(values):
        raise PaiNNFastError(
            "the configuration is not the one that was written", where=path, got="another SHA-256", fix=FETCH
        )


def _check_file(header: dict[str, Any], path: str | Path) -> None:
    """Raise PaiNNFastError unless the whole file is what was written; a note for old ones, which do not tell."""
    if header["version"] == 1:
        missing = "" if "config_sha256" in header else " has no hash of its configuration and"
        warnings.warn(
            f"the model file {path} is of version 1 and{missing} cannot tell when it is damaged: "
            "`painn-fast convert OLD NEW.safetensors` writes the same weights in the present version",
            UserWarning,
            stacklevel=4,
        )
        return
    intact = safetensors_intact(Path(path).read_bytes())
    if intact is None:
        raise PaiNNFastError("a model file without its hash", where=path, expected=FIELD, fix=FETCH)
    if not intact:
        raise PaiNNFastError("the file is not the one that was written", where=path, got="another SHA-256", fix=FETCH)


def _check_sizes(values: dict[str, Any], tensors: dict[str, Tensor], where: str) -> None:
    """Raise PaiNNFastError if a configuration, not yet validated, asks for more than the weights in the file have.

    The limits of the settings would only say that it is too much.
    """
    largest = max((max(tensor.shape, default=1) for tensor in tensors.values()), default=0)
    representation, heads = values.get("representation"), values.get("heads")
    asked: list[Any] = []
    if isinstance(representation, dict):
        asked += [representation.get(key) for key in ("n_features", "n_layers", "n_rbf", "max_z")]
    for head in heads if isinstance(heads, list) else []:
        if isinstance(head, dict):
            hidden = head.get("hidden")
            asked += [head.get("n_layers"), *(hidden if isinstance(hidden, list) else [])]
    size = max((one for one in asked if type(one) is int), default=0)
    if size > largest:
        raise PaiNNFastError(
            "the configuration does not fit the weights", where=where, got=f"a size of {size}",
            expected=f"at most {largest}",
        )  # fmt: skip


def _empty(config: PotentialConfig, tensors: dict[str, Tensor], where: str) -> Potential:
    """The model of a configuration, unless that asks for far more memory than the weights in the file take."""
    largest = max((max(tensor.shape, default=1) for tensor in tensors.values()), default=0)
    representation = config.representation
    sizes = [representation.n_features, representation.n_layers, representation.n_rbf, representation.max_z]
    sizes += [size for head in config.heads for size in (head.n_layers, *(head.hidden or ()))]
    if max(sizes) > largest:
        got = f"a size of {max(sizes)}"
        raise PaiNNFastError(
            "the configuration does not fit the weights", where=where, got=got, expected=f"at most {largest}"
        )
    return Potential(config)


def fill(potential: Potential, tensors: dict[str, Tensor], where: str) -> None:
    """Put tensors into a model after checking names, shapes, dtypes and values; the model takes their dtype.

    Raises:
        PaiNNFastError: naming the key that is wrong.
    """
    own = potential.state_dict()
    for name in sorted(own.keys() ^ tensors.keys()):
        raise PaiNNFastError("missing key" if name in own else "unexpected key", where=f"{where}, '{name}'")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise PaiNNFastError(
                "wrong shape", where=f"{where}, '{name}'", got=tuple(tensor.shape), expected=tuple(own[name].shape)
            )
        if tensor.dtype not in (torch.float32, torch.float64):
            expected = "float32 or float64"
            raise PaiNNFastError("wrong dtype", where=f"{where}, '{name}'", got=tensor.dtype, expected=expected)
        if not bool(torch.isfinite(tensor).all()):
            raise PaiNNFastError("weights that are not finite", where=f"{where}, '{name}'")
    potential.to(tensors["representation.embedding.weight"].dtype)
    potential.load_state_dict(tensors)
