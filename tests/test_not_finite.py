"""Positions that are not finite, atoms on top of each other and cells without a volume are errors at every entry point.

The differentiable network alone returns NaN, as SchNetPack does, for callers that check results themselves.
"""

import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

import painn_fast as pf
from painn_fast.adapters.ipi import Driver
from painn_fast.adapters.ipi_protocol import Structures
from painn_fast.engine import CpuEngine
from painn_fast.errors import PaiNNFastError
from painn_fast.graph import batch_atoms
from painn_fast.md.forces import ModelForces
from painn_fast.nn import EnergyHead, PotentialConfig, RepresentationConfig
from painn_fast.testing import random_potential
from painn_fast.train.data.dataset import Batches
from painn_fast.train.data.read import read_file
from painn_fast.train.settings import DataFile
from painn_fast.units import BOHR

pytest.importorskip("triton")

from painn_fast.engine.gpu import GpuEngine

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{message}:RuntimeWarning") for message in ("invalid value", "divide by zero")
]
"""Of NumPy, in which Triton's interpreter computes."""
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CONFIG = PotentialConfig(
    representation=RepresentationConfig(n_features=16, n_layers=2, n_rbf=3, cutoff=4.0), heads=(EnergyHead(),)
)


@pytest.fixture(scope="module")
def model():
    return random_potential(CONFIG, dtype=torch.float32)


def water(change=None):
    atoms = molecule("H2O")
    if change is not None:
        change(atoms)
    return atoms


def placed(atom, where):
    return lambda atoms: atoms.positions.__setitem__(atom, where)


POSITIONS = {
    "NaN": (placed(1, [math.nan, 0, 0]), "not finite"),
    "infinite": (placed(2, [0, math.inf, 0]), "not finite"),
    "on top of each other": (lambda atoms: atoms.positions.__setitem__(1, atoms.positions[0]), "on top of each other"),
}
CELLS = {
    "parallel": ([[3, 0, 0], [6, 0, 0], [0, 0, 9]], "parallel"),
    "NaN": ([[3, 0, 0], [0, math.nan, 0], [0, 0, 9]], "cell.*not finite"),
    "singular": ([[3, 0, 0], [0, 4, 0], [3, 4, 0]], "parallel"),
    "zero": ([[3, 0, 0], [0, 0, 0], [0, 0, 9]], "without a cell vector"),
    "tiny": ([[1e-3, 0, 0], [0, 1e-3, 0], [0, 0, 1e-3]], "too small|too many neighbours"),
    "huge": ([[1e200, 0, 0], [0, 1e200, 0], [0, 0, 1e200]], "absurdly large|not finite"),
}
ELEMENTS = {
    "no element": (Atoms("XH", [[0, 0, 0], [0, 0, 1]]), "does not know"),
    "beyond the table": (Atoms([200, 1], [[0, 0, 0], [0, 0, 1]]), "does not know"),
    "negative": (Atoms([-1, 1], [[0, 0, 0], [0, 0, 1]]), "does not know"),
    "nothing": (Atoms(), "without atoms"),
}


def by_calculator(model, atoms):
    atoms.calc = pf.PaiNNCalculator(model)
    return atoms.get_forces()


def by_engine(make, model, atoms):
    """The graph of a right structure where only positions are wrong."""
    engine = make(model)
    right = water() if len(atoms) == 3 and not atoms.pbc.any() else atoms
    batch = batch_atoms([right], model.cutoff).to(DEVICE if make is GpuEngine else "cpu")
    return engine(engine.workspace(batch), torch.tensor(atoms.positions))["forces"]


def by_ipi(model, atoms, *, one_call=False):
    right = bulk("MgO", "rocksalt", a=4.2) if atoms.pbc.any() else water()
    if len(atoms) != len(right):
        right = atoms  # elements are those of the structure file
    driver = Driver(model, right)
    cells = atoms.cell.array.T[None] / BOHR if atoms.pbc.any() else np.zeros((1, 3, 3))
    positions = atoms.positions[None] / BOHR
    return driver(cells[0], positions[0]) if one_call else driver.evaluate(Structures(cells, positions))


ENTRIES = {
    "evaluate": lambda model, atoms: pf.evaluate(model, [molecule("H2"), atoms]),
    "evaluate, reference": lambda model, atoms: pf.evaluate(model, [atoms], backend="reference"),
    "evaluate, fused": lambda model, atoms: pf.evaluate(model, [atoms], backend="fused"),
    "evaluate, float64": lambda model, atoms: pf.evaluate(random_potential(CONFIG), [atoms]),
    "evaluate, hessian": lambda model, atoms: pf.evaluate(model, [atoms], ["hessian"]),
    "calculator": by_calculator,
    "CPU engine": lambda model, atoms: by_engine(CpuEngine, model, atoms),
    "GPU engine": lambda model, atoms: by_engine(GpuEngine, random_potential(CONFIG, dtype=torch.float32).to(DEVICE),
                                                 atoms),
    "i-PI": by_ipi,
    "i-PI, direct": lambda model, atoms: by_ipi(model, atoms, one_call=True),
    "forces of dynamics": ModelForces,
}  # fmt: skip


def refused(entry, model, atoms, message):
    with pytest.raises(PaiNNFastError, match=message) as raised:
        ENTRIES[entry](model, atoms)
    assert len(str(raised.value)) < 600
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", POSITIONS)
@pytest.mark.parametrize("entry", ENTRIES)
def test_positions_are_errors(entry, kind, model):
    change, message = POSITIONS[kind]
    refused(entry, model, water(change), message)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("entry", ENTRIES)
def test_cells_are_errors(entry, kind, model):
    cell, message = CELLS[kind]
    refused(entry, model, Atoms("MgO", [[0, 0, 0], [0, 0, 2.1]], cell=cell, pbc=True), message)


@pytest.mark.parametrize("kind", ELEMENTS)
@pytest.mark.parametrize("entry", ENTRIES)
def test_elements_are_errors(entry, kind, model):
    atoms, message = ELEMENTS[kind]
    refused(entry, model, atoms.copy(), f"{message}|another structure|no structure")


@pytest.mark.parametrize("far", [1e300, 1e9])
@pytest.mark.parametrize("entry", ENTRIES)
def test_positions_too_large_for_any_number_are_errors(entry, far, model):
    refused(entry, model, water(placed(1, [far, 0, 0])), "absurdly large")


@pytest.mark.parametrize("entry", [name for name in ENTRIES if "engine" not in name])
def test_atoms_almost_on_top_of_each_other_are_errors_though_results_are_finite(entry, model):
    near = water(lambda atoms: atoms.positions.__setitem__(1, atoms.positions[0] + [0, 0, 0.05]))
    refused(entry, model, near, "on top of each other")


def engines():
    return {"CPU": CpuEngine, "GPU": GpuEngine}


@pytest.mark.parametrize("kind", POSITIONS)
def test_both_engines_and_the_network_return_nan_without_a_check(kind, model):
    """An invalid molecule is NaN in all, and the one beside it has the results that it has alone."""
    batch = batch_atoms([water(), molecule("CH4")], model.cutoff)
    positions = batch.positions.clone()
    change, _ = POSITIONS[kind]
    positions[:3] = torch.tensor(water(change).positions)
    right = batch_atoms([molecule("CH4")], model.cutoff)
    results = {}
    for name, make in engines().items():
        engine = make(random_potential(CONFIG, dtype=torch.float32).to(DEVICE if name == "GPU" else "cpu"))
        work = engine.workspace(batch)
        results[name] = engine(work, positions, ("energy", "forces"), finite=False)
        alone = engine(engine.workspace(right), right.positions)
        assert torch.equal(results[name]["energy"][1], alone["energy"][0])
        assert torch.equal(results[name]["forces"][3:], alone["forces"])
    moved = batch.with_positions(positions)
    results["fused network"] = {k: v.detach() for k, v in model(moved).items()}
    with model.reference():
        results["reference"] = {k: v.detach() for k, v in model(moved).items()}
        alone = model(moved, ["energy"])["energy"]
        results["energies alone"] = {"energy": alone, "forces": torch.full((8, 3), math.nan)}
    for name, values in results.items():
        assert values["energy"][0].isnan(), name
        assert values["energy"][1].isfinite(), name
        assert values["forces"][:3].isnan().any(1).all(), name


@pytest.mark.parametrize("kind", POSITIONS)
def test_forces_of_dynamics_are_nan_for_that_copy_alone(kind, model):
    forces = ModelForces(model, water())
    positions = torch.tensor(np.stack([molecule("H2O").positions] * 3))
    first = forces(positions)
    positions[1] = torch.tensor(water(POSITIONS[kind][0]).positions)
    energy, force = forces(positions)
    assert energy.isnan().tolist() == [False, True, False]
    assert force[1].isnan().any(1).all()
    assert torch.equal(force[[0, 2]], first[1][[0, 2]])


@pytest.mark.parametrize("kind", POSITIONS)
def test_an_accelerated_model_gives_nan_where_schnetpack_does(kind, spk):
    live = spk.model().double()

    def outcome():
        results = live(spk.batch([water(POSITIONS[kind][0]), molecule("CH4")], dtype=torch.float64))
        return {name: value.isnan() for name, value in results.items()}

    before = outcome()
    pf.accelerate(live)
    after = outcome()
    assert before.keys() == after.keys()
    for name in before:
        assert torch.equal(before[name], after[name]), name
        assert before[name].any(), name
        assert not before[name].all(), name


FILES = [(suffix, kind) for suffix in (".xyz", ".npz") for kind in (*CELLS, "NaN position")]
FILES.remove((".xyz", "zero"))  # a vector of zeros on a comment line is an open direction


@pytest.mark.parametrize(("suffix", "kind"), FILES)
def test_training_data_are_errors(suffix, kind, tmp_path):
    cell, message = CELLS.get(kind, (9 * np.eye(3), "not finite"))
    positions = np.array([[0, 0, 0], [0, 0, 1.0 if kind in CELLS else math.nan]])
    path = tmp_path / f"data{suffix}"
    if suffix == ".xyz":
        numbers = " ".join(f"{x:g}" for x in np.ravel(cell))
        rows = "".join(f"H {x} {y} {z} 0 0 0\n" for x, y, z in positions)
        path.write_text(f'2\nLattice="{numbers}" energy=0.0 Properties=species:S:1:pos:R:3:forces:R:3\n{rows}')
    else:
        arrays = {"R": positions[None], "z": np.array([1, 1]), "E": np.zeros(1), "F": np.zeros((1, 2, 3))}
        np.savez(path, lattice=np.array(cell).T, pbc=np.ones(3, dtype=bool), **arrays)

    def read():
        data = read_file(DataFile(file=path.name, units={"length": "Ang", "energy": "eV"}), tmp_path)
        Batches(data, 5.0, ["energy"])([0])

    with pytest.raises(PaiNNFastError, match=message) as raised:
        read()
    assert re.search(rf"{path.name}.*frame", str(raised.value))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e, w, p: e(w, p[:2]), r"positions of another batch; got: \[2, 3\]"),
        (lambda e, w, p: e(w, p.numpy()), "positions of another batch; got: ndarray"),
        (lambda e, w, p: e(w, p.long()), "positions of another batch.*int64"),
        (lambda e, w, p: e(w, p, ("energy", "dipole")), "does not give this property.*'dipole'"),
        (lambda e, w, p: e(w, p, "energy"), "one name where a list"),
        (lambda e, w, p: e(w, p, ("stress",)), "stress needs a cell"),
    ],
)
@pytest.mark.parametrize("name", ["CPU", "GPU"])
def test_an_engine_refuses_calls_that_do_not_fit_its_batch(name, call, message):
    engine = engines()[name](random_potential(CONFIG, dtype=torch.float32).to(DEVICE if name == "GPU" else "cpu"))
    batch = batch_atoms([water()], 4.0)
    with pytest.raises(PaiNNFastError, match=message):
        call(engine, engine.workspace(batch), batch.positions)


@pytest.mark.parametrize("name", ["CPU", "GPU"])
@pytest.mark.parametrize(
    "change",
    [
        {"sender": torch.tensor([1, 2, 0, 2, 0, 3])},
        {"receiver": torch.tensor([-1, 0, 1, 1, 2, 2])},
        {"shift": torch.zeros(6, 2, dtype=torch.float64)},
        {"row_ptr": torch.tensor([0, 2, 4, 7])},
        {"n_atoms": torch.tensor([4])},
        {"numbers": torch.tensor([8, 1, 0])},
        {"numbers": torch.tensor([8, 1, 1000])},
    ],
    ids=["sender", "receiver", "shift", "row_ptr", "n_atoms", "Z = 0", "Z = 1000"],
)
def test_an_engine_refuses_graphs_that_would_read_beyond_memory(name, change):
    engine = engines()[name](random_potential(CONFIG, dtype=torch.float32).to(DEVICE if name == "GPU" else "cpu"))
    batch = batch_atoms([water()], 4.0)
    with pytest.raises(PaiNNFastError, match=r"arrays do not fit|does not know"):
        engine.workspace(dataclasses.replace(batch, **change))


def test_a_model_whose_weights_are_not_finite_is_an_error_by_every_entry_point(model):
    invalid = random_potential(CONFIG, dtype=torch.float32)
    with torch.no_grad():
        invalid.heads["energy"].network[-1].weight[0, 0] = math.nan
    for backend in ("auto", "reference"):
        with pytest.raises(PaiNNFastError, match=r"no finite numbers; where: structure 0.*energy"):
            pf.evaluate(invalid, [water()], backend=backend)
    with pytest.raises(PaiNNFastError, match="no finite numbers; where: bead 0"):
        by_ipi(invalid, water())
