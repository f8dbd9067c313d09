"""Settings of a spectrum, as they stand in its TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from painn_fast.md.settings import MDSettings
from painn_fast.md.thermostats import Ensemble
from painn_fast.settings import Duration, Settings, Temperature, Time, Wavelength, Wavenumber
from painn_fast.spectra.correlation import Analysis, nyquist
from painn_fast.spectra.quantum import QuantumCorrection
from painn_fast.spectra.window import WindowName

Method = Literal["t-rpmd", "rpmd", "classical"]
ENSEMBLES: dict[Method, Ensemble] = {"t-rpmd": "t-rpmd", "rpmd": "rpmd", "classical": "nve"}
DYNAMICS = "dynamics"
"""Folder of the trajectory within the output."""


class SpectrumSettings(Settings):
    """From a model to its infrared and Raman spectrum: dynamics, and what is made of it."""

    model: str = ""
    """A bundled name or a model file."""
    energy_unit: str | None = None
    """For SchNetPack files, which do not say it."""
    dtype: Literal["float32", "float64"] = "float32"
    """Of the network in dynamics; the harmonic spectrum is float64 always."""
    device: str = "cpu"
    structure: str | None = None
    """Any file that ASE reads; the first frame gives the harmonic spectrum. None takes the bundled model's own."""
    output: str | None = None
    """Folder; None is <model>-spectrum."""
    trajectory: str | None = None
    """A run of dynamics that is there already; then none is done."""
    method: Method = "t-rpmd"
    beads: PositiveInt = 16
    """1 if the method is classical."""
    trajectories: PositiveInt = 12
    temperature: Temperature = "300 K"
    time_step: Time = "0.5 fs"
    equilibration: Time = "0.25 ps"
    """With PILE-L (Langevin if classical) before each trajectory."""
    duration: Time = "2 ps"
    """Of each trajectory."""
    tau: Time = "50 fs"
    """Time constant of the thermostat in the equilibration."""
    seed: int = Field(0, ge=0, lt=2**63)
    remove_rotation: bool = False
    """Start trajectories without angular momentum: narrower bands, no rotational ones."""
    dipole_every: Time = "2 fs"
    polarizability_every: Time = "2 fs"
    velocities_every: Time | None = None
    """For a power spectrum; None makes none."""
    checkpoint: Duration = "60 s"
    """Wall-clock time between restart files."""
    window: WindowName = "gaussian"
    depth: Time = "1.2 ps"
    """Length of the correlation functions; the longer, the better resolved and the noisier."""
    highest: Wavenumber = "4000 cm-1"
    """End of the spectra."""
    laser: Wavelength = "532 nm"
    quantum_correction: QuantumCorrection = "harmonic"
    """For classical runs; ring polymers need none."""

    @model_validator(mode="before")
    @classmethod
    def _one_bead_if_classical(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("method") == "classical":
            return {"beads": 1, **values}
        return values

    @model_validator(mode="after")
    def _sensible(self) -> SpectrumSettings:
        if self.method != "classical" and self.quantum_correction != "harmonic":
            raise ValueError(f"quantum_correction {self.quantum_correction} is for classical runs, not {self.method}")
        if self.trajectory is not None:
            return self
        if not self.depth < self.duration:
            raise ValueError(f"depth must be below duration, got {self.depth:g} and {self.duration:g} fs")
        for name in ("dipole_every", "polarizability_every", "velocities_every"):
            every = getattr(self, name)
            if every is not None and self.highest > nyquist(every):
                raise ValueError(f"{name} of {every:g} fs shows nothing above {nyquist(every):.0f} cm-1")
        self.dynamics()
        return self

    @property
    def folder(self) -> Path:
        """Where results go."""
        if self.output is not None:
            return Path(self.output)
        return Path(f"{Path(self.model or self.trajectory or 'painn').stem}-spectrum")

    @property
    def analysis(self) -> Analysis:
        """Window, depth and range."""
        return Analysis(self.window, self.depth, self.highest)

    def dynamics(self, observed: tuple[str, ...] = ("dipole", "polarizability")) -> MDSettings:
        """The run of dynamics that the spectra are made from."""
        text = self.model_dump(mode="json")
        same = (
            "model",
            "energy_unit",
            "dtype",
            "device",
            "structure",
            "beads",
            "trajectories",
            "temperature",
            "time_step",
        )
        more = ("equilibration", "duration", "tau", "seed", "remove_rotation", "checkpoint")
        values = {name: text[name] for name in (*same, *more)}
        values |= {f"{name}_every": text[f"{name}_every"] for name in observed}
        values |= {"ensemble": ENSEMBLES[self.method], "output": str(self.folder / DYNAMICS)}
        values |= {"energies_every": f"{10 * self.time_step!r} fs"}
        return MDSettings.parse(values, where="dynamics")
