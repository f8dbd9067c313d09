"""Settings of a spectrum, as they stand in its TOML file; their docstrings are the help of the command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from painn_fast.errors import PaiNNFastError
from painn_fast.io.find import MODELS, bundled
from painn_fast.io.options import LoadOptions
from painn_fast.md.settings import Beads, MDSettings, Trajectories
from painn_fast.md.thermostats import Ensemble
from painn_fast.settings import Duration, Interval, Seed, Temperature, Time, TimeStep, Wavelength, Wavenumber
from painn_fast.spectra.density import NARROWEST, Analysis, nyquist
from painn_fast.spectra.quantum import QuantumCorrection
from painn_fast.spectra.window import WindowName
from painn_fast.units import parse_quantity
from painn_fast.vibrations.method import Method as HessianMethod

Method = Literal["t-rpmd", "rpmd", "classical", "te-pigs"]
ENSEMBLES: dict[Method, Ensemble] = {"t-rpmd": "t-rpmd", "rpmd": "rpmd", "classical": "nve", "te-pigs": "langevin"}
DEFAULTS: dict[str, dict[str, Any]] = {
    "classical": {"beads": 1},
    "te-pigs": {"beads": 10, "trajectories": 36, "time_step": "1 fs"},
}
"""Where those of a method are others: the path integrals of te-pigs are hotter, where fewer beads are as good, and its
trajectories, which cost little, scatter more than those of T-RPMD."""
DYNAMICS = "dynamics"
"""Folder of the trajectory within the output."""
CORRECTION = Path("te-pigs/training/te-pigs.safetensors")
PATH_INTEGRALS = Path("te-pigs/path-integrals")
"""Of te-pigs, within the output."""
SAMPLED, SETTLED = 12, 100.0
"""Most trajectories of path integrals of te-pigs, and fs after which their beads are in equilibrium about centroids."""

DEPTH = 3000.0
"""fs, the default, for a resolution of 15 cm-1."""


class SpectrumSettings(LoadOptions):
    """Settings from a model to its infrared and Raman spectrum: of the dynamics and of the analysis.

    Example:
        >>> from painn_fast.spectra import SpectrumSettings
        >>> settings = SpectrumSettings(model="ethanol", method="classical", duration="5 ps", laser="785 nm")
        >>> settings.beads, settings.duration, str(settings.folder)
        (1, 5000.0, 'ethanol-spectrum')
    """

    model: str = ""
    """A bundled model such as ethanol, or a model file."""
    committee: tuple[str, ...] = ()
    """A further model of a committee, with a run of its own: the spread between models is the error of the model."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of the network in dynamics and in the harmonic spectrum; relaxation is in float64."""
    device: str = "cpu"
    """cpu, cuda, cuda:1, ..."""
    structure: str | None = None
    """Any file that ASE reads; the first frame gives the harmonic spectrum. Default: that of the bundled model."""
    hessian: HessianMethod = "differences"
    """Hessian of the harmonic spectrum: central differences over 0.01 and 0.02 Å, or derivatives at the minimum."""
    conformers: Literal["search", "given", "one"] = "search"
    """Conformers that trajectories start from and lines are of: searched by torsions, those of the given structures, or
    the first structure's alone."""
    output: Annotated[str, Field(min_length=1)] | None = None
    """Folder for the results. Default: MODEL-spectrum."""
    trajectory: str | None = None
    """Analyse this run of dynamics instead of doing one."""
    method: Method = "t-rpmd"
    """Dynamics that the spectra are computed from."""
    methods: tuple[Method, ...] = ()
    """Several, to be compared, instead of `method`; `method = "classical, t-rpmd"` is the same."""
    beads: Beads = 16
    """Beads of the ring polymer, in te-pigs of its path integrals, 10 by default; 1 in classical dynamics."""
    trajectories: Trajectories = 12
    """Trajectories, run as one batch; 36 by default in te-pigs, whose trajectories are cheap and scatter more."""
    temperature: Temperature = "300 K"
    """Temperature of dynamics and of Raman intensities."""
    time_step: TimeStep = "0.5 fs"
    """Time step; 1 fs by default in te-pigs."""
    equilibration: Time = "0.25 ps"
    """Time before each trajectory with PILE-L (Langevin if classical)."""
    duration: Interval = "4 ps"
    """Time of each trajectory."""
    tau: Interval = "50 fs"
    """Time constant of the thermostat in the equilibration."""
    langevin_tau: Time = "0.2 ps"
    """Time constant of the weak Langevin thermostat in the dynamics of te-pigs, which widens bands by 5 cm-1 ps / tau;
    0 fs for constant energy."""
    seed: Seed = 0
    """Seed of velocities and noise."""
    fragments: Literal["stop", "note", "off"] | None = None
    """Where a bond breaks: stop the trajectory, note it and go on, or off. Default: stop for structures that are not
    periodic, off for others."""
    remove_rotation: bool = False
    """Start trajectories without angular momentum: narrower bands, no rotational ones."""
    dipole_every: Interval = "2 fs"
    """Time between records of the dipole."""
    polarizability_every: Interval = "2 fs"
    """Time between records of the polarizability."""
    velocities_every: Interval | None = None
    """Time between records of velocities, such as "2 fs", for a power spectrum; by default there is none."""
    stream: bool = False
    """Keep correlation functions and no frames of dipole, polarizability and velocities: for very long runs."""
    checkpoint: Duration = "60 s"
    """Wall-clock time between restart files."""
    window: WindowName = "gaussian"
    """Window on the correlation functions."""
    depth: Interval = "3 ps"
    """Length of the correlation functions; the longer, the better resolved (3 ps: 15 cm-1) and the noisier;
    three quarters of the duration if that is shorter."""
    highest: Wavenumber = "4000 cm-1"
    """End of the spectra."""
    laser: Wavelength = "532 nm"
    """Wavelength of the Raman laser."""
    sampling_temperature: Temperature = "550 K"
    """Temperature of the path integrals of te-pigs."""
    sampling_time_step: TimeStep = "1 fs"
    """Time step of the path integrals of te-pigs."""
    sampling_duration: Interval = "0.3 ps"
    """Time of each trajectory of the path integrals of te-pigs, of which there are 12 at most."""
    sampling_every: Interval = "2 fs"
    """Time between frames of the path integrals that the correction of te-pigs is trained on."""
    correction: str | None = None
    """A correction that te-pigs trained before, instead of sampling and training."""
    correction_training: str = "te-pigs"
    """Configuration that te-pigs trains the correction with, shipped or a file."""
    quantum_correction: QuantumCorrection = "harmonic"
    """Quantum correction of classical spectra; ring polymers need none."""
    sticks: Literal["harmonic", "anharmonic", "none"] = "harmonic"
    """Lines of the molecule in the picture; anharmonic ones (GVPT2) include overtones and combinations."""
    reverse_axis: bool = False
    """Draw wavenumbers from right to left, as infrared spectra of chemists are."""
    overlay: tuple[str, ...] = ()
    """CSV of wavenumber (cm-1) and intensity to draw over the infrared spectrum, scaled; raman=FILE over Raman."""

    @model_validator(mode="before")
    @classmethod
    def _methods(cls, values: Any) -> Any:
        """A list, or names with commas between them, are methods to compare; a classical one alone has one bead."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        listed = _listed(values.get("methods") or values.get("method"))
        if len(listed) > 1:
            values.pop("method", None)
            values["methods"] = listed
        elif listed:
            values["methods"], values["method"] = (), listed[0]
        if values.get("depth") is None and values.get("duration") is not None:
            values |= _depth_within(values["duration"])
        return {**DEFAULTS.get(listed[0], {}), **values} if len(listed) == 1 else values

    @model_validator(mode="after")
    def _sensible(self) -> SpectrumSettings:
        if self.committee and (self.methods or self.trajectory is not None or not self.model):
            raise ValueError("a committee is of models that run, by one method")
        if self.highest < NARROWEST:
            raise ValueError(f"highest must be at least {NARROWEST:g} cm-1, got {self.highest:g}")
        if self.methods:
            return self._comparison()
        if self.trajectory is not None:  # whose beads `analyse` knows
            return self
        if self.method != "classical" and self.quantum_correction != "harmonic":
            raise ValueError(f"quantum_correction {self.quantum_correction} is for classical runs, not {self.method}")
        if not self.depth < self.duration:
            raise ValueError(f"depth must be below duration, got {self.depth:g} and {self.duration:g} fs")
        for name in ("dipole_every", "polarizability_every", "velocities_every"):
            every = getattr(self, name)
            if every is not None and self.highest > nyquist(every):
                raise ValueError(f"{name} of {every:g} fs resolves nothing above {nyquist(every):.0f} cm-1")
        self.dynamics()
        if self.method == "te-pigs":
            self.sampling()
        return self

    def _comparison(self) -> SpectrumSettings:
        """Self, after the settings of each method have been checked."""
        if len(set(self.methods)) < len(self.methods):
            raise ValueError(f"a method twice in {', '.join(self.methods)}")
        if self.trajectory is not None:
            raise ValueError("either a finished trajectory or several methods to run")
        if self.quantum_correction != "harmonic" and "classical" not in self.methods:
            raise ValueError(f"quantum_correction {self.quantum_correction} is for classical runs")
        for method in self.methods:
            self.of(method)
        return self

    def of(self, method: Method) -> SpectrumSettings:
        """The settings of one of several methods: in a folder of its own, without what does not concern it."""
        values = self.model_dump(mode="json", exclude_none=True)
        values |= {"method": method, "methods": (), "overlay": (), "output": str(self.folder / method)}
        values |= {name: value for name, value in DEFAULTS.get(method, {}).items() if name not in self.model_fields_set}
        if method == "classical":
            values["beads"] = 1
        if method != "classical":
            values["quantum_correction"] = "harmonic"
        return SpectrumSettings.parse(values, where=method)

    @property
    def members(self) -> tuple[SpectrumSettings, ...]:
        """The settings of each model of the committee, `model` first, in a folder of its own."""
        values = self.model_dump(mode="json", exclude_none=True) | {"committee": (), "overlay": ()}
        if self.structure is None and self.model in bundled():
            values["structure"] = str(MODELS / f"{self.model}.xyz")
        each = enumerate((self.model, *self.committee))
        own = [{"model": one, "output": str(self.folder / f"member-{k}")} for k, one in each]
        return tuple(SpectrumSettings.parse(values | one, where="committee") for one in own)

    @property
    def folder(self) -> Path:
        """Folder of the results."""
        if self.output is not None:
            return Path(self.output)
        return Path(f"{Path(self.model or self.trajectory or 'painn').stem}-spectrum")

    @property
    def analysis(self) -> Analysis:
        """Window, depth and range."""
        return Analysis(self.window, self.depth, self.highest)

    @property
    def started(self) -> int | None:
        """Trajectories that start from conformers; None where they are given."""
        return None if self.trajectory is not None else self.trajectories

    @property
    def quantum_dynamics(self) -> bool:
        """Whether populations are those of quantum statistics."""
        return any(method != "classical" for method in self.methods or (self.method,))

    def dynamics(
        self, observed: tuple[str, ...] = ("dipole", "polarizability"), *, positions: bool = False
    ) -> MDSettings:
        """The run of dynamics that the spectra are computed from, with positions for torsion angles if asked for."""
        text = self.model_dump(mode="json")
        same = (
            *LoadOptions.model_fields, "model", "dtype", "device", "structure", "beads", "trajectories", "temperature",
            "time_step", "equilibration", "duration", "tau", "seed", "remove_rotation", "checkpoint",
        )  # fmt: skip
        values = {name: text[name] for name in same}
        values |= {f"{name}_every": text[f"{name}_every"] for name in observed}
        values |= {"ensemble": ENSEMBLES[self.method], "output": str(self.folder / DYNAMICS)}
        values |= {"energies_every": f"{10 * self.time_step!r} fs"}
        if not positions:  # with them the interval is the usual one; a resumed run keeps that which it began with
            values |= {"positions_every": "0 fs"}
        if self.method == "te-pigs":
            values |= {"beads": 1, "add": [self.correction or str(self.folder / CORRECTION)]}
            values |= self._weak_thermostat()
        values |= {"stream": text["depth"]} if self.stream else {}
        values |= {"fragments": self.fragments} if self.fragments is not None else {}
        return MDSettings.parse(values, where="dynamics")

    def _weak_thermostat(self) -> dict[str, Any]:
        """Of te-pigs; it would set the molecule in motion as a whole."""
        if not self.langevin_tau:
            return {"ensemble": "nve"}
        rest = ["translation", "rotation"] if self.remove_rotation else ["translation"]
        tau = f"{self.langevin_tau!r} fs"
        return {"tau": tau, "equilibration_tau": f"{self.tau!r} fs", "remove_com_motion": rest}

    def sampling(self) -> MDSettings:
        """The path integrals of te-pigs."""
        text = self.dynamics(()).model_dump(mode="json")
        text |= {
            "add": [],
            "ensemble": "pile-l",
            "beads": self.beads,
            "temperature": f"{self.sampling_temperature!r} K",
            "tau": f"{self.tau!r} fs",
            "equilibration_tau": None,
            "remove_com_motion": [],
        }
        text |= {"duration": f"{self.sampling_duration!r} fs", "positions_every": f"{self.sampling_every!r} fs"}
        text |= {"time_step": f"{self.sampling_time_step!r} fs", "trajectories": min(self.trajectories, SAMPLED)}
        text |= {"equilibration": f"{min(self.equilibration, SETTLED)!r} fs"}
        text |= {"energies_every": f"{10 * self.sampling_time_step!r} fs"}
        text |= {"stream": None, "output": str(self.folder / PATH_INTEGRALS)}
        return MDSettings.parse(text, where="sampling")


def _depth_within(duration: Any) -> dict[str, str]:
    """The default depth for a duration that is given; none for one that is wrong, which has an error of its own."""
    try:
        longest = 0.75 * parse_quantity(str(duration).strip(), "time")
    except PaiNNFastError:
        return {}
    return {"depth": f"{longest!r} fs"} if 0.0 < longest < DEPTH else {}


def _listed(names: Any) -> list[Any]:
    """Names from one, several or several in one text; anything else as it is."""
    parts = names if isinstance(names, (list, tuple)) else [] if names is None else [names]
    return [name for part in parts for name in (map(str.strip, part.split(",")) if isinstance(part, str) else [part])]
