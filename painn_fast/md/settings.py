"""Settings of a run of dynamics, as they stand in its TOML file; their docstrings are the help of the command."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from painn_fast.correlation.names import SERIES
from painn_fast.io.find import declares_units
from painn_fast.io.options import LoadOptions
from painn_fast.md.thermostats import Ensemble
from painn_fast.settings import Duration, Force, Interval, Seed, Temperatures, Time, TimeSteps

Motion = Literal["translation", "rotation"]
"""Of a molecule as a whole."""
RECORDED = ("positions", "velocities", "energies", "dipole", "polarizability", "centroids")
"""Series that a run can write, at the interval `<name>_every`."""
Beads = Annotated[int, Field(ge=1, le=4096)]
Trajectories = Annotated[int, Field(ge=1, le=10**6)]
MOST_COPIES, MOST_LAGS = 10**7, 10**6
"""Of beads in all trajectories, and of a correlation function that is kept."""
MOST_STEPS = 10**12
"""Of a run: 0.5 ms in steps of 0.5 fs. Noise has numbers up to 2^48."""
OFTEN, MOST_FRAMES, MOST_POSITIONS = 10.0, 1000, 10**5
"""Of positions that are recorded by default: least interval (fs), frames, and frames of all beads and trajectories, 24
bytes an atom each, so that a run of any length adds at most 22 MB for ethanol."""
FREE_TO_CHANGE = {"duration", "checkpoint", "max_time", "output", "device"}
"""Settings that a resumed run may have otherwise than it began."""


class MDSettings(LoadOptions):
    """A whole run: model, structure, ensemble, lengths, and intervals of what is written.

    Quantities are strings with their units; inside, times are fs, temperatures K. `each` gives the value of every
    trajectory, `total_steps` and `strides` count steps.

    Raises:
        PaiNNFastError: naming each key that is unknown, out of range or in contradiction to another.

    Example:
        >>> from painn_fast.md import MDSettings
        >>> settings = MDSettings(model="ethanol", time_step="0.5 fs", duration="1 ps", dipole_every="2 fs")
        >>> settings.duration, settings.total_steps, settings.strides["dipole"]
        (1000.0, 2000, 4)
        >>> MDSettings(ensemble="nve", beads=16)
        Traceback (most recent call last):
        painn_fast.errors.PaiNNFastError: ...for 16 beads choose rpmd, t-rpmd, pile-l or pile-g...
    """

    model: str = ""
    """A bundled model such as ethanol, or a model file."""
    members: tuple[str, ...] = ()
    """Models of an ensemble, instead of one model: forces are their mean."""
    add: tuple[str, ...] = ()
    """Models whose energies and forces are added to those of the model, such as a correction."""
    spread_limit: Force | None = None
    """Stop a trajectory where the standard deviation of the force on an atom over the members is larger, such as
    "0.5 eV/Ang"."""
    fragments: Literal["stop", "note", "off"] | None = None
    """Where a bond is twice as long as at the start and its atoms have no new partner: stop the trajectory, note it and
    go on, or off. Default: stop for structures that are not periodic, off for others."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of the network; positions, momenta and sums are always float64."""
    backend: Literal["auto", "fused", "reference"] = "auto"
    """The engine where it runs the model, the engine alone, or plain PyTorch."""
    device: str = "cpu"
    """cpu, cuda, cuda:1, ..."""
    structure: str | None = None
    """Any file that ASE reads; trajectories start from its frames in turn, also of several molecules. Default: that of
    the bundled model."""
    output: str = Field("md", min_length=1)
    """Folder for the results."""
    ensemble: Ensemble = "nve"
    """Equations of motion and thermostat."""
    beads: Beads = 1
    """Beads of the ring polymer; 1 is classical."""
    trajectories: Trajectories = 1
    """Trajectories, run as one batch."""
    temperature: Temperatures = "300 K"
    """Temperature, or one for each trajectory: "300 K, 400 K"."""
    time_step: TimeSteps = "0.5 fs"
    """Time step, or one for each trajectory; other times are counted in steps of the longest."""
    equilibration: Time = "0 fs"
    """Time before the run with PILE-L (Langevin for one bead), not recorded."""
    duration: Interval = "1 ps"
    """Time of the run."""
    tau: Interval = "100 fs"
    """Time constant of the thermostat on the centroid, in langevin, pile-l, pile-g and equilibration."""
    equilibration_tau: Interval | None = None
    """That of the equilibration, if it is to be another."""
    seed: Seed | tuple[Seed, ...] = 0
    """Seed of velocities and noise, in a file also one for each trajectory; trajectories of one seed differ too."""
    start: Literal["collapsed", "free"] = "collapsed"
    """Beads all on the structure, or distributed as those of free particles."""
    remove_rotation: bool = False
    """Start the run without angular momentum. Momentum of the centre of mass is removed always."""
    remove_com_motion: tuple[Motion, ...] = ()
    """Motions of the whole molecule that are constrained to zero under a thermostat."""
    energies_every: Interval = "5 fs"
    """Time between records of energies."""
    positions_every: Time | None = None
    """Time between records of positions, such as "2 fs", or "0 fs" for none. Default: a thousandth of the duration or
    10 fs, whichever is longer; rarer for more than 100 beads in all trajectories."""
    velocities_every: Interval | None = None
    """Time between records of velocities, such as "2 fs"; by default they are not recorded."""
    dipole_every: Interval | None = None
    """Time between records of the dipole, such as "1 fs"; by default it is not recorded."""
    polarizability_every: Interval | None = None
    """Time between records of the polarizability, such as "2 fs"; by default it is not recorded."""
    centroids_every: Interval | None = None
    """Time between records of centroids and mean forces on their beads, such as "2 fs"; by default there are none."""
    stream: Interval | None = None
    """Depth of correlation functions that dipole, polarizability and velocities are added to instead of being recorded,
    such as "2 ps": for spectra of very long runs."""
    checkpoint: Duration = "60 s"
    """Wall-clock time between restart files, which a killed run loses at most."""
    max_time: Duration | None = None
    """Wall-clock time, without compilation, after which the run saves and stops, to be resumed, such as "11.5 h"."""

    @model_validator(mode="before")
    @classmethod
    def _earlier_names(cls, values: Any) -> Any:
        """Settings of earlier versions, also in their restart files, have `hold` for `remove_com_motion`."""
        if isinstance(values, dict) and "hold" in values:
            if "remove_com_motion" in values:
                raise ValueError("hold is the earlier name of remove_com_motion: give one")
            return {("remove_com_motion" if name == "hold" else name): value for name, value in values.items()}
        return values

    @model_validator(mode="after")
    def _sensible(self) -> MDSettings:
        if self.ensemble in ("nve", "langevin") and self.beads > 1:
            raise ValueError(
                f"{self.ensemble} is classical; for {self.beads} beads choose rpmd, t-rpmd, pile-l or pile-g"
            )
        if len(self.members) == 1 or (self.spread_limit is not None and not self.members):
            raise ValueError("a spread needs two members or more")
        if self.members and self.model:
            raise ValueError("either model or members")
        for name in ("temperature", "time_step", "seed"):
            count = len(_several(getattr(self, name)))
            if count not in (1, self.trajectories):
                raise ValueError(
                    f"{name} has {count} values for {self.trajectories} trajectories: give one, or one each"
                )
        if self.beads * self.trajectories > MOST_COPIES:
            raise ValueError(
                f"{self.beads} beads of {self.trajectories} trajectories are too many for one run, "
                f"at most {MOST_COPIES} in all"
            )
        if self.total_steps > MOST_STEPS:
            raise ValueError(
                f"equilibration and duration are {self.total_steps:.3g} steps of {self.longest_step:g} fs, "
                f"more than {MOST_STEPS:.0e}"
            )
        if self.stream is not None and not any(self.stream >= 2 * every for every in self.streamed.values()):
            raise ValueError(
                "stream needs a dipole_every, polarizability_every or velocities_every of less than half its depth"
            )
        if self.stream is not None and self.stream > MOST_LAGS * min(self.streamed.values()):
            raise ValueError(f"stream of {self.stream:g} fs has more than {MOST_LAGS} of its intervals")
        for name in RECORDED:
            every = getattr(self, f"{name}_every")
            if every and not _whole(every / self.longest_step):
                raise ValueError(
                    f"{name}_every is not a multiple of time_step: {every:g} fs of {self.longest_step:g} fs"
                )
        return self

    def options_of(self, model: str) -> dict[str, Any]:
        """Arguments of `painn_fast.load` for a model; one that is added may state itself what the first does not."""
        return {} if model in self.add and declares_units(model) else self.load_options

    @property
    def longest_step(self) -> float:
        """fs; times are multiples of it."""
        return max(_several(self.time_step))

    def each(self, name: str) -> tuple[float, ...]:
        """The value of "temperature", "time_step" or "seed" for every trajectory."""
        values = _several(getattr(self, name))
        return values if len(values) == self.trajectories else values * self.trajectories

    @property
    def equilibration_steps(self) -> int:
        """Steps before the run."""
        return round(self.equilibration / self.longest_step)

    @property
    def total_steps(self) -> int:
        """Steps before the run and of it."""
        return self.equilibration_steps + max(round(self.duration / self.longest_step), 1)

    @property
    def strides(self) -> dict[str, int]:
        """Steps between records, for what is recorded."""
        every = {name: getattr(self, f"{name}_every") for name in RECORDED}
        return {name: round(time / self.longest_step) for name, time in every.items() if time}

    def with_positions(self, began: Mapping[str, Any] | None = None) -> MDSettings:
        """These settings with an interval for positions, where they have none.

        Args:
            began: settings of the run that is resumed, whose interval it is then; without one nothing is recorded.
        """
        if self.positions_every is not None:
            return self
        if began is not None:
            return self.parse(self.model_dump(mode="json") | {"positions_every": began["positions_every"] or "0 fs"})
        frames = min(MOST_FRAMES, MOST_POSITIONS / (self.beads * self.trajectories))
        stride = math.ceil(max(OFTEN, self.duration / frames) / self.longest_step)
        return self.model_copy(update={"positions_every": stride * self.longest_step})

    @property
    def streamed(self) -> dict[str, float]:
        """Intervals (fs) of what goes into correlation functions and is not kept."""
        if self.stream is None:
            return {}
        return {name: stride * self.longest_step for name, stride in self.strides.items() if name in SERIES}


def _several(value: float | tuple[float, ...]) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,)


def _whole(ratio: float) -> bool:
    return round(ratio) >= 1 and abs(ratio - round(ratio)) < 1e-6 * round(ratio)
