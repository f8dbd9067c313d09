"""Engines of other packages that run our models: i-PI, as a client of its sockets or in its process.

OpenMM, LAMMPS with its ML-IAP, and TorchSim have modules of their own: `openmm`, `lammps`, `mliap`, `torchsim`.
"""

from typing import TYPE_CHECKING

from painn_fast.runtime.lazy import lazy

if TYPE_CHECKING:
    from painn_fast.adapters.ipi import Driver
    from painn_fast.adapters.ipi_client import Address, Client
    from painn_fast.adapters.ipi_protocol import Result, Structures

__all__ = ["Address", "Client", "Driver", "Result", "Structures"]

lazy(__name__)
