"""Every Triton kernel at F = 128 and sizes that fill no block, against its specification in float64."""

import importlib.util
import math
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from ase import Atoms
from ase.build import molecule
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.driver import driver

from painn_fast.engine.gpu import GpuEngine
from painn_fast.graph import batch_atoms
from painn_fast.kernels.launch import launches
from painn_fast.kernels.layer import triton as layers
from painn_fast.kernels.node import triton as nodes
from painn_fast.kernels.node.reference import Mlp, node
from painn_fast.kernels.radial.reference import Radial
from painn_fast.kernels.tools.tuning import subjects as tuned
from painn_fast.nn import EnergyHead, PotentialConfig, RepresentationConfig
from painn_fast.testing import KERNEL_TOLERANCE, random_potential

SIZES = [13, 1, 5]
"""Atoms of each molecule; the one alone has no neighbours."""
F, EPSILON = 128, 1e-8
ROWS = (1, 2, 4, 8)
"""Atoms of a program that a file of launches may have."""


@dataclass(frozen=True)
class Subject:
    """A check that fails where results differ.

    Args:
        kernels: that it launches.
        quick: whether it is among the tests that always run.
    """

    kernels: frozenset[str]
    check: Callable[[], None]
    quick: bool = False


def subjects() -> dict[str, Subject]:
    """By name."""
    listed = {
        f"engine, {dtype}, {way} nodes": Subject(
            kernels, _with(engine, dtype, way), dtype == torch.float32 and way == "fused"
        )
        for dtype in (torch.float32, torch.float64)
        for way, kernels in ENGINE.items()
    }
    for name in tuned._calls(tuned.molecules([2], torch.device("cpu"))):
        kernels = OPERATIONS.get(name, frozenset({f"{name.split(',')[0]}_kernel"}))
        for dtype in (torch.float32, torch.float64):
            for programs in (4096, 4) if "programs" in launches()[name] else (4096,):
                title = f"{name}, {dtype}{', rows of several atoms' if programs == 4 else ''}"
                check = _with(operation, name, dtype, programs, "sinc")
                listed[title] = Subject(kernels, check, name in ("update", "readout"))
    for name in ("message_fwd", "message_force_bwd"):
        check = _with(operation, name, torch.float32, 4096, "gaussian")
        listed[f"{name}, Gaussians"] = Subject(frozenset({f"{name}_kernel"}), check)
    for precision in (*nodes.PRECISIONS, "float64"):
        for hidden in (None, F // 2):
            title = f"node, {precision}{', readout' if hidden else ''}"
            check = _with(between_messages, precision, hidden)
            quick = precision == "tf32x3" and hidden is None
            listed[title] = Subject(NODES, check, quick)
    listed["node, programs of 1 to 8 atoms"] = Subject(NODES, nodes_of_more_atoms)
    for features in (F, 64):
        check = _with(layers_of_more_atoms, features)
        listed[f"engine, programs of 1 to 8 atoms, F={features}"] = Subject(LAYERS, check)
    listed["engine, linked launches"] = Subject(LAYERS, linked_launches)
    listed["engine, energies alone"] = Subject(LAYERS | {"molecules_kernel"}, energies_alone)
    return listed | _of_other_tests()


def _with(function, *given):
    return lambda: function(*given)


MESSAGES = frozenset({
    "edge_vectors_kernel", "message_fwd_kernel", "message_force_bwd_kernel", "readout_fwd_kernel", "molecules_kernel"
})  # fmt: skip
NODES = frozenset({"node_fwd_kernel", "node_bwd_kernel"})
LAYERS = frozenset({"layer_fwd_kernel", "layer_bwd_kernel"})
UPDATE = frozenset({"norm_fwd_kernel", "gate_fwd_kernel", "norm_adjoint_kernel", "gate_adjoint_kernel"})
ENGINE = {
    "fused": LAYERS,
    "blas": MESSAGES | {"norm_fwd_kernel", "gate_fwd_kernel", "norm_bwd_kernel", "gate_bwd_kernel"},
}
OPERATIONS = {
    "update": UPDATE,
    "readout": frozenset({"readout_fwd_kernel", "molecules_kernel"}),
}
"""Kernels of launches that have other names."""


def assert_near(got, expected, tolerance, what):
    """Norm of the difference at most `tolerance` times the norm expected."""
    got, expected = got.detach().double(), expected.detach().double()
    assert got.shape == expected.shape, f"{what}: got shape {tuple(got.shape)}, expected {tuple(expected.shape)}"
    error = float((got - expected).norm()) / max(float(expected.norm()), 1e-300)
    assert error <= tolerance, f"{what}: off by {error:.2e} of the norm, allowed {tolerance:.0e}"


def operation(name, dtype, programs, basis):
    """A launch of the tuner's, with several atoms a program where programs are few."""
    problem = tuned.molecules(SIZES, torch.device("cpu"))
    if basis == "gaussian":
        centres = torch.linspace(0.0, tuned.CUTOFF, tuned.K)
        widths = torch.full_like(centres, tuned.CUTOFF / (tuned.K - 1))
        problem = replace(problem, radial=Radial("gaussian", centres, widths, "mollifier", tuned.CUTOFF))
    expected = tuned.references(problem)[name]
    if dtype == torch.float64:
        problem = _double(problem)
    numbers = launches().get(name, {})
    before = dict(numbers)
    numbers |= {"programs": programs} if "programs" in numbers else {}
    try:
        got = tuned._calls(problem)[name]()
    finally:
        numbers |= before
    tolerance = KERNEL_TOLERANCE["float64" if dtype == torch.float64 else "ieee"]
    for k, (one, other) in enumerate(zip(got, expected, strict=True)):
        assert_near(one, other, tolerance, f"result {k}")


def _double(problem):
    radial = replace(problem.radial, first=problem.radial.first.double(), widths=problem.radial.widths.double())
    groups = ("inputs", "adjoints", "tangents", "update", "readout")
    return replace(problem, radial=radial, **{g: tuple(t.double() for t in getattr(problem, g)) for g in groups})


def between_messages(precision, hidden):
    """A node operation and its adjoint; `hidden` is the width of a readout."""
    dtype = torch.float64 if precision == "float64" else torch.float32
    n, generator = sum(SIZES) + 2, torch.Generator().manual_seed(0)

    def random(*shape):
        scale = shape[0] ** -0.5 if len(shape) == 2 else 1.0
        return (scale * torch.randn(shape, generator=generator)).to(dtype)

    mix, update = random(F, 2 * F), Mlp(random(2 * F, F), random(F), random(F, 3 * F), random(3 * F))
    following = Mlp(
        random(F, hidden or F), random(hidden or F), *((None, None) if hidden else (random(F, 3 * F), random(3 * F)))
    )
    s, v, gs, gv = math.sqrt(n) * random(n, F), random(n, 3, F), math.sqrt(n) * random(n, F), random(n, 3, F)
    g_next = math.sqrt(n) * random(n, hidden or 3 * F)
    if hidden:
        gs, gv = torch.zeros_like(gs), torch.zeros_like(gv)
    exact = [t.double().requires_grad_() for t in (s, v)]
    in_double = [mix.double(), *(Mlp(*(t if t is None else t.double() for t in mlp)) for mlp in (update, following))]
    with RoundedFactors(precision):
        expected = node(*exact, *in_double, EPSILON)
        adjoints = torch.autograd.grad(expected, exact, [gs.double(), gv.double(), g_next.double()])

    def empty(*shape):
        return torch.empty(n, *shape, dtype=dtype)

    def stored(weight, transposed=False):
        if weight is None:
            return None
        weight = weight.T.contiguous() if transposed else weight
        return weight.bfloat16() if precision == "bf16" else weight

    x = None if hidden else empty(3 * F)
    kept = nodes.Kept(empty(3, 2 * F), empty(F), empty(3 * F), empty(hidden or F))
    s_out, v_out, gs_out, gv_out = empty(F), empty(3, F), empty(F), empty(3, F)
    weights = [stored(mix)] + [
        Mlp(stored(m.first), m.first_bias, stored(m.second), m.second_bias) for m in (update, following)
    ]
    how = {"precision": "ieee" if precision == "float64" else precision}
    nodes.node_fwd(s, v, *weights, EPSILON, kept, empty(F), s_out, v_out, x, **how)
    if hidden:  # these are not read
        gs, gv = empty(F), empty(3, F)
    weights = [stored(mix, True)] + [(stored(m.first, True), stored(m.second, True)) for m in (update, following)]
    nodes.node_bwd(gs, gv, g_next, *weights, EPSILON, kept, empty(F), empty(F), empty(3, 2 * F), gs_out, gv_out, **how)
    results = (s_out, v_out, kept.next_hidden if hidden else x, gs_out, gv_out)
    for name, got, right in zip(("s", "v", "next", "gs", "gv"), results, (*expected, *adjoints), strict=True):
        assert_near(got, right, KERNEL_TOLERANCE[precision], name)
    return results


@contextmanager
def atoms_of_a_program(rows):
    """Of "ieee", whatever the number of atoms."""
    numbers = [each for name, each in launches().items() if name.startswith("layer")]
    before = [dict(each) for each in numbers]
    try:
        for each in numbers:
            each["atoms"] = rows
        yield
    finally:
        for each, kept in zip(numbers, before, strict=True):
            each |= kept


def nodes_of_more_atoms():
    """Programs of any number of atoms give the same bits."""
    results = []
    for rows in ROWS:
        with atoms_of_a_program(rows):
            results.append(between_messages("ieee", None))
    for name, one, *others in zip(("s", "v", "next", "gs", "gv"), *results, strict=True):
        for rows, other in zip(ROWS[1:], others, strict=True):
            assert torch.equal(one, other), f"{name}: other bits in programs of {rows} atoms"


class RoundedFactors(TorchDispatchMode):
    """Products, also those of derivatives, of factors rounded to "tf32" or "bf16"; all else is in float64.

    A kernel rounds numbers of float32. One that is off by e of itself is rounded to the next one, off by the spacing of
    2^-10 ("tf32"), in e / 2^-10 of all cases, which is sqrt(2^-10 e) of the norm: 2e-5 after the first product, for
    e = 4e-7, 1.4e-4 after the next, had nothing averaged it. Of "bf16" 4e-5 and 4e-4.
    """

    def __init__(self, precision):
        super().__init__()
        self.rounded = {"tf32": _to_tf32, "bf16": lambda t: t.float().bfloat16().double()}.get(precision)

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if self.rounded and function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.bmm):
            arguments = [self.rounded(t) for t in arguments]
        return function(*arguments, **(keywords or {}))


def _to_tf32(t):
    """Without the bits that a tensor core does not read: Triton hands it numbers of float32 as they are."""
    return (t.float().contiguous().view(torch.int32) & -0x2000).view(torch.float32).double()


def _potential(dtype, features=F, layers=3):
    config = PotentialConfig(representation=RepresentationConfig(n_features=features, n_layers=layers),
                             heads=(EnergyHead(),))  # fmt: skip
    return random_potential(config, dtype=dtype)


def _evaluated(potential, names, properties, way="fused"):
    """What the engine calculates of rattled molecules, and their batch."""
    structures = [Atoms("H") if name == "H" else molecule(name) for name in names]
    for k, atoms in enumerate(structures):
        atoms.rattle(0.1, seed=k)
    batch = batch_atoms(structures, potential.cutoff)
    made = GpuEngine(potential, node=way)
    made.checked = True
    return made(made.workspace(batch), batch.positions, properties), batch


def layers_of_more_atoms(features):
    """Programs of any number of atoms give the same bits."""
    potential, results = _potential(torch.float32, features, 2), []
    for rows in ROWS:
        with atoms_of_a_program(rows):
            results.append(_evaluated(potential, ["CH4", "H", "H2O"], ["energy", "forces"])[0])
    for name, value in results[0].items():
        for rows, other in zip(ROWS[1:], results[1:], strict=True):
            assert torch.equal(value, other[name]), f"{name}: other bits in programs of {rows} atoms"


def linked_launches():
    """The same bits where a program waits for the launches before its own, and lets the next begin."""
    potential, kept, results = _potential(torch.float32, layers=2), (layers.LINKED, layers.can_be_linked), []
    texts = driver.active.texts
    try:
        layers.can_be_linked = lambda: True
        for layers.LINKED in (False, True):
            results.append(_evaluated(potential, ["H2O", "CO"], ["energy", "forces"])[0])
            waits = sum("griddepcontrol.wait" in text for text in texts)
            assert (waits > 0) == layers.LINKED
    finally:
        layers.LINKED, layers.can_be_linked = kept
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), f"{name}: other bits where launches are linked"


def energies_alone():
    """Without forces energies have the same bits as with them, where a program has as many atoms."""
    potential = _potential(torch.float32, layers=2)
    alone, both = (_evaluated(potential, ["H2O", "CO"], names)[0] for names in (["energy"], ["energy", "forces"]))
    assert torch.equal(alone["energy"], both["energy"])


def engine(dtype, way):
    """Energies and forces of molecules by a network of three layers, as the engine calculates them."""
    potential = _potential(dtype)
    got, batch = _evaluated(potential, ["CH3CH2OH", "H", "H2O"], ["energy", "forces"], way)
    exact = potential.double()
    with torch.no_grad(), exact.reference():
        expected = exact(batch, ["energy", "forces"])
    tolerance = KERNEL_TOLERANCE["float64" if dtype == torch.float64 else "ieee"]
    for name in ("energy", "forces"):
        assert_near(got[name], expected[name], tolerance, name)


def _of_other_tests():
    """Kernels that have no features, by checks of their own tests."""

    def ring(P, ensemble, few=False):
        tests = _module("test_ring")
        kept = {name: getattr(tests.triton, name) for name in ("TILE", "COLUMNS", "ATOMS", "PARTS")}
        try:
            if few:
                for name, value in {"TILE": 16, "COLUMNS": 2, "ATOMS": 4, "PARTS": 2}.items():
                    setattr(tests.triton, name, value)
            tests.assert_equal_to_the_specification(tests.triton, ensemble, P, True, 2)
        finally:
            for name, value in kept.items():
                setattr(tests.triton, name, value)

    def neighbors():
        tests = _module("test_neighbors")
        for system in ("molecules", "more atoms than a block of a program", "random pairs at the cut-off"):
            tests.test_the_list_is_that_of_the_graph("triton", system)

    def bonds():
        tests = _module("test_bonds")
        tests.test_images_in_a_cell_are_the_nearest(tests.triton)
        tests.test_the_nearest_of_several_new_partners_is_taken(tests.triton)

    def random():
        tests = _module("test_random_triton")
        tests.test_equals_the_reference_bit_for_bit(2**64 - 1, 2**48 - 1, 1001, 65535)
        tests.test_the_step_may_lie_on_the_device(2**32 + 17)
        tests.test_each_trajectory_may_have_a_seed()

    def edges():
        tests = _module("test_edges")
        for structures in tests.GRAPHS.values():
            tests.test_edge_vectors(batch_atoms(structures, 5.0), torch.float32)
            tests.test_forces_and_virials(batch_atoms(structures, 5.0))

    def second_update():
        tests = _module("test_update")
        kept = dict(tests.ops.KERNELS)
        tests.ops.KERNELS["cpu"] = tests.ops.on_gpu
        try:
            given = tests.inputs(sum(SIZES), F, dtype=torch.float32)
            got = tests.derivatives(tests.ops, given)
            exact = tests.derivatives(tests.reference, [t.detach().double().requires_grad_() for t in given])
        finally:
            tests.ops.KERNELS.update(kept)
        for k, (one, other) in enumerate(zip(got, exact, strict=True)):
            assert_near(one, other, KERNEL_TOLERANCE["ieee"], f"result {k}")

    step = frozenset({"modes_kernel", "close_kernel"})
    coupled = frozenset({"centroid_kernel"})
    many = frozenset({"beads_kernel"})
    return {
        "ring, one bead": Subject(step | coupled, lambda: ring(1, "pile-l"), True),
        "ring, five beads": Subject(step | many | coupled, lambda: ring(5, "pile-g"), True),
        "ring, many programs": Subject(
            step | many | coupled | {"heat_kernel", "check_kernel"}, lambda: ring(5, "pile-g", True), True
        ),
        "neighbors": Subject(frozenset({"count_kernel", "fill_kernel", "mirror_kernel"}), neighbors, True),
        "bonds": Subject(frozenset({"update_kernel"}), bonds, True),
        "random": Subject(frozenset({"normal_kernel"}), random, True),
        "edges": Subject(frozenset({"edge_vectors_kernel", "edge_forces_kernel"}), edges, True),
        "update, second derivatives": Subject(UPDATE | {"norm_second_kernel", "gate_second_kernel"}, second_update),
    }


def _module(name):
    """A file of tests/kernels."""
    path = Path(__file__).parents[1] / "kernels" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{name}_for_the_emulator", path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made
