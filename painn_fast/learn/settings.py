"""Settings of `painn-fast sample` and `painn-fast learn`; their docstrings are the help of the flags."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from painn_fast.settings import Duration, Force, Interval, Seed, Settings, Size, Temperature

Count = Annotated[int, Field(ge=1, le=4096)]
CHEAP = {"gfn1": ("tblite", "GFN1-xTB"), "gfn2": ("tblite", "GFN2-xTB"), "ipea1": ("tblite", "IPEA1-xTB")}
"""Short names of methods, for --pretrain."""


class Sampled(Settings):
    """What both verbs sample with."""

    beads: Count = 16
    """Beads of the ring polymers; half as many at twice the temperature."""
    temperature: Temperature = "300 K"
    """Temperature; a part is sampled at twice this one."""
    seed: Seed = 0
    """Seed of dynamics, displacements, choices and weights."""
    workers: Count | None = None
    """Processes that compute forces and labels. Default: one for each processor."""
    rdkit: bool | None = None
    """Whether to start from conformers of RDKit too. Default: if it is installed."""


class SampleSettings(Sampled):
    """Structures to label, from one geometry.

    Example:
        >>> from painn_fast.learn import SampleSettings
        >>> SampleSettings(structure="methanol.xyz", count=200).temperature
        300.0
    """

    structure: str | None = None
    """Any file that ASE reads; its first frame."""
    method: str = "tblite"
    """Surface to sample on: tblite, pyscf, model:NAME, or an ASE calculator as module:Class."""
    level: str | None = None
    """Level of theory. Default: "GFN2-xTB" of tblite, "PBE0/def2-SVPD" of pyscf."""
    options: dict[str, Any] = {}
    """Further arguments of the method."""
    count: Size = 1000
    """Structures."""
    output: str = Field("sampled.xyz", min_length=1)
    """Extended XYZ."""
    overwrite: bool = False
    """Replace the output."""


class LearnSettings(Sampled):
    """A model of one molecule, from one geometry and a method that labels.

    Example:
        >>> from painn_fast.learn import LearnSettings
        >>> settings = LearnSettings(structure="methanol.xyz", method="pyscf", labels=500, time="8 h")
        >>> settings.time, settings.aim
        (28800.0, 0.5)
    """

    structure: str | None = None
    """Any file that ASE reads; its first frame."""
    method: str = "tblite"
    """Method that labels: pyscf, tblite, model:NAME, or an ASE calculator as module:Class."""
    level: str | None = None
    """Level of theory. Default: "GFN2-xTB" of tblite, "PBE0/def2-SVPD" of pyscf."""
    options: dict[str, Any] = {}
    """Further arguments of the method."""
    surface: str = "tblite"
    """Cheap surface to sample on at first: as the method."""
    surface_level: str | None = None
    """Its level of theory. Default: that of its method."""
    pretrain: str | None = None
    """Train on cheap labels first, such as "gfn2:2000": gfn1, gfn2 or ipea1, or a method as for the surface."""
    labels: Size | None = None
    """Labels in all, held-out ones included. Default: 2000, or as many as a quarter of the time gives."""
    polarizabilities: Annotated[int, Field(ge=0, le=10**9)] | None = None
    """Structures of these whose polarizability is computed too. Default: a fifth."""
    time: Duration | None = None
    """Wall-clock time in all, such as "8 h"; trainings are as long as it allows."""
    aim: Annotated[float, Field(gt=0, le=1000)] = 0.5
    """Error of forces on fresh beads, kcal/mol/Å, at which no further structures are labelled."""
    rounds: Annotated[int, Field(ge=1, le=100)] = 3
    """Rounds of labels at most."""
    members: Annotated[int, Field(ge=2, le=100)] = 2
    """Models of the committee."""
    spread_limit: Force = "1 eV/Ang"
    """Spread of the committee's force on an atom at which a trajectory of the exploration stops."""
    features: Annotated[int, Field(ge=1, le=1024)] = 64
    """Features of the network."""
    layers: Annotated[int, Field(ge=1, le=10)] = 3
    """Layers of the network."""
    steps: Size = 6000
    """Training steps of a round, where there is no limit of time."""
    final_steps: Size = 40000
    """Training steps of the last training, where there is no limit of time."""
    explore: Interval = "1 ps"
    """Time of the dynamics in which a round explores."""
    dynamics: Interval = "20 ps"
    """Time of the RPMD that the verdict is based on; of NVE a half, with twice the beads a quarter."""
    check_hessian: bool = False
    """Compare lines with those of the method's own Hessian, which costs 12 labels an atom and conformer."""
    dask: str | None = None
    """Address of a Dask scheduler whose workers label, such as tcp://host:8786."""
    output: str = Field("learned", min_length=1)
    """Folder for the results."""

    @model_validator(mode="after")
    def _sensible(self) -> LearnSettings:
        if self.pretrain is not None:
            self.cheap_labels  # noqa: B018  raises for what cannot be read
        if self.labels is not None and self.labels < 20 * (self.rounds + 1):
            raise ValueError(f"labels: {self.labels} are too few for {self.rounds} rounds, which need 20 each and 20")
        return self

    @property
    def cheap_labels(self) -> tuple[str, str | None, int] | None:
        """Method, level and number of cheap labels to train on first."""
        if self.pretrain is None:
            return None
        name, _, count = self.pretrain.rpartition(":")
        if not name or not count.isdecimal() or int(count) < 20:
            raise ValueError(f"pretrain: cannot read {self.pretrain!r}; expected METHOD:COUNT of 20 or more: gfn2:2000")
        return (*CHEAP.get(name, (name, None)), int(count))
