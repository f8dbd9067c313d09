"""torch.compile and torch.export take the reference: a model is one graph of plain operations of torch."""

import pytest
import torch
from ase.build import molecule
from torch import nn

from painn_fast.graph import batch_atoms
from painn_fast.nn import EnergyHead, PotentialConfig, RepresentationConfig, fused
from painn_fast.testing import assert_close, random_potential


class Energy(nn.Module):
    """Atomic energies of a fixed graph from edge vectors [E, 3], as `Potential` computes them."""

    def __init__(self):
        super().__init__()
        config = RepresentationConfig(n_features=16, n_layers=2, n_rbf=6)
        potential = random_potential(PotentialConfig(representation=config, heads=(EnergyHead(),)))
        self.representation, self.readout = potential.representation, potential.heads["energy"].network
        self.batch = batch_atoms([molecule("CH3CH2OH"), molecule("H2O")], 5.0)
        assert len(self.batch.mirror)  # made once, outside of what is compiled

    def forward(self, r):
        if fused.available(self.representation):
            return self.readout(fused.features(self.representation, self.batch, r)[0])
        return self.readout(self.representation(self.batch, r)[0])


@pytest.fixture
def energy():
    module = Energy()
    return module, module.batch.edge_vectors()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiles_as_one_graph(energy, backend):
    module, r = energy
    with torch.no_grad():
        got = torch.compile(module, backend=backend, fullgraph=True)(r)
        assert_close(got, module(r), 1e-12)


@pytest.mark.filterwarnings("ignore:(Attempted to insert a get_attr Node|Node l__self):UserWarning")  # torch 2.6
def test_exports(energy):
    module, r = energy
    with torch.no_grad():
        program = torch.export.export(module, (r,))
        assert "painn_fast" not in str(program.graph)
        assert_close(program.module()(r * 1.01), module(r * 1.01), 1e-12)
