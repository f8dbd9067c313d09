"""The GPU engine, or its kernels in Triton's interpreter, gives what the reference gives."""

from collections import Counter

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from torch.utils._python_dispatch import TorchDispatchMode

from painn_fast.engine import engine_for, refusal
from painn_fast.errors import PaiNNFastError
from painn_fast.evaluate import evaluate_batch
from painn_fast.graph import batch_atoms
from painn_fast.md.forces import ModelForces
from painn_fast.nn import DipoleHead, EnergyHead, PolarizabilityHead, PotentialConfig, RepresentationConfig
from painn_fast.testing import TOLERANCE, assert_close, random_potential

triton = pytest.importorskip("triton")

from painn_fast.engine import gpu  # noqa: E402
from painn_fast.engine.gpu import GpuEngine  # noqa: E402

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
SMALL = {"n_features": 16, "n_layers": 2, "n_rbf": 3, "cutoff": 4.0}
OPTIONS = {
    "sinc": {},
    "gaussian": {"radial_basis": "gaussian"},
    "mollifier": {"cutoff_function": "mollifier", "n_layers": 3},
    "switch": {"cutoff_function": "switch", "switch_on": 2.0},
    "shared_filters": {"shared_filters": True},
    "shared_interactions": {"shared_interactions": True},
    "one layer": {"n_layers": 1},
    "padded features": {"n_features": 24},
}
ENERGY = (EnergyHead(),)
ALL = (EnergyHead(), DipoleHead(), PolarizabilityHead())
NAMES = ["energy", "energies", "forces", "dipole", "charges", "polarizability"]


def build(option="sinc", dtype=torch.float64, heads=ENERGY, **more):
    config = PotentialConfig(representation=RepresentationConfig(**{**SMALL, **OPTIONS[option]}), heads=heads, **more)
    return random_potential(config, dtype=dtype).to(DEVICE)


def rattled(name, seed=0):
    atoms = molecule(name)
    atoms.rattle(0.1, seed=seed)
    return atoms


def molecules():
    return [rattled("H2O"), Atoms("H"), Atoms("OC", [[0, 0, 0], [0, 0, 6.0]]), rattled("CO")]


FEW = [rattled("H2O"), Atoms("H"), rattled("CO")]


def batch_of(potential, structures):
    return batch_atoms(structures, potential.cutoff).to(DEVICE)


def trusting(potential, **options):
    """An engine that does not check itself, for tests that do."""
    engine = GpuEngine(potential, **options)
    engine.checked = True
    return engine


def compare(engine, batch, names, tolerance):
    got = engine(engine.workspace(batch), batch.positions, names)
    exact = engine.potential.double() if tolerance > 1e-9 else engine.potential
    with torch.no_grad(), exact.reference():
        expected = exact(batch, names)
    for name in names:
        assert_close(got[name].cpu(), expected[name].cpu(), tolerance * (10 if name == "forces" else 1), name)


@pytest.mark.parametrize("option", OPTIONS)
def test_equals_the_reference_for_every_option(option):
    potential = build(option)
    compare(trusting(potential, node="fused"), batch_of(potential, molecules()), ["energy", "forces"], 1e-10)


@pytest.mark.parametrize("magnitude", [2.0**-40, 2.0**20])
@pytest.mark.parametrize("option", ["sinc", "gaussian", "switch"])
def test_filters_may_have_any_magnitude(option, magnitude):
    """On NVIDIA they are products of float16, which ends at 65504 and, without loss, at 6e-5."""
    potential = build(option, torch.float32)
    with torch.no_grad():
        for name, parameter in potential.named_parameters():
            if ".filter." in name:
                parameter *= magnitude
            elif ".context.2." in name and ".message." in name:
                parameter /= magnitude
    compare(trusting(potential, node="fused"), batch_of(potential, molecules()), ["energy", "forces"], 1e-6)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("node", ["fused", "blas"])
def test_equals_the_reference_in_every_property(node, dtype):
    potential = build("mollifier", dtype, ALL)
    compare(trusting(potential, node=node), batch_of(potential, molecules()), NAMES, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("node", ["fused", "blas"])
def test_equals_the_reference_in_a_crystal_and_in_other_units(node, dtype):
    potential = build(dtype=dtype, energy_unit="kcal/mol", length_unit="Bohr")
    atoms = bulk("MgO", "rocksalt", a=3.2)
    atoms.rattle(0.05, seed=0)
    compare(trusting(potential, node=node), batch_of(potential, [atoms]), ["energy", "forces", "stress"],
            TOLERANCE[dtype])  # fmt: skip


@pytest.mark.parametrize("hidden", [(), (20,), (24, 10)])
def test_readouts_of_any_depth(hidden):
    potential = build(heads=(EnergyHead(hidden=hidden),))
    if not hidden:
        assert refusal(potential, "cuda") == "the engine for GPUs does not run: energy without a hidden layer"
        return
    for node in ("fused", "blas"):
        compare(trusting(potential, node=node), batch_of(potential, [rattled("H2O")]), ["energy", "forces"], 1e-10)


def test_results_do_not_depend_on_the_batch_on_room_or_on_what_was_there_before():
    potential = build(dtype=torch.float32)
    engine = trusting(potential, node="fused")
    names = ("energies", "energy", "forces")
    batch = batch_of(potential, FEW)
    work = engine.workspace(batch)
    first, again = (engine(work, batch.positions, names) for _ in range(2))
    roomy = trusting(potential, node="fused")
    roomy._capacity = lambda need, have: (32, 512, 7)
    results = [again, roomy(roomy.workspace(batch), batch.positions, names)]
    for name in names:
        for other in results:
            assert torch.equal(first[name], other[name]), name
    start = 0
    for k, atoms in enumerate(FEW):
        one = batch_of(potential, [atoms])
        alone = engine(engine.workspace(one), one.positions, names)
        here = slice(start, start + len(atoms))
        assert torch.equal(alone["forces"], first["forces"][here])
        assert torch.equal(alone["energies"], first["energies"][here])
        assert alone["energy"][0] == first["energy"][k]
        start += len(atoms)


def test_memory_grows_when_a_graph_needs_more_and_stays_when_it_needs_less():
    potential = build("one layer", torch.float32)
    engine = trusting(potential, node="blas")

    def plan(structures):
        compare(engine, batch_of(potential, structures), ["forces"], 1e-4)
        potential.float()
        return engine._plans[sum(map(len, structures)).bit_length()]

    small = plan([Atoms("H")] * 9)
    assert small.size == (16, 256, 9)
    assert plan([rattled("H2O")] * 3) is small
    assert plan([Atoms("H")] * 8) is small
    more = plan([Atoms("H")] * 10)
    assert more is not small
    assert more.size == (16, 256, 11)
    assert plan([Atoms("H")] * 2) is not more  # an eighth of the size has its own
    assert len(engine._plans) == 2


def test_capacity_is_exact_at_first_and_geometric_then():
    assert GpuEngine._capacity((100, 1000, 3), None) == (112, 1280, 3)
    assert GpuEngine._capacity((113, 900, 3), (112, 1280, 3)) == (128, 1280, 3)
    assert GpuEngine._capacity((81, 1300, 3), (80, 1280, 3)) == (112, 1792, 3)
    assert GpuEngine._capacity((1000, 0, 1000), None) == (1008, 256, 1000)


class Operations(TorchDispatchMode):
    """Counts what torch itself would launch."""

    def __init__(self, counted):
        super().__init__()
        self.counted = counted

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if not function.is_view and "detach" not in function.name():
            self.counted[function.name()] += 1
        return function(*args, **(kwargs or {}))


def launches(run, monkeypatch):
    """Kernels of Triton and operations of torch, by name."""
    counted = Counter()
    from triton.runtime.interpreter import GridExecutor
    from triton.runtime.jit import JITFunction

    def counting(executor, *arguments, **options):  # and nothing else: an interpreted kernel calls torch
        counted[executor.fn.__name__] += 1

    with monkeypatch.context() as patch, Operations(counted):
        patch.setattr(GridExecutor, "__call__", counting)
        patch.setattr(JITFunction, "run", counting)
        run()
    return counted


@pytest.mark.skipif(CUDA, reason="counts launches in the interpreter")
def test_energy_and_forces_of_three_layers_take_6_launches(monkeypatch):
    potential = build("mollifier", torch.float32)
    engine = trusting(potential, node="fused")
    batch = batch_of(potential, [rattled("H2O")])
    work = engine.workspace(batch)
    engine(work, batch.positions)
    plan = engine._plan(work)
    counted = launches(lambda: engine._run(plan, gpu.Wanted(True, False, False)), monkeypatch)
    assert counted == {"layer_fwd_kernel": 3, "layer_bwd_kernel": 3}
    counted = launches(lambda: engine._run(plan, gpu.Wanted(False, False, False)), monkeypatch)
    assert counted == {"layer_fwd_kernel": 3, "molecules_kernel": 1}


def test_large_batches_get_the_blas_whatever_was_evaluated_before():
    engine = trusting(build(dtype=torch.float32))
    kinds = {atoms: type(engine._node(1 << atoms.bit_length())) for atoms in (1, 1000, 16383, 16384, 10**6)}
    assert kinds == {
        1: gpu.FusedNode,
        1000: gpu.FusedNode,
        16383: gpu.FusedNode,
        16384: gpu.BlasNode,
        10**6: gpu.BlasNode,
    }
    assert isinstance(trusting(engine.potential, precision="tf32x3")._node(2**20), gpu.FusedNode)
    assert isinstance(trusting(engine.potential, node="blas")._node(2), gpu.BlasNode)


def test_results_share_no_memory_with_the_engine():
    potential = build("one layer", heads=ALL)
    engine = trusting(potential)
    batch = batch_of(potential, [rattled("H2O")])
    work = engine.workspace(batch)
    first = engine(work, batch.positions, NAMES)
    kept = {name: value.clone() for name, value in first.items()}
    engine(work, batch.positions + 0.1 * torch.sin(batch.positions), NAMES)
    for name in NAMES:
        assert torch.equal(first[name], kept[name]), name


def test_engine_that_disagrees_with_the_reference_refuses_to_go_on():
    potential = build("one layer", torch.float32)
    engine = GpuEngine(potential)
    batch = batch_of(potential, [rattled("H2O")])
    engine.weights.layers[0].filter.mul_(1.05)
    with pytest.raises(PaiNNFastError, match="disagrees with the reference"):
        engine(engine.workspace(batch), batch.positions)


def test_the_first_batch_that_is_small_enough_is_checked(monkeypatch):
    monkeypatch.setattr(gpu, "CHECKED_EDGES", 3)
    potential = build("one layer", torch.float32)
    engine = GpuEngine(potential)
    for name, checked in (("H2O", False), ("CO", True)):
        batch = batch_of(potential, [rattled(name)])
        engine(engine.workspace(batch), batch.positions)
        assert engine.checked == checked


def test_wrong_arguments_say_what_is_possible():
    potential = build(dtype=torch.float32)
    with pytest.raises(PaiNNFastError, match=r"ieee \| tf32x3 \| tf32 \| bf16"):
        GpuEngine(potential, "fp8")
    with pytest.raises(PaiNNFastError, match=r"auto \| fused"):
        GpuEngine(potential, "tf32x3", node="blas")
    with pytest.raises(PaiNNFastError, match="float32 networks"):
        GpuEngine(build(), "tf32")


@pytest.mark.parametrize("before", [False, True])
def test_precision_of_the_blas_is_put_back(before):
    matmul = torch.backends.cuda.matmul
    first = matmul.allow_tf32
    matmul.allow_tf32 = before
    for tf32 in (False, True):
        with gpu._blas(tf32=tf32):
            assert matmul.allow_tf32 == tf32
        assert matmul.allow_tf32 == before
    matmul.allow_tf32 = first


@pytest.fixture
def gpu_everywhere(monkeypatch):
    """Engines are GPU engines, here too."""
    made = {}

    def engine_for(potential, backend="auto"):
        return made.setdefault(id(potential), GpuEngine(potential))

    monkeypatch.setattr("painn_fast.engine.select.engine_for", engine_for)


def test_dynamics_and_evaluate_can_use_it(gpu_everywhere):
    potential = build("one layer", torch.float32, ALL)
    atoms = rattled("H2O")
    positions = torch.tensor(atoms.positions).repeat(2, 1, 1)
    forces = ModelForces(potential, atoms)
    energy, force, observed = forces.evaluate(positions, ("dipole",))
    assert energy.device == force.device == positions.device
    assert energy.dtype == force.dtype == observed["dipole"].dtype == torch.float64
    results = evaluate_batch(potential, batch_of(potential, [atoms]), ["energy", "forces", "dipole"])
    expected = ModelForces(potential, atoms, backend="reference").evaluate(positions, ("dipole",))
    for k in range(2):
        assert_close(energy[k], results["energy"][0], 1e-6)
        assert_close(force[k], expected[1][k], 1e-4)
        assert_close(observed["dipole"][k], results["dipole"][0], 1e-5)


def test_dynamics_of_a_crystal_can_use_it(gpu_everywhere):
    potential = build("one layer", torch.float32, length_unit="Bohr")
    atoms = bulk("MgO", "rocksalt", a=3.2)
    atoms.rattle(0.05, seed=0)
    got = ModelForces(potential, atoms, skin=0.3)(torch.tensor(atoms.positions)[None])
    expected = ModelForces(potential, atoms, backend="reference")(torch.tensor(atoms.positions)[None])
    assert_close(got[0], expected[0], 1e-5)
    assert_close(got[1], expected[1], 1e-4)


@pytest.mark.skipif(not CUDA, reason="needs a GPU")
def test_cuda_graph_gives_what_single_launches_give_and_follows_positions(monkeypatch):
    potential = build("mollifier", torch.float32)
    batch = batch_of(potential, molecules())
    engine = GpuEngine(potential, node="fused")
    work = engine.workspace(batch)
    for k in range(3):
        positions = batch.positions + 0.05 * k * torch.sin(batch.positions)
        captured = engine(work, positions)
        plain = GpuEngine(potential, node="fused")
        monkeypatch.setattr(gpu, "captured", lambda run, device: run)
        expected = plain(plain.workspace(batch), positions)
        monkeypatch.undo()
        for name in ("energy", "forces"):
            assert torch.equal(captured[name], expected[name]), name


@pytest.mark.skipif(not CUDA, reason="needs a GPU")
@pytest.mark.parametrize("precision", ["tf32x3", "tf32", "bf16"])
def test_cuda_precisions_agree_with_the_reference_as_well_as_they_should(precision):
    potential = build("mollifier", torch.float32)
    batch = batch_of(potential, molecules())
    engine = GpuEngine(potential, precision)
    engine(engine.workspace(batch), batch.positions)
    assert engine.checked


@pytest.mark.skipif(not CUDA, reason="needs a GPU")
def test_cuda_models_get_this_engine_and_positions_may_come_from_the_cpu():
    potential = build(dtype=torch.float32)
    engine = engine_for(potential)
    assert isinstance(engine, GpuEngine)
    assert isinstance(engine_for(build()), GpuEngine)
    batch = batch_atoms(molecules(), potential.cutoff)
    results = engine(engine.workspace(batch), batch.positions)
    assert results["forces"].device.type == "cpu"
