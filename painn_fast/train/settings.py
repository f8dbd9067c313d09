"""Settings of a training, as they stand in its TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from painn_fast.errors import PaiNNFastError
from painn_fast.nn import EnergyHead, RepresentationConfig
from painn_fast.nn.config import Head
from painn_fast.settings import Duration, Settings

CONFIGS = Path(__file__).parent / "configs"
LABELS = ("energy", "forces", "dipole", "polarizability")


class DataFile(Settings):
    """One `.npz` file: R [n, atoms, 3], z [atoms] and labels; NaN marks a label that is missing."""

    file: str
    """Looked for in the folder of data, then beside the shipped configurations."""
    geometry: str | None = None
    """Another such file that holds R and z, where this one has only labels, row by row."""
    origin: str = ""
    """Where it comes from, for the model card."""
    keys: dict[Literal["energy", "forces", "dipole", "polarizability"], str] = {}
    """Names of the arrays of labels; "" leaves a label out. Default: E, F, dipole, polarizability."""
    energy_unit: str | None = None
    """Where the file does not say; forces are this per length_unit."""
    length_unit: str | None = None
    """Of positions, and of forces."""
    dipole_unit: str | None = None
    polarizability_unit: str | None = None


class LossWeights(Settings):
    """Weights of mean squared errors: energy² per atom (eV²), force (eV/Å)², dipole (e Å)², polarizability (Å³)²."""

    energy: NonNegativeFloat = 10.0
    forces: NonNegativeFloat = 1.0
    dipole: NonNegativeFloat = 20.0
    polarizability: NonNegativeFloat = 1.0


class TrainSettings(Settings):
    """A whole training."""

    name: str = "model"
    output: str = "training"
    data: tuple[DataFile, ...] = Field(min_length=1)
    split_seed: int = 0
    """For files without a `split` array: 80 % training, 10 % validation, 10 % test."""
    level_of_theory: str = ""
    description: str = ""
    limits: str = ""
    representation: RepresentationConfig = RepresentationConfig()
    heads: tuple[Head, ...] = (EnergyHead(),)
    start_from: str | None = None
    """A model, bundled or a file, whose weights the training starts from; representation and heads must be the same."""
    loss: LossWeights = LossWeights()
    batch_size: PositiveInt = 10
    learning_rate: PositiveFloat = 1e-3
    minimum_learning_rate: PositiveFloat = 1e-6
    """The training ends when the schedule goes below it."""
    warmup_steps: int = Field(300, ge=0)
    weight_decay: NonNegativeFloat = 0.01
    gradient_clip: PositiveFloat = 10.0
    ema_decay: float = Field(0.999, ge=0, lt=1)
    plateau_factor: float = Field(0.5, gt=0, lt=1)
    plateau_patience: PositiveInt = 20
    """Validations without a better smoothed loss before the learning rate drops."""
    loss_smoothing: float = Field(0.9, ge=0, lt=1)
    max_epochs: PositiveInt = 1000
    cooldown_epochs: int = Field(0, ge=0)
    """Over so many of the last of `max_epochs` the learning rate falls linearly towards 0."""
    max_time: Duration | None = None
    validate_every: PositiveInt = 1
    """Epochs."""
    seed: int = 0
    threads: PositiveInt | None = None
    device: str = "cpu"


def shipped() -> list[str]:
    """Names of the configurations that come with the package."""
    return sorted(path.stem for path in CONFIGS.glob("*.toml"))


def find_config(name_or_path: str | Path) -> Path:
    """The TOML file behind a shipped name or a path.

    Raises:
        PaiNNFastError: if there is none; lists the shipped names.
    """
    if str(name_or_path) in shipped():
        return CONFIGS / f"{name_or_path}.toml"
    if not Path(name_or_path).is_file():
        raise PaiNNFastError(
            "no such training configuration",
            got=str(name_or_path),
            expected=f"a TOML file, or one of: {', '.join(shipped())}",
        )
    return Path(name_or_path)
