"""`painn-fast convert`: SchNetPack's files to ours and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from painn_fast.cli.given import check_model
from painn_fast.cli.options import MODEL_FILE, Text, flag, number, with_flags


@with_flags(options=MODEL_FILE)
def convert(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A SchNetPack file, or a painn-fast model.")],
    target: Annotated[
        Path,
        typer.Argument(
            metavar="TARGET",
            help="A new file: .safetensors for a painn-fast model, .pt for a state dict, .pt2 for torch.export.",
        ),
    ],
    options: dict[str, Any],
    epsilon: Annotated[
        float | None,
        flag(
            "NUMBER",
            "In |V v| = sqrt(V² + epsilon), which a plain state dict does not hold; SchNetPack's is 1e-8.",
            parser=number(1e-30, 1, whole=False),
        ),
    ] = None,
    properties: Annotated[
        Text, flag("NAMES", "Results of a .pt2, with commas. Default: energy, forces, dipole, polarizability it has.")
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile a .pt2 for this processor, which takes minutes and g++.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing TARGET.")] = False,
) -> None:
    """Convert SchNetPack's models (best_model, best_inference_model, .task, .ckpt) to painn-fast, and back.

    Back means to a state dict that SchNetPack loads, into a PaiNN with the epsilon that is printed. SchNetPack need not
    be installed, and nothing in its files is executed. Weights keep the units that they were trained in; a painn-fast
    file states them, so that results come in eV, Å, e Å, Å³.

    A .pt2 is the network in plain PyTorch with its forces, for programs in C++ and Python without painn-fast.

    Example: painn-fast convert best_model water.safetensors --energy-unit eV
    """
    from painn_fast.io.find import STATE_DICTS, check_target

    check_target(target, overwrite=overwrite)
    check_model(source, options)
    from painn_fast.io.convert import convert as convert_file

    names = [name.strip() for name in properties.split(",")] if properties else None
    written = convert_file(
        source, target, overwrite=overwrite, epsilon=epsilon, properties=names, compiled=compiled, **options
    )
    typer.echo(written)
    if written.suffix in STATE_DICTS:
        from painn_fast.io import load

        value = load(source, epsilon=epsilon, **options).config.representation.epsilon
        typer.echo(f"a state dict holds no epsilon: build SchNetPack's PaiNN with epsilon={value:g}", err=True)
