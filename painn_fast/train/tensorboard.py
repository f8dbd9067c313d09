"""Learning curves for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from painn_fast.errors import PaiNNFastError


class TensorBoardWriter:
    """Writes numbers by epoch into `folder/tensorboard`; `tensorboard --logdir folder` shows them.

    Raises:
        PaiNNFastError: if TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise PaiNNFastError(
                "TensorBoard is not installed", fix="pip install tensorboard, or set tensorboard = false"
            ) from None
        self._writer: Any = SummaryWriter(str(folder / "tensorboard"))

    def write(self, entry: Mapping[str, float]) -> None:
        """One entry of the history of a training."""
        for name, value in entry.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, int(entry["epoch"]))
        self._writer.flush()
