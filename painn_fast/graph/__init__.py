"""Molecules and crystals as one batch of tensors."""

from painn_fast.graph.batch import AtomicBatch, batch_arrays, batch_atoms, concatenate

__all__ = ["AtomicBatch", "batch_arrays", "batch_atoms", "concatenate"]
