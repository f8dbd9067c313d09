"""A configuration to start from, written from what a file of labelled data holds."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from painn_fast.errors import PaiNNFastError
from painn_fast.train.data.contents import UNSTATED_UNIT, Contents, contents
from painn_fast.train.data.dataset import SPLITS
from painn_fast.train.data.formats import read_frames
from painn_fast.train.data.frames import Frames, listed
from painn_fast.train.data.totals import totals
from painn_fast.train.settings import LOSS_WEIGHTS, DataFile, TrainSettings

STEPS, EPOCHS, VALIDATIONS = 30_000, 2_000, 200
"""Of the optimizer, about; at most; in all, about."""
COOLDOWN = 0.9
"""Share of the epochs over which the learning rate falls to 0."""
MANY = 10_000
"""Training structures from which on a wider network and larger batches pay; the most for validation and for testing."""
NO_PLATEAU = 1_000_000
WHY_LEFT = "bookkeeping, whole numbers without a unit, or the same everywhere"


def starter(path: Path, name: str, options: Mapping[str, Any] | None = None) -> tuple[str, list[str]]:
    """Text of a configuration for the labels of one file, and the keys of it that are left to fill in.

    Args:
        path: the data.
        name: of the model and its folder.
        options: further keys of a data file: keys, units, symbols, geometry, periodic, exclude.

    Returns:
        TOML with comments, and the names of the labels whose unit neither the file nor `options` declare.

    Raises:
        PaiNNFastError: as `read_frames`; if the file has no labels, or too few structures.

    Example:
        >>> import numpy as np
        >>> from painn_fast.train.starter import starter
        >>> positions = np.random.default_rng(0).normal(size=(30, 3, 3))
        >>> np.savez("set.npz", R=positions, z=[8, 1, 1], E=np.arange(30.0), energy_unit="eV", length_unit="Ang")
        >>> text, missing = starter(Path("set.npz"), "mine")
        >>> print(text.splitlines()[0], missing)
        # set.npz: 30 structures of 3 atoms, elements H O []
    """
    given = {key: value for key, value in (options or {}).items() if value not in ({}, None, ())}
    source = DataFile.parse({"file": path.name, **given}, where=str(path))
    frames = read_frames(source, path.parent)
    content = contents(frames, source, path)
    sizes = _sizes(frames, path)
    parts = [*_about(frames, content, path, name), *_schedule(sizes[0], name, content)]
    parts += [*_heads(content), *_loss(content), *_network(frames, source, sizes[0], path)]
    parts += [*_split(frames, sizes), *_data(source, content, given)]
    text = "\n".join(parts) + "\n"
    TrainSettings.parse(tomllib.loads(text), where=name)
    return text, list(content.missing)


def _sizes(frames: Frames, path: Path) -> list[int]:
    """Structures for training, validation and testing: those of the file, or a draw."""
    n = len(frames)
    if frames.split is not None:
        sizes = [int((frames.split == k).sum()) for k in range(len(SPLITS))]
    else:
        tenth = min(max(n // 10, 1), MANY)
        sizes = [n - 2 * tenth, tenth, tenth]
    for size, split in zip(sizes[:2], SPLITS, strict=False):
        if size < 1:
            raise PaiNNFastError(
                f"no structure for {split}",
                where=path,
                got=f"{n} structures" + (" with a split" if frames.split is not None else ""),
                expected="3 structures or more; in a file with a split, some for training and some for validation",
            )
    return sizes


def _about(frames: Frames, content: Contents, path: Path, name: str) -> list[str]:
    atoms = sorted({int(frames.n_atoms.min()), int(frames.n_atoms.max())})
    elements = " ".join(chemical_symbols[z] for z in np.unique(frames.numbers).tolist() if 0 < z < 119)
    periodic = 0 if frames.pbc is None else int(frames.pbc.any(axis=1).sum())
    return [
        f"# {_word(path.name)}: {len(frames)} structures of {' to '.join(map(str, atoms))} atoms, elements {elements}"
        + (f", {periodic} of them periodic" if periodic else ""),
        *(f"# {label.name}: {label.about}" for label in content.labels),
        *([f"# not learned: {listed(content.left)} ({WHY_LEFT})"] if content.left else []),
        f"# Train: painn-fast train {_word(name)}.toml --data {_word(str(path))}",
        "# All other keys and their defaults: docs/training.md, painn_fast/train/settings.py",
        "",
    ]


def _schedule(train: int, name: str, content: Contents) -> list[str]:
    forces = content.has("forces")
    batch = min(train, 10 if forces or train < MANY else 100)
    each = train // batch
    epochs = min(max(math.ceil(STEPS / each), 2), EPOCHS)
    cooldown = max(round(COOLDOWN * epochs), 1)
    rate = 1e-3 if forces else 5e-4
    return [
        f"name = {_string(name)}",
        f"output = {_string(name)} # folder of the model, its card and its errors",
        "",
        f"batch_size = {batch} # structures of a step; many small steps learn more of few structures",
        f"max_epochs = {epochs} # of {each} steps; more of them until the validation error stops falling",
        f"cooldown_epochs = {cooldown} # the last of them, with a learning rate that falls to 0",
        f"plateau_patience = {NO_PLATEAU} # the cool-down lowers the rate, no plateau does",
        f"validate_every = {max(epochs // VALIDATIONS, 1)} # epochs; the model with the best validation is kept",
        f"learning_rate = {rate:g}",
        '# max_time = "2 h" # of the wall clock',
        "# threads = 2 # of the CPU; --device cuda for a GPU",
        "",
    ]


def _heads(content: Contents) -> list[str]:
    lines = ["heads = [ # a property each; fewer at once are learned better"]
    for label in content.labels:
        if label.head is not None:
            lines.append(f"  {_inline(label.head)}, # {label.why}")
    return [*lines, "]", ""]


def _loss(content: Contents) -> list[str]:
    lines = ["[loss] # weights of the mean squared errors"]
    for label in content.labels:
        if label.weight is not None:
            lines.append(f"{label.name} = {label.weight:.2g} # 1 over the variance, so that all labels count alike")
        else:
            lines.append(f"{label.name} = {LOSS_WEIGHTS.get(label.name, 1.0):g}")
    if content.has("forces"):
        lines += [
            "",
            "[model_units]",
            'energy = "kcal/mol" # of the weights: finer steps than in eV',
        ]
    return [*lines, ""]


def _network(frames: Frames, source: DataFile, train: int, path: Path) -> list[str]:
    total = totals(frames, source, path)
    lines = [
        "[representation]",
        f"n_features = {128 if train >= MANY else 64} # 128 as in the paper, 64 where structures are few: faster",
        "n_layers = 3",
        'radial_basis = "gaussian"',
        "cutoff = 5.0 # Å; atoms further apart know of each other through others only",
    ]
    for key, values in (("charge", total.charge), ("spin", total.multiplicity)):
        if len(np.unique(values)) > 1:
            kind = "total charges" if key == "charge" else "spin multiplicities"
            lines.append(f"{key}_embedding = {{}} # the structures have several {kind}")
    return [*lines, ""]


def _split(frames: Frames, sizes: list[int]) -> list[str]:
    if frames.split is not None:
        counts = ", ".join(f"{size} {split}" for size, split in zip(sizes, SPLITS, strict=True))
        return [f"# split: the file's own, {counts}", ""]
    return [
        f"[split] # drawn; the other {sizes[2]} structures are the test set",
        f"train = {sizes[0]}",
        f"validation = {sizes[1]}",
        "seed = 0",
        "",
    ]


def _data(source: DataFile, content: Contents, given: Mapping[str, Any]) -> list[str]:
    lines = ["[[data]]", f"file = {_string(source.file)}"]
    lines += [f"{key} = {_value(value)}" for key, value in given.items() if key not in ("keys", "units")]
    if content.keys:
        lines.append(f"keys = {_inline(content.keys)} # arrays of the file")
    if content.units:
        hint = " # ?: the file does not state it; fill in, such as kcal/mol, Ang, D" if content.missing else ""
        lines.append(f"units = {_inline(content.units)}{hint}")
        if UNSTATED_UNIT in content.units.values():
            lines.append(f"# {UNSTATED_UNIT}: learned as the numbers stand; name the unit here and in the head")
    return lines


def _inline(table: Mapping[str, Any]) -> str:
    return "{ " + ", ".join(f"{_key(key)} = {_value(value)}" for key, value in table.items()) + " }"


def _key(name: str) -> str:
    return name if name.replace("_", "a").replace("-", "a").isalnum() and name.isascii() else _string(name)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return _inline(value)
    return str(value).lower() if isinstance(value, bool) else _string(str(value))


def _string(text: str) -> str:
    """As TOML has it, which escapes as JSON does but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _word(text: str) -> str:
    """For a comment: on one line, in quotes if it has blanks."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return f'"{text}"' if " " in text else text
