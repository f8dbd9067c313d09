"""SchNetPack itself behind the signatures of the stand-in: where it is installed, tests of the stand-in run on both."""

import typing
import warnings
from contextlib import nullcontext

import torch
from torch.utils.data import dataloader

for _name in ("T_co", "T"):  # SchNetPack 2.1 takes type variables from torch that are gone
    if not hasattr(dataloader, _name):
        setattr(dataloader, _name, typing.TypeVar(_name))
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from schnetpack import atomistic, representation, task, transform
    from schnetpack import nn as layers
    from schnetpack.model import NeuralNetworkPotential
    from schnetpack.nn.activations import shifted_softplus
    from schnetpack.nn.embedding import ElectronicEmbedding
    from schnetpack.nn.embedding import NuclearEmbedding as _NuclearEmbedding

__all__ = ["ElectronicEmbedding", "NeuralNetworkPotential", "shifted_softplus"]
silu = torch.nn.functional.silu
PaiNN = representation.PaiNN
GaussianRBF, GaussianRBFCentered, BesselRBF = layers.GaussianRBF, layers.GaussianRBFCentered, layers.BesselRBF
CosineCutoff, MollifierCutoff = layers.CosineCutoff, layers.MollifierCutoff
PairwiseDistances, CastTo64 = atomistic.PairwiseDistances, transform.CastTo64
installed = nullcontext


def NuclearEmbedding(max_z, num_features):
    return _NuclearEmbedding(max_z, num_features, zero_init=False)


def SwitchFunction(switch_on, switch_off):
    function = layers.SwitchFunction(switch_on, switch_off)
    function.cutoff = function.switch_off  # PaiNN asks for it
    return function


def FilterShortRange():
    return atomistic.FilterShortRange(3.0)


def ScaleProperty():
    return transform.ScaleProperty("energy", scale=torch.ones(1))


def Atomwise(n_in, n_hidden, activation=silu, aggregation_mode="sum", output_key="energy"):
    return atomistic.Atomwise(
        n_in, 1, n_hidden, len(n_hidden) + 1, activation, aggregation_mode=aggregation_mode, output_key=output_key
    )


def DipoleMoment(n_in, n_hidden, activation=silu, use_vector_representation=True, magnitude=False):
    return atomistic.DipoleMoment(
        n_in,
        n_hidden,
        len(n_hidden) + 1,
        activation,
        magnitude,
        True,
        use_vector_representation=use_vector_representation,
    )


def Polarizability(n_in, n_hidden, activation=silu):
    return atomistic.Polarizability(n_in, n_hidden, len(n_hidden) + 1, activation)


def Forces(energy_key="energy"):
    return atomistic.Forces(energy_key=energy_key)


def Response(energy_key, response_properties):
    return atomistic.Response(energy_key, response_properties)


def AddOffsets(prop, add_mean=False, add_atomrefs=False, is_extensive=True, atomrefs=None, mean=None):
    offsets = transform.AddOffsets(prop, add_mean=True, is_extensive=is_extensive)  # 2.1 cannot be given references
    offsets.add_mean, offsets.add_atomrefs = add_mean, add_atomrefs
    offsets.atomref = torch.zeros(100) if atomrefs is None else atomrefs
    offsets.mean = torch.zeros(1) if mean is None else torch.tensor([mean])
    return offsets


def ModelOutput(name):
    return task.ModelOutput(name, torch.nn.MSELoss(), 0.5, metrics={})


def AtomisticTask(model, outputs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning advises against what SchNetPack does
        return task.AtomisticTask(model, outputs, torch.optim.AdamW, {"lr": 1e-3})


def save(content, path):
    torch.save(content, path)
    return path
