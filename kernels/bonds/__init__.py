"""Broken bonds of trajectories, and bonds that were only exchanged for others."""

from painn_fast.kernels.bonds.ops import update_bonds
from painn_fast.kernels.bonds.reference import CONTACT, STRETCH, Bonds, Contacts, nearest_image

__all__ = ["CONTACT", "STRETCH", "Bonds", "Contacts", "nearest_image", "update_bonds"]
