"""Model files: our own safetensors, and SchNetPack's, read without SchNetPack and without executing anything."""

from painn_fast.io.load import bundled, load
from painn_fast.io.model_file import load_model, save_model

__all__ = ["bundled", "load", "load_model", "save_model"]
