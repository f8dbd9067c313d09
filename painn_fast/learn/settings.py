"""Settings of `painn-fast sample` and `painn-fast learn`; their docstrings are the help of the flags."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from painn_fast.settings import Seed, Settings, Size, Temperature


class _Sampled(Settings):
    """What both verbs sample with."""

    beads: Annotated[int, Field(ge=1, le=4096)] = 16
    """Beads of the ring polymers; half as many at twice the temperature."""
    temperature: Temperature = "300 K"
    """Temperature; a part is sampled at twice this one."""
    seed: Seed = 0
    """Seed of dynamics, displacements and choices."""
    workers: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Processes that compute forces and labels. Default: one for each processor."""
    rdkit: bool | None = None
    """Whether to start from conformers of RDKit too. Default: if it is installed."""


class SampleSettings(_Sampled):
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
