"""Labels from electronic structure: energies, forces, dipoles and polarizabilities of given geometries."""

from painn_fast.label.run import label

__all__ = ["label"]
