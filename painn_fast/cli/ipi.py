"""`painn-fast ipi`: forces for i-PI."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from painn_fast.cli.given import check_files, check_model
from painn_fast.cli.options import MODEL_FILE, Device, Dtype, Model, Text, flag, number, with_flags


@with_flags(options=MODEL_FILE)
def ipi(
    model: Model,
    structure: Annotated[
        Text,
        typer.Argument(
            metavar="STRUCTURE",
            help="Elements in i-PI's order and whether it is periodic, a file of ASE's; a bundled model has its own.",
            show_default=False,
        ),
    ] = None,
    address: Annotated[Text, flag("HOST:PORT", "Where i-PI listens. Default: localhost:31415.")] = None,
    unix: Annotated[Text, flag("NAME", 'Instead: the address of i-PI\'s <ffsocket mode="unix">, or a path.')] = None,
    clients: Annotated[
        int, flag("N", "Connections, one for each bead, all served in one batch. Default: 1.", parser=number(1, 4096))
    ] = 1,
    properties: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Into i-PI's extras, with commas: dipole (e a0), polarizability (a0^3); of an ensemble also "
            "energy_spread (hartree), forces_spread (hartree/bohr), dipole_spread, polarizability_spread. "
            "Default: none.",
            show_default=False,
        ),
    ] = "",
    members: Annotated[
        list[str] | None, flag("MODEL", "Another model of an ensemble, may be repeated: forces are the means over all.")
    ] = None,
    *,
    options: dict[str, Any],
    dtype: Dtype = None,
    device: Device = None,
    timeout: Annotated[str, flag("TIME", 'How long to wait for i-PI to start. Default: "5 min".')] = "5 min",
) -> None:
    """Serve i-PI's ffsocket: energies, forces and virials of all beads in one batch, until i-PI ends.

    i-PI uses atomic units: energies and virials in hartree, forces in hartree/bohr. The model's own are eV and Å.

    Example: painn-fast ipi ethanol --address localhost:31415 --clients 16
    """
    from painn_fast.adapters.ipi_client import Address, Client
    from painn_fast.errors import PaiNNFastError
    from painn_fast.io.find import AFTER_MODEL, start_structure
    from painn_fast.runtime.progress import StatusLine
    from painn_fast.units import parse_quantity

    if address is not None and unix is not None:
        raise PaiNNFastError("two addresses", got=f"--address {address} --unix {unix}", fix="give one of them")
    where = Address(unix=unix) if unix is not None else Address.parse(address or "localhost:31415")
    seconds = parse_quantity(timeout, "duration")
    for one in (model, *(members or ())):
        check_model(one, options, dtype=dtype, device=device)
    check_files(start_structure(structure, model, AFTER_MODEL))
    from painn_fast.adapters.ipi import Driver

    driver = Driver(model, structure, properties, dtype, device, members=members or (), **options)
    driver.warm_up(clients)
    with StatusLine() as status:
        Client(driver.evaluate, where, clients, timeout=seconds, tell=status.update, keep=status.keep).run()
