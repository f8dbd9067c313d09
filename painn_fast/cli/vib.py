"""`painn-fast vib`: vibrations of molecules at their minima."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from painn_fast.cli.evaluate import show
from painn_fast.cli.given import check_files, check_model
from painn_fast.cli.options import MODEL_FILE, Device, Dtype, Model, flag, number, with_flags
from painn_fast.errors import PaiNNFastError

if TYPE_CHECKING:
    from painn_fast.vibrations import (
        AnharmonicSpectrum,
        CommitteeAnharmonic,
        CommitteeLines,
        HarmonicSpectrum,
        Thermochemistry,
    )

STANDS_OUT = 0.02
"""Share of the strongest infrared intensity from which overtones and combinations are printed."""


@with_flags(options=MODEL_FILE)
def vib(
    model: Model,
    structure: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[MODEL...] [STRUCTURE...]",
            help="More models of a committee (.safetensors); molecules: files that ASE reads (Å), all frames. A "
            "bundled model has its own.",
            show_default=False,
        ),
    ] = None,
    anharmonic: Annotated[
        bool,
        typer.Option("--anharmonic", help="Second-order perturbation theory: overtones and combinations too."),
    ] = False,
    no_relax: Annotated[bool, typer.Option("--no-relax", help="The structures are at their minima.")] = False,
    temperature: Annotated[str, flag("K", 'Of the thermochemistry. Default: "298.15 K".')] = "298.15 K",
    pressure: Annotated[
        float, flag("PA", "Of the thermochemistry. Default: 101325.", parser=number(1e-9, 1e12, whole=False))
    ] = 101325.0,
    symmetry_number: Annotated[
        int, flag("N", "Rotations that leave the molecule as it is, such as 2 of water. Default: 1.", parser=number(1))
    ] = 1,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Default: MODEL-vib.", show_default=False),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what the folder holds.")] = False,
    *,
    options: dict[str, Any],
    dtype: Dtype = None,
    device: Device = None,
) -> None:
    """Vibrations of molecules: lines with intensities, thermochemistry, modes for a viewer.

    Wavenumbers in cm-1, infrared intensities in km/mol, Raman activities in Å⁴/amu, energies in eV. Structures relax
    first; Hessians of several are computed in batches. Of several models lines are means, with the standard deviation
    between the models as the error of the model. The folder, or one in it for each molecule of several, gets
    harmonic.csv, anharmonic.csv, thermochemistry.csv, minimum.xyz and modes.molden (Molden, Jmol, Avogadro).

    Example: painn-fast vib ethanol --anharmonic --output lines
    """
    from painn_fast.io.find import AFTER_MODEL, bundled, start_structure
    from painn_fast.units import parse_quantity, require_temperature

    kelvin = parse_quantity(temperature, "temperature")
    require_temperature(kelvin)
    check_model(model, options, dtype=dtype, device=device)
    more = [str(one) for one in structure or [] if one.suffix == ".safetensors" or str(one) in bundled()]
    for one in more:
        check_model(one, options)
    files = [one for one in structure or [] if str(one) not in more]
    if not files:
        start_structure(None, model, AFTER_MODEL)
    check_files(*files)
    folder = output or Path(f"{Path(model).stem}-vib")
    if not overwrite and any(folder.glob("**/harmonic.csv")):
        raise PaiNNFastError("the folder holds results", where=folder, fix="take another, or --overwrite")
    from painn_fast.io import load
    from painn_fast.io.minima import start_structures
    from painn_fast.label.structures import structures
    from painn_fast.runtime.folders import molecule_folder
    from painn_fast.runtime.progress import StatusLine
    from painn_fast.vibrations import harmonic, harmonic_many

    potential = load(model, **options, dtype=dtype, device=device or "cpu")
    members = [potential, *(load(one, **options, dtype=dtype, device=device or "cpu") for one in more)]
    molecules = [atoms for path in files for atoms in structures(path)] or start_structures(None, model)
    with StatusLine() as status:
        if len(molecules) == 1 and not more:  # the analytic Hessian, for the roughness, takes longer than all the rest
            spectra = [harmonic(potential, molecules[0], relaxed=no_relax)]
        else:
            spectra = harmonic_many(potential, molecules, relaxed=no_relax, tell=status.update)
        starts = [own.atoms for own in spectra]
        others = [harmonic_many(one, starts, relaxed=no_relax) for one in members[1:]]
        for k, each in enumerate(zip(spectra, *others, strict=True)):
            formula = each[0].atoms.get_chemical_formula()
            status.update(f"molecule {k + 1} of {len(spectra)}: {formula}")
            own_folder = molecule_folder(folder, k, formula, len(spectra))
            gas = (kelvin, pressure, symmetry_number)
            _report(members, each, own_folder, anharmonic=anharmonic, gas=gas, title=len(spectra) > 1)
    typer.echo(folder)


def _report(
    models: list[Any],
    harmonic: tuple[HarmonicSpectrum, ...],
    folder: Path,
    *,
    anharmonic: bool,
    gas: tuple[float, float, int],
    title: bool,
) -> None:
    """Compute what is left for one molecule, from the harmonic lines of each model; write files and print tables."""
    from painn_fast.evaluate import evaluate
    from painn_fast.io.structures import write_extxyz
    from painn_fast.runtime.progress import warn
    from painn_fast.spectra import table
    from painn_fast.spectra.run import about_model
    from painn_fast.vibrations import anharmonic as anharmonic_lines
    from painn_fast.vibrations import committee, committee_anharmonic, sticks, thermochemistry
    from painn_fast.vibrations.molden import write_molden

    model, lines = models[0], harmonic[0]
    several = committee(harmonic) if len(harmonic) > 1 else None
    about = about_model(model) | {"structure": lines.atoms.get_chemical_formula()}
    if title:
        typer.echo(f"\n{folder.name}")
    header = {"what": "harmonic spectrum at the minimum", **about, **lines.about()}
    means = {}
    if several is not None:
        lines = several.lines
        means = {"committee": f"means over {several.members} models; model and minimum are those of the first"}
    table.write_harmonic(folder / "harmonic.csv", lines, header | means, several)
    write_extxyz(folder / "minimum.xyz", lines.atoms)
    write_molden(folder / "modes.molden", lines)
    minimum = bool((lines.wavenumber > 0).all())
    own = both = None
    if anharmonic:
        each = [anharmonic_lines(one, plain.atoms, lines=plain) for one, plain in zip(models, harmonic, strict=True)]
        both = committee_anharmonic(each) if several is not None else None
        own = each[0] if both is None else both.lines
        header = {"what": "anharmonic lines, GVPT2", **about, **own.about(), **means}
        table.write_anharmonic(folder / "anharmonic.csv", sticks(own), header, both)
    _show_modes(lines, own, several, both)
    if not minimum:
        warn("imaginary frequencies: no thermochemistry")
        return
    energy = evaluate(model, [lines.atoms], ["energy"])["energy"][0]
    thermo = thermochemistry(lines, energy, temperature=gas[0], pressure=gas[1], symmetry_number=gas[2])
    quantities = _quantities(thermo, own)
    table.write_table(folder / "thermochemistry.csv", {name: [value] for name, value in quantities.items()}, about)
    for name, value in quantities.items():
        typer.echo(f"{name}: {value:.7g}")


def _quantities(thermo: Thermochemistry, own: AnharmonicSpectrum | None) -> dict[str, float]:
    """With their units."""
    from painn_fast.units import EV_IN_CM

    anharmonic = {} if own is None else {"anharmonic zero-point energy / eV": own.zero_point / EV_IN_CM}
    return {
        "temperature / K": thermo.temperature,
        "pressure / Pa": thermo.pressure,
        "symmetry number": thermo.symmetry_number,
        "energy / eV": thermo.energy,
        "zero-point energy / eV": thermo.zero_point,
        **anharmonic,
        "internal energy / eV": thermo.internal_energy,
        "enthalpy / eV": thermo.enthalpy,
        "entropy / (meV/K)": 1e3 * thermo.entropy,
        "free energy / eV": thermo.free_energy,
    }


def _show_modes(
    lines: HarmonicSpectrum,
    own: AnharmonicSpectrum | None,
    several: CommitteeLines | None,
    both: CommitteeAnharmonic | None,
) -> None:
    """Fundamentals, then the overtones and combinations that stand out, and what they rest on."""
    from painn_fast.vibrations import sticks

    rows = []
    fundamentals = {} if own is None else {state[0]: i for i, state in enumerate(own.states) if len(state) == 1}
    for k, name in enumerate(lines.names):
        row: dict[str, Any] = {"mode": str(k + 1), "harmonic / cm-1": f"{lines.wavenumber[k]:.1f}"}
        source, at = (own, fundamentals[k]) if own is not None and k in fundamentals else (lines, k)
        if several is not None:
            row["model error / cm-1"] = f"{several.wavenumber_error[k]:.1f}"
        if own is not None:
            row["anharmonic / cm-1"] = f"{own.wavenumber[at]:.1f}" if k in fundamentals else "-"
        if both is not None:
            row["model error of it / cm-1"] = f"{both.wavenumber_error[at]:.1f}" if k in fundamentals else "-"
        for title, values in (("IR / km/mol", source.intensity), ("Raman / Å⁴/amu", source.activity)):
            if values is not None:
                row[title] = f"{values[at]:.2f}"
        rows.append(row | {"motion": name})
    show(rows)
    if own is None:
        return
    two = sticks(own)
    if two.intensity is not None:
        strong = (two.quanta > 1) & (two.intensity > STANDS_OUT * two.intensity.max())
        for i in strong.nonzero()[0]:
            typer.echo(
                f"line {two.labels[i]}: {two.wavenumber[i]:.1f} cm-1, {two.intensity[i]:.2f} km/mol, {two.names[i]}"
            )
    for key, text in own.about().items():
        typer.echo(f"{key}: {text}")
