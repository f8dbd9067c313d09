"""What the files of SchNetPack do not contain, as settings."""

from __future__ import annotations

from typing import Any

from painn_fast.settings import Settings


class LoadOptions(Settings):
    """How a model file is read; painn-fast's own files need none of it."""

    energy_unit: str | None = None
    """For SchNetPack files with an energy head, which do not contain it."""
    length_unit: str = "Ang"
    """Of the positions that a SchNetPack model was trained on."""
    dipole_unit: str | None = None
    """For SchNetPack files with a dipole head."""
    polarizability_unit: str | None = None
    """For SchNetPack files with a polarizability head."""
    heads: str | None = None
    """Heads of a plain state dict of SchNetPack, in order, such as "energy,dipole"."""

    @property
    def load_options(self) -> dict[str, Any]:
        """Arguments of `painn_fast.load`."""
        return {name: getattr(self, name) for name in LoadOptions.model_fields}
