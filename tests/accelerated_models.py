"""SchNetPack models, untouched and accelerated, and structures for them."""

import copy

import numpy as np
import torch
from ase.build import molecule

import painn_fast as pf


def frames():
    generator, ion = np.random.default_rng(0), molecule("CH3CH2OH")
    ion.info["charge"] = 1.0
    structures = [molecule("H2O"), ion, molecule("C2H4")]
    for atoms in structures:
        atoms.positions += generator.normal(scale=0.05, size=atoms.positions.shape)
    return structures


def both(spk, dtype=torch.float64, **options):
    """An untouched model and the same, accelerated."""
    plain = spk.model(**options).to(dtype)
    return plain, pf.accelerate(copy.deepcopy(plain))


def values(model, inputs):
    return {key: value.detach().numpy() for key, value in model(dict(inputs)).items() if value.is_floating_point()}
