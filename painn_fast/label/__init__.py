"""Labels from electronic structure: energies, forces, dipoles and polarizabilities of given geometries."""

from typing import TYPE_CHECKING

from painn_fast.runtime.lazy import lazy

if TYPE_CHECKING:
    from painn_fast.label.run import label

__all__ = ["label"]

lazy(__name__)
