"""A stand-in for SchNetPack: modules with its names, attributes, dictionary keys and state dicts, written from its
documentation for these tests, so that they need not install it. `installed` makes the names importable while a file is
written."""

import itertools
import sys
import types
from contextlib import contextmanager

import torch
from standin_representation import (
    BesselRBF,
    CosineCutoff,
    Dense,
    ElectronicEmbedding,
    FilterShortRange,
    GaussianRBF,
    GaussianRBFCentered,
    MollifierCutoff,
    NuclearEmbedding,
    PaiNN,
    PaiNNInteraction,
    PaiNNMixing,
    PairwiseDistances,
    Residual,
    ResidualMLP,
    ResidualStack,
    SwitchFunction,
    shifted_softplus,
    sum_up,
)
from torch import nn
from torch.nn import functional


def dense_network(n_in, n_hidden, activation):
    widths = [n_in, *n_hidden, 1]
    pairs = list(itertools.pairwise(widths))
    return nn.Sequential(*(Dense(*pair, activation=activation) for pair in pairs[:-1]), Dense(*pairs[-1]))


def gated_network(n_in, n_hidden, activation):
    widths = [n_in, *n_hidden, 1]
    pairs = list(itertools.pairwise(widths))
    inner = [GatedEquivariantBlock(*pair, activation, activation) for pair in pairs[:-1]]
    return nn.Sequential(*inner, GatedEquivariantBlock(*pairs[-1], activation, None))


class GatedEquivariantBlock(nn.Module):
    def __init__(self, n_in, n_out, activation, sactivation):
        super().__init__()
        self.n_sout = self.n_vout = n_out
        self.mix_vectors = Dense(n_in, 2 * n_out, bias=False)
        self.scalar_net = nn.Sequential(Dense(n_in + n_out, n_in, activation=activation), Dense(n_in, 2 * n_out))
        self.sactivation = sactivation

    def forward(self, both):
        s, v = both
        V, W = self.mix_vectors(v).chunk(2, dim=-1)
        s, gate = self.scalar_net(torch.cat([s, V.norm(dim=-2)], dim=-1)).chunk(2, dim=-1)
        return (self.sactivation(s) if self.sactivation else s), gate[:, None] * W


class Atomwise(nn.Module):
    def __init__(self, n_in, n_hidden, activation=functional.silu, aggregation_mode="sum", output_key="energy"):
        super().__init__()
        self.output_key, self.aggregation_mode, self.n_out = output_key, aggregation_mode, 1
        self.model_outputs, self.per_atom_output_key = [output_key], None
        self.outnet = dense_network(n_in, n_hidden, activation)

    def forward(self, inputs):
        y = sum_up(self.outnet(inputs["scalar_representation"])[:, 0], inputs["_idx_m"], len(inputs["_n_atoms"]))
        inputs[self.output_key] = y / inputs["_n_atoms"] if self.aggregation_mode == "avg" else y
        return inputs


class DipoleMoment(nn.Module):
    def __init__(self, n_in, n_hidden, activation=functional.silu, use_vector_representation=True, magnitude=False):
        super().__init__()
        self.dipole_key, self.charges_key, self.return_charges = "dipole_moment", "partial_charges", True
        self.predict_magnitude, self.correct_charges = magnitude, True
        self.use_vector_representation = use_vector_representation
        self.model_outputs = ["dipole_moment", "partial_charges"]
        network = gated_network if use_vector_representation else dense_network
        self.outnet = network(n_in, n_hidden, activation)

    def forward(self, inputs):
        s, v, m, n = (inputs[k] for k in ("scalar_representation", "vector_representation", "_idx_m", "_n_atoms"))
        q, mu = (
            self.outnet((s, v)) if self.use_vector_representation else (self.outnet(s), torch.zeros_like(v[..., :1]))
        )
        total = inputs.get("total_charge", torch.zeros(len(n), dtype=s.dtype))
        q = q + ((total[:, None] - sum_up(q, m, len(n))) / n[:, None])[m]
        inputs["partial_charges"] = q
        y = sum_up(inputs["_positions"] * q + mu[..., 0], m, len(n))
        inputs["dipole_moment"] = y.norm(dim=1) if self.predict_magnitude else y
        return inputs


class Polarizability(nn.Module):
    def __init__(self, n_in, n_hidden, activation=functional.silu):
        super().__init__()
        self.polarizability_key, self.model_outputs, self.n_hidden = "polarizability", ["polarizability"], n_hidden
        self.outnet = gated_network(n_in, n_hidden, activation)

    def forward(self, inputs):
        s, v, m, n = (inputs[k] for k in ("scalar_representation", "vector_representation", "_idx_m", "_n_atoms"))
        a, nu = self.outnet((s, v))
        outer = nu[:, :, 0, None] * inputs["_positions"][:, None, :]
        inputs["polarizability"] = sum_up(a[..., None] * torch.eye(3) + outer + outer.mT, m, len(n))
        return inputs


class Forces(nn.Module):
    def __init__(self, energy_key="energy"):
        super().__init__()
        self.energy_key, self.force_key, self.stress_key = energy_key, "forces", "stress"
        self.calc_forces, self.calc_stress = True, False
        self.model_outputs, self.required_derivatives = ["forces"], ["_positions"]

    def forward(self, inputs):
        e = inputs[self.energy_key]
        inputs["forces"] = -torch.autograd.grad(e.sum(), inputs["_positions"], create_graph=self.training)[0]
        return inputs


class Response(Forces):
    def __init__(self, energy_key, response_properties):
        super().__init__(energy_key)
        self.response_properties = response_properties
        self.derivative_instructions = {
            "dEdR": "forces" in response_properties, "dEdF": "dipole_moment" in response_properties, "dEds": False
        }  # fmt: skip


class CastTo64(nn.Module):
    def forward(self, inputs):
        return {key: value.double() if value.dtype == torch.float32 else value for key, value in inputs.items()}


class AddOffsets(nn.Module):
    def __init__(self, prop, add_mean=False, add_atomrefs=False, is_extensive=True, atomrefs=None, mean=None):
        super().__init__()
        self._property, self.add_mean, self.add_atomrefs = prop, add_mean, add_atomrefs
        self.is_extensive = is_extensive
        self.register_buffer("atomref", torch.zeros(100) if atomrefs is None else atomrefs)
        self.register_buffer("mean", torch.zeros(1) if mean is None else torch.tensor([mean]))

    def forward(self, inputs):
        n = inputs["_n_atoms"]
        y = inputs[self._property]
        if self.add_mean:
            y = y + self.mean * (n if self.is_extensive else 1)
        if self.add_atomrefs:
            sums = sum_up(self.atomref[inputs["_atomic_numbers"]], inputs["_idx_m"], len(n))
            y = y + (sums if self.is_extensive else sums / n)
        inputs[self._property] = y
        return inputs


class ScaleProperty(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(1))


class NeuralNetworkPotential(nn.Module):
    def __init__(self, representation, input_modules, output_modules, postprocessors=()):
        super().__init__()
        self.representation = representation
        self.input_modules, self.output_modules = nn.ModuleList(input_modules), nn.ModuleList(output_modules)
        self.postprocessors, self.do_postprocessing = nn.ModuleList(postprocessors), True
        self.input_dtype_str, self.spk_version = "float32", "2.1.1"
        self.model_outputs = [key for module in output_modules for key in getattr(module, "model_outputs", [])]

    def initialize_derivatives(self, inputs):
        inputs["_positions"].requires_grad_()
        return inputs

    def postprocess(self, inputs):
        for module in self.postprocessors if self.do_postprocessing else ():
            inputs = module(inputs)
        return inputs

    def extract_outputs(self, inputs):
        return {key: inputs[key] for key in self.model_outputs}

    def forward(self, inputs):
        inputs = self.initialize_derivatives(inputs)
        for module in (*self.input_modules, self.representation, *self.output_modules):
            inputs = module(inputs)
        return self.extract_outputs(self.postprocess(inputs))


class ModelOutput(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.name, self.loss_fn, self.loss_weight = name, nn.MSELoss(), 0.5


class AtomisticTask(nn.Module):
    def __init__(self, model, outputs):
        super().__init__()
        self.model, self.outputs = model, nn.ModuleList(outputs)
        self.optimizer_cls, self.optimizer_kwargs = torch.optim.AdamW, {"lr": 1e-3}

    def forward(self, inputs):
        return self.model(inputs)


HOMES = {
    "nn.activations": [shifted_softplus],
    "nn.base": [Dense],
    "nn.blocks": [Residual, ResidualStack, ResidualMLP],
    "nn.radial": [GaussianRBF, GaussianRBFCentered, BesselRBF],
    "nn.cutoff": [CosineCutoff, MollifierCutoff, SwitchFunction],
    "nn.embedding": [NuclearEmbedding, ElectronicEmbedding],
    "nn.equivariant": [GatedEquivariantBlock],
    "representation.painn": [PaiNN, PaiNNInteraction, PaiNNMixing],
    "atomistic.distances": [PairwiseDistances, FilterShortRange],
    "atomistic.atomwise": [Atomwise, DipoleMoment, Polarizability],
    "atomistic.response": [Forces, Response],
    "transform.casting": [CastTo64],
    "transform.atomistic": [AddOffsets, ScaleProperty],
    "model.base": [NeuralNetworkPotential],
    "task": [AtomisticTask, ModelOutput],
}
for _home, _classes in HOMES.items():
    for _class in _classes:
        _class.__module__ = f"schnetpack.{_home}"


@contextmanager
def installed():
    """The names are importable, as pickling asks for."""
    folders = {"", *(f".{home.split('.')[0]}" for home in HOMES), *(f".{home}" for home in HOMES)}
    modules = {f"schnetpack{folder}": types.ModuleType(f"schnetpack{folder}") for folder in folders}
    for home, classes in HOMES.items():
        for member in classes:
            setattr(modules[f"schnetpack.{home}"], member.__name__, member)
    saved = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in saved.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def save(content, path):
    """Write `content` as SchNetPack does, with pickled modules inside."""
    with installed():
        torch.save(content, path)
    return path


def batch(molecules, dtype=torch.float32, shuffle=False):
    """SchNetPack's dictionary for `ase.Atoms` in vacuum, every pair an edge; positions are those given."""
    sizes = torch.tensor([len(atoms) for atoms in molecules])
    first = torch.cumsum(sizes, 0) - sizes
    pairs = [
        (torch.arange(n)[:, None] != torch.arange(n)).nonzero() + start for n, start in zip(sizes, first, strict=True)
    ]
    i, j = torch.cat(pairs).T
    if shuffle:
        order = torch.randperm(len(i), generator=torch.Generator().manual_seed(1))
        i, j = i[order], j[order]
    return {
        "_idx": torch.arange(len(molecules)),
        "_atomic_numbers": torch.cat([torch.tensor(atoms.numbers) for atoms in molecules]),
        "_positions": torch.cat([torch.tensor(atoms.positions, dtype=dtype) for atoms in molecules]),
        "_idx_m": torch.arange(len(molecules)).repeat_interleave(sizes),
        "_n_atoms": sizes,
        "_idx_i": i,
        "_idx_j": j,
        "_offsets": torch.zeros(len(i), 3, dtype=dtype),
        "_cell": torch.zeros(len(molecules), 3, 3, dtype=dtype),
        "_pbc": torch.zeros(3 * len(molecules), dtype=torch.bool),
        "total_charge": torch.tensor([float(atoms.info.get("charge", 0.0)) for atoms in molecules], dtype=dtype),
        "spin_multiplicity": torch.tensor([float(atoms.info.get("spin", 1.0)) for atoms in molecules], dtype=dtype),
    }


def model(*, parts=None, n=8, layers=2, radial=None, cutoff=None, heads=None, postprocessors=None, **options):
    """A small model of random weights, biases included, made of the classes of `parts` (a module such as this one)."""
    parts = parts or types.SimpleNamespace(**globals())
    cutoff = cutoff if cutoff is not None else parts.CosineCutoff(4.0)
    painn = parts.PaiNN(n, layers, radial if radial is not None else parts.GaussianRBF(6, 4.0), cutoff, **options)
    activation = options.get("activation", functional.silu)
    heads = [parts.Atomwise(n, [n // 2], activation), parts.Forces()] if heads is None else heads
    offsets = [parts.CastTo64(), parts.AddOffsets("energy", add_mean=True, mean=-3.5)]
    post = offsets if postprocessors is None else postprocessors
    whole = parts.NeuralNetworkPotential(painn, [parts.PairwiseDistances()], heads, post)
    with torch.no_grad():
        for name, parameter in whole.named_parameters():
            if name.endswith("bias") or not parameter.any():
                parameter.normal_(std=0.3)
    return whole.eval()
