"""All ways of evaluating a model keep the promises of `conformance.py`."""

import copy
import functools

import numpy as np
import pytest
import torch
from ase import Atoms
from conformance import HEADS, OPTIONS, Conformance, Way, build, molecular, of_model, with_positions

import painn_fast as pf
from painn_fast.engine import CpuEngine
from painn_fast.errors import PaiNNFastError
from painn_fast.evaluate import _split
from painn_fast.graph import batch_atoms
from painn_fast.io.model_file import save_model
from painn_fast.nn import EnergyHead, PotentialConfig, RepresentationConfig
from painn_fast.testing import TABLE_TOLERANCE, random_potential

CUDA = torch.cuda.is_available()


class TestReference(Conformance):
    test_it_equals_the_reference = None

    @pytest.fixture(params=OPTIONS)
    def way(self, request):
        return of_model(build(request.param), backend="reference")


class TestNetwork(Conformance):
    """The network that training differentiates, as one operation where it can be."""

    @pytest.fixture(params=OPTIONS)
    def way(self, request, monkeypatch):
        monkeypatch.setattr("painn_fast.engine.select.engine_for", lambda *_: None)
        return of_model(build(request.param))


class TestCpuEngine(Conformance):
    """Every model."""

    @pytest.fixture(params=OPTIONS)
    def way(self, request):
        return of_model(build(request.param), backend="fused", bitwise=True)


class TestCpuEngineInFloat32(Conformance):
    @pytest.fixture(params=["mollifier", "softplus", "both_embeddings", "linear_energy"])
    def way(self, request):
        model = build(request.param, dtype=torch.float32)
        return of_model(model, backend="fused", bitwise=True, tolerance=TABLE_TOLERANCE)


class TestCpuEngineWithoutEnergy(Conformance):
    """Tests of energies and forces do not apply."""

    test_forces_are_finite_differences_of_the_energy = None
    test_stress_and_forces_of_a_crystal_are_finite_differences = None
    test_a_supercell_has_the_energy_of_its_cells = None
    test_energy_and_forces_are_continuous_at_the_cutoff = None
    test_a_lone_atom_has_an_energy_and_no_force = None
    test_atoms_without_neighbours_do_not_interact = None
    test_positions_that_are_not_finite_are_refused = None
    test_charge_and_spin_count_where_the_model_has_them = None

    @pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
    def way(self, request):
        model = build("both_embeddings", HEADS[1:], dtype=request.param)
        tolerance = None if request.param == torch.float64 else TABLE_TOLERANCE
        return of_model(model, backend="fused", tolerance=tolerance)

    def test_it_refuses_positions_that_are_not_finite(self, way):
        atoms = self.ion()
        atoms.positions[1, 0] = np.nan
        with pytest.raises(PaiNNFastError, match="positions are not finite"):
            way.evaluate([atoms], way.names)


def of_engine(engine, names, **more):
    """An engine, without what chooses it."""

    def evaluate(structures, names):
        batch = batch_atoms(structures, engine.potential.cutoff).to(engine.potential.device)
        values = engine(engine.workspace(batch), batch.positions, names)
        return {name: _split(name, value, batch) for name, value in values.items()}

    def expected(structures, names):
        return pf.evaluate(engine.potential, structures, names, backend="reference")

    return Way(evaluate, names, engine.potential.cutoff, expected, bitwise=True, **more)


class TestAtomBlocks(Conformance):
    """One large molecule that threads share, at sizes where a test need not be large."""

    together = False

    @pytest.fixture
    def way(self, monkeypatch):
        monkeypatch.setattr("painn_fast.engine.chunks.CHUNK_ATOMS", 2)
        monkeypatch.setattr("painn_fast.engine.atom_blocks.BLOCK_ATOMS", 2)
        model = build("charge")
        return of_engine(CpuEngine(model, threads=2), molecular(model), states=["charge"])


@functools.cache
def gpu_engine():
    """Checks itself once."""
    pytest.importorskip("triton")
    from painn_fast.engine.gpu import GpuEngine

    smaller = RepresentationConfig(n_features=16, n_layers=2, n_rbf=3, cutoff=2.5, cutoff_function="mollifier")
    model = random_potential(PotentialConfig(representation=smaller, heads=(EnergyHead(),)))
    return GpuEngine(model.to("cuda" if CUDA else "cpu"))


class TestGpuEngine(Conformance):
    """On a GPU, or its kernels in Triton's interpreter."""

    every = 4

    @pytest.fixture
    def way(self):
        return of_engine(gpu_engine(), ("energy", "energies", "forces"))


class TestEnsemble(Conformance):
    @pytest.fixture
    def way(self):
        models = [build(seed=seed, heads=HEADS[:2]) for seed in (1, 2, 3)]
        ensemble = pf.Ensemble(models)
        names = [name for name in ensemble.properties if not name.startswith("stress")]
        return Way(
            lambda atoms, names: pf.evaluate(ensemble, atoms, names), names, ensemble.cutoff,
            lambda atoms, names: pf.evaluate(ensemble, atoms, names, backend="reference"),
        )  # fmt: skip


class TestSafetensors(Conformance):
    @pytest.fixture
    def way(self, tmp_path):
        model = build("charge")
        path = tmp_path / "model.safetensors"
        save_model(model, path)
        return of_model(pf.load(path), expected=lambda atoms, names: pf.evaluate(model, atoms, names))


def centred(atoms):
    """As SchNetPack's transform does, which its dipoles and polarizabilities rely on."""
    return with_positions(atoms, atoms.positions - atoms.get_center_of_mass())


def of_schnetpack(live, spk, **more):
    """A model that is called with SchNetPack's dictionary."""
    theirs = {"energy": "energy", "forces": "forces", "dipole": "dipole_moment", "polarizability": "polarizability"}

    def evaluate(structures, names):
        found = live(spk.batch(list(map(centred, structures)), dtype=torch.float64))
        values = {name: found[theirs[name]].detach().numpy() for name in names}
        ends = np.cumsum([len(atoms) for atoms in structures])[:-1]
        return {name: np.split(value, ends) if name == "forces" else list(value) for name, value in values.items()}

    return Way(evaluate, tuple(theirs), 4.0, refuses=False, **more)


def live_model(spk):
    heads = [spk.Atomwise(8, [4]), spk.Forces(), spk.DipoleMoment(8, [4]), spk.Polarizability(8, [4])]
    return spk.model(heads=heads).double()


class TestAcceleratedSchNetPack(Conformance):
    """Molecules only, as the stand-in's lists of pairs are."""

    test_stress_and_forces_of_a_crystal_are_finite_differences = None
    test_a_supercell_has_the_energy_of_its_cells = None

    @pytest.fixture
    def way(self, spk):
        live = live_model(spk)
        return of_schnetpack(pf.accelerate(copy.deepcopy(live)), spk, expected=of_schnetpack(live, spk).evaluate)


class TestSchNetPackFile(Conformance):
    @pytest.fixture
    def way(self, spk, tmp_path):
        live = live_model(spk)
        path = spk.save(live, tmp_path / "model.pt")
        model = pf.load(path, energy_unit="eV", dipole_unit="e Ang", polarizability_unit="Ang^3")
        theirs = of_schnetpack(live, spk)
        return of_model(model, expected=theirs.evaluate, names=theirs.names)


class TestCalculator(Conformance):
    @pytest.fixture
    def way(self):
        model = build(heads=HEADS[:3])
        calculator = pf.PaiNNCalculator(model)

        def evaluate(structures: list[Atoms], names):
            return {name: [calculator.get_property(name, atoms) for atoms in structures] for name in names}

        def expected(structures, names):
            return pf.evaluate(model, structures, names)

        names = ("energy", "energies", "forces", "dipole", "charges", "polarizability")
        return Way(evaluate, names, model.cutoff, expected)
