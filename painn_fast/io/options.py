"""What the files of SchNetPack do not state, as settings."""

from __future__ import annotations

from typing import Any

from painn_fast.settings import Settings


class LoadOptions(Settings):
    """How a model file is read; painn-fast's own files state all of it."""

    energy_unit: str | None = None
    """Unit of energy that a SchNetPack model was trained in, such as eV or kcal/mol; its file does not state it."""
    length_unit: str = "Ang"
    """Unit of length that a SchNetPack model was trained in: Ang or Bohr."""
    dipole_unit: str | None = None
    """Unit of the dipoles of a SchNetPack model, such as D."""
    polarizability_unit: str | None = None
    """Unit of the polarizabilities of a SchNetPack model, such as Ang^3."""
    heads: str | None = None
    """Heads of a plain state dict of SchNetPack, in order, such as energy,dipole,polarizability."""

    @property
    def load_options(self) -> dict[str, Any]:
        """Arguments of `painn_fast.load`."""
        return {name: getattr(self, name) for name in LoadOptions.model_fields}
