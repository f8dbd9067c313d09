"""Model files: safetensors with the configuration as JSON in the header, checked key by key when read.

Since version 2 the header has the SHA-256 of the weights, of the configuration and of the whole file, so that a bit
flipped anywhere is noticed. Files of version 1, which need not have them, are read with a note; `save_model` on what
was read, or `painn-fast convert`, writes the same weights in the present version.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from painn_fast.errors import PaiNNFastError, reading
from painn_fast.io.find import MAX_HEADER
from painn_fast.nn import Potential, PotentialConfig
from painn_fast.runtime.atomic import atomic_write
from painn_fast.runtime.signature import FIELD, safetensors_intact
from painn_fast.runtime.signature import signed_safetensors as as_bytes

KEY = "painn_fast"
FORMAT = "painn-fast model"
VERSION = 2
READABLE = (1, VERSION)
FEW = 2**24
"""Parameters that a model may have to be made before its weights are compared with those in a file: 64 MB."""
MAX_LAYERS = 1_000
"""Of one network, and heads of a model."""


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
    """SHA-256 of all in a configuration that decides numbers: not of its name and its provenance."""
    return _config_fingerprint(config.model_dump(mode="json", exclude={"name", "provenance"}))


def save_model(potential: Potential, path: str | Path) -> None:
    """Write a model in the present version, its weights bit for bit; the file is written whole or not at all.

    Args:
        potential: such as `load_model` gives, also of an older file.
        path: the file, `.safetensors`; replaced if it exists.

    Example:
        >>> from painn_fast.io import load_model, save_model
        >>> from painn_fast.nn import PotentialConfig
        >>> from painn_fast.testing import random_potential
        >>> model = random_potential(PotentialConfig(name="small"))
        >>> save_model(model, "small.safetensors")
        >>> load_model("small.safetensors").config == model.config
        True
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
    damaged = "the file is damaged or of another kind"
    with reading("not a readable safetensors file", path, fix=damaged), safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(KEY)
    if text is None:
        raise PaiNNFastError(
            "a safetensors file without a painn-fast header",
            where=path,
            fix="convert the file that it was made from with `painn-fast convert`",
        )
    if len(text) > MAX_HEADER:
        raise PaiNNFastError("too long a header", where=path, got=f"{len(text)} characters", expected=MAX_HEADER)
    with reading("the header is not JSON", path):
        header = json.loads(text)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        form = header.get("format") if isinstance(header, dict) else type(header).__name__
        raise PaiNNFastError("not a painn-fast model", where=path, got=str(form)[:80], expected=FORMAT)
    if type(header.get("version")) is not int or header["version"] not in READABLE:
        raise PaiNNFastError(
            "a model file of another version",
            where=path,
            got=header.get("version"),
            expected=" or ".join(map(str, READABLE)),
            fix="update painn-fast",
        )
    return header


def load_model(path: str | Path) -> Potential:
    """Read a model file written by `save_model`.

    Args:
        path: the file.

    Returns:
        The model in evaluation mode, in the file's dtype.

    Raises:
        PaiNNFastError: naming the file and the key that is missing, unexpected, misshapen or not finite, or if the
            contents changed since it was written.

    Example:
        >>> from painn_fast.io import load_model, save_model
        >>> from painn_fast.nn import PotentialConfig
        >>> from painn_fast.testing import random_potential
        >>> save_model(random_potential(PotentialConfig(name="small")), "small.safetensors")
        >>> load_model("small.safetensors").config.name
        'small'
    """
    header = read_header(path)
    values = header.get("config")
    if not isinstance(values, dict):
        raise PaiNNFastError("the header has no configuration", where=path)
    with reading("not a readable safetensors file", path), safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dictionary
    _check_sizes(values, tensors, str(path))
    with reading("a configuration that cannot be read", path):
        config = PotentialConfig.parse(values, where=f"configuration in {path}")
        _check_config(header, values, path)
    potential = _empty(config, tensors, str(path))
    fill(potential, tensors)
    if fingerprint(tensors) != header.get("sha256"):
        raise PaiNNFastError(
            "the weights are not those that were written", where=path, got="another SHA-256", fix=FETCH
        )
    _check_file(header, path)
    return potential.eval()


FETCH = "fetch the file again"


def _check_config(header: dict[str, Any], values: dict[str, Any], path: str | Path) -> None:
    """Raise PaiNNFastError unless the configuration is the one written, or the file is old and has no hash of it."""
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
    """Raise PaiNNFastError unless the whole file is the one written; warn of an old one, which has no hash of it."""
    if header["version"] == 1:
        missing = "" if "config_sha256" in header else " has no hash of its configuration and"
        warnings.warn(
            f"the model file {path} is of version 1 and{missing} damage to it may go unnoticed: "
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

    The limits of the settings would only report that it is too much.
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
    """The model of a configuration that fits the tensors, and so takes no more memory than they."""
    largest = max((max(tensor.shape, default=1) for tensor in tensors.values() if tensor.numel()), default=0)
    representation = config.representation
    sizes = [representation.n_features, representation.n_rbf, representation.max_z]
    sizes += [size for head in config.heads for size in head.hidden or ()]
    embeddings = (representation.charge_embedding, representation.spin_embedding)
    layers = [representation.n_layers, len(config.heads)]
    layers += [size for head in config.heads for size in (head.n_layers, len(head.hidden or ()))]
    layers += [embedding.n_residual for embedding in embeddings if embedding is not None]
    for what, numbers, most in (("size", sizes, largest), ("layers", layers, min(len(tensors), MAX_LAYERS))):
        if max(numbers, default=0) > most:
            raise PaiNNFastError(
                "the configuration does not fit the weights",
                where=where,
                got=f"{what}: {max(numbers)}",
                expected=f"at most {most}",
            )
    outlined = outline(config, where)
    check(outlined, tensors, where)
    return realised(outlined)


def outline(config: PotentialConfig, where: str) -> Potential:
    """The model of a configuration with shapes and dtypes; without memory for its weights if they could be many.

    Those are on the meta device, whose first use imports a second's worth of modules.

    Raises:
        PaiNNFastError: if there can be no such model.
    """
    few = _at_most(config) <= FEW
    with reading("a configuration of no possible model", where), nullcontext() if few else torch.device("meta"):
        return Potential(config)


def realised(outlined: Potential) -> Potential:
    """The model of an outline with memory for its weights."""
    return Potential(outlined.config) if outlined.device.type == "meta" else outlined


def _at_most(config: PotentialConfig) -> int:
    """More parameters than a model of this configuration has."""
    r = config.representation
    widest = max([r.n_features, *(size for head in config.heads for size in head.hidden or ())])
    embeddings = sum(8 + 4 * one.n_residual for one in (r.charge_embedding, r.spin_embedding) if one is not None)
    layers = 4 + sum(head.n_layers + len(head.hidden or ()) for head in config.heads)
    basis = r.n_features * (r.max_z + 3 * r.n_layers * (r.n_rbf + 1))
    return basis + r.n_features**2 * (16 * r.n_layers + embeddings) + 8 * layers * widest**2


def check(outlined: Potential, tensors: dict[str, Tensor], where: str) -> None:
    """Names, shapes, dtypes and values of all tensors of a model, before memory is taken for it.

    Args:
        outlined: the model, as `outline` gives it.
        tensors: by their names in the model.
        where: the file, for messages.

    Raises:
        PaiNNFastError: naming the key that is wrong.
    """
    own = outlined.state_dict()
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


def fill(potential: Potential, tensors: dict[str, Tensor]) -> None:
    """Put tensors that are checked into a model, which takes their dtype."""
    potential.to(tensors["representation.embedding.weight"].dtype)
    potential.load_state_dict(tensors)
