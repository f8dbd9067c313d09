"""Which bonds of trajectories have broken, and which were only exchanged for others."""

from painn_fast.kernels.bonds.ops import look
from painn_fast.kernels.bonds.reference import CONTACT, STRETCH, Bonds, Contacts, nearest_image

__all__ = ["CONTACT", "STRETCH", "Bonds", "Contacts", "look", "nearest_image"]
