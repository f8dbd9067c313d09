"""PaiNN for SchNetPack, and live SchNetPack models with it inside. SchNetPack is imported by `restore` alone.

`accelerate` turns the representation of a live model into our class where it stands: submodules, parameters and hooks
stay the same objects, so that training, checkpoints, `.to()` and `deepcopy` go on as before. A whole model gets a
class of ours derived from its own, for the engine in eval mode.
"""

from painn_fast.io.schnetpack_names import to_schnetpack_state_dict
from painn_fast.schnetpack.painn import PaiNN
from painn_fast.schnetpack.swap import accelerate, restore

__all__ = ["PaiNN", "accelerate", "restore", "to_schnetpack_state_dict"]
