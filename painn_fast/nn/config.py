"""What a model is, as data: everything that is needed to build it except its weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from painn_fast import units
from painn_fast.errors import PaiNNFastError
from painn_fast.settings import Settings

Ablation = Literal[
    "none",
    "no_scalar_product",
    "no_vector_propagation",
    "no_scalar_product_no_vector_propagation",
    "no_vector_features",
]


Width = Annotated[int, Field(ge=1, le=16384)]
"""Of a layer; far beyond what any network of atoms has."""
Layers = Annotated[int, Field(ge=1, le=100)]
LONGEST = 1000.0
"""Of a cut-off, in the model's `length_unit`."""


class ElectronicConfig(Settings):
    """Embedding of the total charge or the spin multiplicity by attention over the atoms of a molecule."""

    n_residual: int = Field(1, ge=0, le=100)
    activation: Literal["silu", "shifted_softplus"] = "shifted_softplus"


class RepresentationConfig(Settings):
    """The network between atoms and features. Lengths are in the model's `length_unit`."""

    n_features: Width = 128
    n_layers: Layers = 3
    n_rbf: int = Field(20, ge=2, le=16384)
    radial_basis: Literal["sinc", "gaussian"] = "sinc"
    gaussian_start: float = Field(0.0, ge=-LONGEST, le=LONGEST)
    cutoff: float = Field(5.0, ge=1e-3, le=LONGEST)
    cutoff_function: Literal["cosine", "mollifier", "switch"] = "cosine"
    switch_on: float | None = Field(None, ge=0, le=LONGEST)
    shared_filters: bool = False
    shared_interactions: bool = False
    activation: Literal["silu", "shifted_softplus"] = "silu"
    epsilon: float = Field(1e-3, ge=1e-30, le=1.0)
    """In |V v| = sqrt(V^2 + epsilon). SchNetPack has 1e-8, which leaves a cusp where a vector channel passes zero: the
    surface is rough within 1 mÅ of symmetric structures and minima, and harmonic lines are wrong (docs/spectra.md)."""
    max_z: int = Field(100, ge=1, le=1000)
    charge_embedding: ElectronicConfig | None = None
    spin_embedding: ElectronicConfig | None = None
    ablation: Ablation = "none"

    @model_validator(mode="after")
    def _switch_inside(self) -> RepresentationConfig:
        if self.cutoff_function == "switch" and not (self.switch_on is not None and 0 <= self.switch_on < self.cutoff):
            raise ValueError(f"the switch needs 0 <= switch_on < cutoff = {self.cutoff}, got {self.switch_on}")
        return self


class _Head(Settings):
    hidden: Annotated[tuple[Width, ...], Field(max_length=100)] | None = None
    """Widths of the hidden layers; None halves the width from layer to layer."""
    n_layers: Layers = 2
    """Layers when `hidden` is None."""


class EnergyHead(_Head):
    """Sum of atomic energies; gives energy, energies, forces and stress."""

    type: Literal["energy"] = "energy"


class DipoleHead(_Head):
    """Charges times positions, plus atomic dipoles."""

    type: Literal["dipole"] = "dipole"
    atomic_dipoles: bool = True
    correct_charges: bool = True
    """Shift the charges so that they sum to the total charge."""
    magnitude: bool = False
    """Give |mu| as `dipole_magnitude` beside the vector."""


class PolarizabilityHead(_Head):
    """Isotropic atomic terms plus symmetrised products of atomic vectors with positions."""

    type: Literal["polarizability"] = "polarizability"


class SpatialExtentHead(_Head):
    """Electronic spatial extent <R^2>: atomic charges times squared distance from the centre of mass."""

    type: Literal["spatial_extent"] = "spatial_extent"
    unit: Literal["Ang^2", "Bohr^2"] = "Ang^2"


class ScalarHead(_Head):
    """Any scalar, the sum or mean of atomic contributions; returned in `unit`, energies in eV."""

    type: Literal["scalar"] = "scalar"
    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    unit: str
    aggregation: Literal["sum", "mean"] = "sum"


Head = Annotated[
    EnergyHead | DipoleHead | PolarizabilityHead | SpatialExtentHead | ScalarHead, Field(discriminator="type")
]

TAKEN = {"energy", "energies", "forces", "stress", "dipole", "charges", "dipole_magnitude", "polarizability"}
"""Names that a scalar head cannot have."""


class PotentialConfig(Settings):
    """A whole model: representation, heads, and the units that its weights work in."""

    representation: RepresentationConfig = RepresentationConfig()
    heads: tuple[Head, ...] = (EnergyHead(),)
    energy_unit: str = "eV"
    length_unit: str = "Ang"
    dipole_unit: str = "e Ang"
    polarizability_unit: str = "Ang^3"
    elements: tuple[Annotated[int, Field(ge=0, le=118)], ...] | None = None
    """Atomic numbers that the model was trained on; None where a file does not state them."""
    name: str = "painn"
    provenance: dict[str, str] = {}
    """Where the weights come from: data, level of theory, errors."""

    @field_validator("energy_unit", "length_unit", "dipole_unit", "polarizability_unit")
    @classmethod
    def _known_unit(cls, value: str, info) -> str:  # type: ignore[no-untyped-def]
        try:
            units.factor(info.field_name.removesuffix("_unit"), value)
        except PaiNNFastError as error:
            raise ValueError(str(error)) from error
        return value

    @model_validator(mode="after")
    def _heads_fit(self) -> PotentialConfig:
        names = [head_name(head) for head in self.heads]
        if not names:
            raise ValueError("a model needs at least one head")
        if len(set(names)) < len(names):
            raise ValueError(f"heads of the same name: {names}")
        for head in self.heads:
            if isinstance(head, ScalarHead) and head.name in TAKEN | {"spatial_extent"}:
                raise ValueError(f"a scalar head cannot be called '{head.name}'")
        vectors = any(
            isinstance(head, PolarizabilityHead) or (isinstance(head, DipoleHead) and head.atomic_dipoles)
            for head in self.heads
        )
        if vectors and self.representation.ablation == "no_vector_features":
            raise ValueError("polarizability and atomic dipoles need vector features, which the ablation removes")
        return self


def head_name(head: Head) -> str:
    """The property that a head is called by."""
    return head.name if isinstance(head, ScalarHead) else head.type
