"""Flags that several verbs share."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.models import OptionInfo

from painn_fast.errors import PaiNNFastError

Text = str | None


def flag(metavar: str, text: str) -> OptionInfo:
    """A flag that is None unless given, so that the file or the settings decide; its help tells their default."""
    return typer.Option(metavar=metavar, help=text, show_default=False)


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A bundled model such as ethanol, a painn-fast .safetensors file, or a SchNetPack file.",
        show_default=False,
    ),
]
EnergyUnit = Annotated[
    str | None,
    typer.Option(
        metavar="UNIT",
        help="Unit of energy that a SchNetPack model was trained in, such as eV or kcal/mol; its file does not tell.",
        show_default=False,
    ),
]
LengthUnit = Annotated[
    str, typer.Option(metavar="UNIT", help="Unit of length that a SchNetPack model was trained in: Ang or Bohr.")
]
LengthUnitOrFile = Annotated[
    str | None,
    typer.Option(
        "--length-unit",
        metavar="UNIT",
        help="Unit of length that a SchNetPack model was trained in: Ang or Bohr. Default: Ang.",
        show_default=False,
    ),
]
Dtype = Annotated[Text, flag("DTYPE", "Of the network, float32 or float64. Default: the file's.")]
Device = Annotated[Text, flag("DEVICE", "cpu, cuda, cuda:1, ... Default: cpu.")]
DipoleUnit = Annotated[
    str | None,
    typer.Option(metavar="UNIT", help="Unit of the dipoles of a SchNetPack model, such as D.", show_default=False),
]
PolarizabilityUnit = Annotated[
    str | None,
    typer.Option(metavar="UNIT", help="Unit of the polarizabilities of a SchNetPack model.", show_default=False),
]
Heads = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Heads of a plain state dict of SchNetPack, in order, such as energy,dipole,polarizability.",
        show_default=False,
    ),
]
Symbols = Annotated[
    str | None, typer.Option(metavar="ELEMENTS", help='Atoms of a .npy, such as "O H H".', show_default=False)
]
Geometry = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Another .npz with R and z, where this one has labels only.", show_default=False),
]
Exclude = Annotated[
    str | None,
    typer.Option(metavar="LIST", help="Text file with numbers of structures to leave out.", show_default=False),
]
Periodic = Annotated[bool | None, typer.Option(help="Whether cells count, whatever the files say.", show_default=False)]
Output = Annotated[
    str | None, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the results.", show_default=False)
]


def load_options(
    energy_unit: str | None,
    length_unit: str,
    dipole_unit: str | None,
    polarizability_unit: str | None,
    heads: str | None,
) -> dict[str, Any]:
    """These flags as arguments of `painn_fast.load`."""
    return {
        "energy_unit": energy_unit,
        "length_unit": length_unit,
        "dipole_unit": dipole_unit,
        "polarizability_unit": polarizability_unit,
        "heads": heads,
    }


def pairs(flag: str, given: list[str]) -> dict[str, str]:
    """NAME=VALUE flags as a dictionary.

    Raises:
        PaiNNFastError: if one has no name or no "=".
    """
    result = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise PaiNNFastError(f"cannot read {flag}", got=repr(text), expected="NAME=VALUE")
        result[name] = value
    return result


def given(**flags: Any) -> dict[str, Any]:
    """The flags that were given, as settings."""
    return {name: value for name, value in flags.items() if value is not None}
