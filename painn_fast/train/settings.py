"""Settings of a training, as they stand in its TOML file; docstrings of some are help of the command."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from painn_fast.errors import PaiNNFastError
from painn_fast.nn import DipoleHead, EnergyHead, RepresentationConfig
from painn_fast.nn.config import Head, head_name
from painn_fast.settings import LARGEST_SIZE, Duration, Seed, Settings, Size, merged, read_toml

CONFIGS = Path(__file__).parent / "configs"


Rate = Annotated[float, Field(ge=1e-30, le=10)]
Weight = Annotated[float, Field(ge=0, le=1e9)]


class SplitSizes(Settings):
    """How structures of files without a split of their own are drawn."""

    train: Size | None = None
    """Structures to train on; default: all but validation and as many for testing."""
    validation: Size | None = None
    """Default: a tenth."""
    seed: Seed = 0
    file: str | None = None
    """A split.csv that another training wrote: its split, also of files that have one of their own."""


class DataFile(Settings):
    """One file of labelled structures; NaN marks a label that is missing."""

    file: str
    """Searched in the folder of data, then beside the shipped configurations."""
    geometry: str | None = None
    """Another .npz with R and z, where this file has labels only, row by row."""
    origin: str = ""
    """Where it comes from, for the model card."""
    keys: dict[str, str] = {}
    """Names of the arrays of labels, such as energy = "E_pbe0"; "" leaves a label out. Default: the usual ones."""
    units: dict[str, str] = {}
    """Units of length and labels that a file does not state or states wrongly; forces default to energy per length."""
    use_as: Literal["train", "validation", "test"] | None = None
    """All of it for this, whatever split it has."""
    symbols: str | None = None
    """Elements of the atoms of a .npy, such as "O H H"."""
    periodic: bool | None = None
    """Whether cells count, as the file states by default; not for molecules in large boxes."""
    exclude: str | None = None
    """Text file with numbers of structures to leave out, one at the begin of a line: frames from 0, molecules of QM9 by
    their own number, as in its uncharacterized.txt."""


LOSS_WEIGHTS = {"energy": 10.0, "forces": 1.0, "dipole": 20.0, "polarizability": 1.0}
"""Of labels that the settings do not name; those that are not here have a weight of 1."""


class TrainSettings(Settings):
    """A whole training.

    Example:
        >>> from painn_fast.train import TrainSettings
        >>> settings = TrainSettings.parse({"data": [{"file": "ethanol.npz"}], "loss": {"forces": 2.0}})
        >>> settings.batch_size, settings.weight("forces"), settings.weight("energy")
        (10, 2.0, 10.0)
    """

    name: str = Field("model", min_length=1, max_length=200)
    """Of the model and its file."""
    output: str = Field("training", min_length=1)
    """Folder for the results."""
    data: tuple[DataFile, ...] = Field(min_length=1)
    split: SplitSizes = SplitSizes()
    train_size: Size | None = None
    """Train on so many of the training structures only, drawn by the seed of the split; for learning curves."""
    level_of_theory: str = ""
    """For the model card; default: what the files of data state."""
    description: str = ""
    limits: str = ""
    representation: RepresentationConfig = RepresentationConfig()
    heads: tuple[Head, ...] = (EnergyHead(),)
    model_units: dict[Literal["energy", "length", "dipole", "polarizability"], str] = {}
    """Units that the weights work in; default eV, Å, e Å, Å³, or those of the model to start from, which files of
    SchNetPack do not state. Results are in eV, Å and e always, but what is large in the units of the weights is learned
    in finer steps."""
    start_from: str | None = None
    """Model to start from, bundled or a file (SchNetPack's too): its representation, its units and all heads that both
    have."""
    start_from_heads: str | None = None
    """Heads of a plain state dict of SchNetPack to start from, in order, such as "energy,dipole"."""
    freeze_representation: bool = False
    """Train the heads alone."""
    loss: dict[str, Weight] = {}
    """Weights of mean squared errors, in our units: energy² per atom (eV²), force (eV/Å)², dipole (e Å)²,
    polarizability (Å³)², ... Defaults: energy 10, forces 1, dipole 20, polarizability 1, all others 1."""
    energy_per_atom: bool = True
    """Divide the square of an error of an energy by the number of atoms."""
    batch_size: Size = 10
    learning_rate: Rate = 1e-3
    minimum_learning_rate: Rate = 1e-6
    """The training ends when the schedule goes below it."""
    warmup_steps: int = Field(300, ge=0, le=LARGEST_SIZE)
    weight_decay: float = Field(0.01, ge=0, le=100)
    gradient_clip: float = Field(10.0, gt=0, le=1e10)
    ema_decay: float = Field(0.999, ge=0, lt=1)
    plateau_factor: float = Field(0.5, gt=0, lt=1)
    plateau_patience: Size = 20
    """Validations without a better smoothed loss before the learning rate drops."""
    early_stop: Size | None = None
    """Stop after so many validations without a better smoothed loss."""
    loss_smoothing: float = Field(0.9, ge=0, lt=1)
    max_epochs: Size = 1000
    """Stop after so many epochs."""
    cooldown_epochs: int = Field(0, ge=0, le=LARGEST_SIZE)
    """Lower the learning rate linearly towards 0 over so many of the last epochs."""
    max_time: Duration | None = None
    """Stop after this wall-clock time without compilation, such as "2 h"."""
    validate_every: Size = 1
    """Epochs."""
    precision: Literal["float32", "float64", "tf32"] = "float32"
    """Of the network: float32, float64, or float32 with products in TF32 (on GPUs; costs accuracy)."""
    report_units: dict[str, str] = {}
    """Units that errors are reported in; default kcal/mol, kcal/mol/Å, D, Å³ and, for other energies, meV."""
    checks: Literal["error", "warn"] = "error"
    """Whether doubtful data stop the training before it begins, or are only reported."""
    report: Literal["full", "short"] = "full"
    """Whether the report has pictures and the roughness of the surface at a minimum."""
    tensorboard: bool = False
    """Write learning curves for TensorBoard too (pip install tensorboard)."""
    seed: Seed = 0
    """Seed of weights and of the order of structures."""
    threads: Annotated[int, Field(ge=1, le=4096)] | None = None
    """CPU threads. Default: torch's own number."""
    device: str = "cpu"
    """cpu, cuda, cuda:1, ..."""

    @field_validator("name")
    @classmethod
    def _file_name(cls, name: str) -> str:
        if name.startswith(".") or set(name) & set("/\\\0") or name == "checkpoint":
            raise ValueError("expected a name for a file, with neither a folder nor a dot before it, nor 'checkpoint'")
        return name

    @model_validator(mode="after")
    def _trainable(self) -> TrainSettings:
        if self.start_from_heads is not None and self.start_from is None:
            raise ValueError("start_from_heads needs start_from")
        if self.freeze_representation and self.start_from is None:
            raise ValueError("freeze_representation needs start_from: a random representation cannot be kept")
        known = labels_of(self.heads)
        for key, table in (("loss", self.loss), ("report_units", self.report_units)):
            for label in table.keys() - set(known):
                near = difflib.get_close_matches(label, known, n=1, cutoff=0.5)
                hint = f", did you mean '{near[0]}'?" if near else f"; the heads have {', '.join(known)}"
                raise ValueError(f"unknown label '{key}.{label}'{hint}")
        return self

    def weight(self, label: str) -> float:
        """Weight of a label in the loss."""
        return self.loss.get(label, LOSS_WEIGHTS.get(label, 1.0))


def labels_of(heads: tuple[Head, ...]) -> tuple[str, ...]:
    """Labels that train these heads."""
    names: list[str] = []
    for head in heads:
        match head:
            case EnergyHead():
                names += ["energy", "forces", "stress"]
            case DipoleHead():
                names += ["dipole"] + ["dipole_magnitude"] * head.magnitude
            case _:
                names.append(head_name(head))
    return tuple(names)


def shipped() -> dict[str, str]:
    """The configurations that come with the package.

    Returns:
        Their descriptions by their names.

    Example:
        >>> from painn_fast.train import shipped
        >>> "md17-ethanol" in shipped()
        True
    """
    configurations: dict[str, str] = {}
    for path in sorted(CONFIGS.glob("*.toml")):
        values = read_toml(path)
        variants = values.get("variants")
        entries = {path.stem: values} if variants is None else {f"{path.stem}-{k}": v for k, v in variants.items()}
        configurations |= {name: str(entry.get("description", "")) for name, entry in entries.items()}
    return configurations


def load_config(name_or_path: str | Path, overrides: dict[str, Any] | None = None) -> TrainSettings:
    """Settings of a shipped configuration or of a TOML file, with `overrides` on top.

    A file may have variants, tables [variants.NAME] whose keys go over its own; they are called FILE-NAME, with the
    path of the file if it is not shipped, and so is their output. `like = "md17"` takes all other keys from a shipped
    file, but for its variants.

    Args:
        name_or_path: a name of `shipped`, or a file.
        overrides: values by their keys, of nested tables in nested dictionaries.

    Returns:
        The settings, validated.

    Raises:
        PaiNNFastError: if there is no such configuration; names the nearest one.

    Example:
        >>> from painn_fast.train import load_config
        >>> settings = load_config("md17-ethanol", {"max_epochs": 50})
        >>> settings.name, settings.max_epochs
        ('md17-ethanol', 50)
    """
    path, variant = _find(str(name_or_path))
    values = read_toml(path)
    values.pop("resolved", None)
    variants = values.pop("variants", {})
    if "like" in values:
        base = read_toml(_find_shipped(str(values.pop("like"))))
        base.pop("variants", None)
        values = merged(base, values)
    if variant is None and variants:
        raise PaiNNFastError(
            "a configuration of several variants", where=path, expected=f"{name_or_path}-NAME: {', '.join(variants)}"
        )
    if variant is not None:
        name = f"{path.stem}-{variant}"
        values = merged(values, {"name": name, "output": name, **variants[variant]})
    return TrainSettings.parse(merged(values, overrides or {}), where=str(name_or_path))


def _find_shipped(stem: str) -> Path:
    """File that `like` names."""
    path = CONFIGS / f"{stem}.toml"
    if path not in CONFIGS.glob("*.toml"):
        names = ", ".join(sorted(file.stem for file in CONFIGS.glob("*.toml")))
        raise PaiNNFastError("no such shipped configuration", where="like", got=repr(stem), expected=names)
    return path


def _find(name: str) -> tuple[Path, str | None]:
    """File and variant of a configuration."""
    if Path(name).is_file():
        return Path(name), None
    for path in (CONFIGS / f"{name}.toml", *CONFIGS.glob("*.toml"), *Path(name).parent.glob("*.toml")):
        if path == CONFIGS / f"{name}.toml" and path.is_file():
            return path, None
        stem = path.stem if path.parent == CONFIGS else str(path.with_suffix(""))
        if path.is_file() and name.startswith(f"{stem}-"):
            variant = name.removeprefix(f"{stem}-")
            if variant in read_toml(path).get("variants", {}):
                return path, variant
    near = difflib.get_close_matches(name, shipped(), n=3, cutoff=0.3)
    raise PaiNNFastError(
        "no such training configuration",
        got=name,
        expected=f"a TOML file, or one of: {', '.join(near or shipped())}",
        fix="painn-fast train --list shows all",
    )
