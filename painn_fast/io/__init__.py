"""Model files: our own safetensors, and SchNetPack's, read without SchNetPack and without executing anything."""

from typing import TYPE_CHECKING

from painn_fast.runtime.lazy import lazy

if TYPE_CHECKING:
    from painn_fast.io.convert import convert
    from painn_fast.io.find import bundled
    from painn_fast.io.load import load
    from painn_fast.io.model_file import load_model, save_model
    from painn_fast.io.schnetpack_file import load_schnetpack
    from painn_fast.io.schnetpack_names import to_schnetpack_state_dict

__all__ = ["bundled", "convert", "load", "load_model", "load_schnetpack", "save_model", "to_schnetpack_state_dict"]

lazy(__name__)
