"""The real LAMMPS, by fix external, gets what `evaluate` gives: molecules, boxes, groups, units, virials."""

import doctest
import time

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from engines import config, require, water_box

from painn_fast import PaiNNFastError, evaluate, load
from painn_fast.adapters import lammps as adapter
from painn_fast.adapters.lammps import FixExternal
from painn_fast.io.find import MODELS
from painn_fast.io.structures import read_structures
from painn_fast.nn.config import ElectronicConfig
from painn_fast.testing import random_potential
from painn_fast.units import AMU_A2_PER_FS2, BOHR, HARTREE, KB, KCAL_PER_MOL

lammps = require("lammps")
TIGHT = 1e-6  # eV, eV/Å
KCAL = 1 / KCAL_PER_MOL
BAR = 1.6021765e6  # bar in 1 eV/Å^3, LAMMPS's number for units metal


@pytest.fixture(scope="module")
def ethanol():
    return read_structures(MODELS / "ethanol.xyz")[0]


@pytest.fixture
def begin():
    """LAMMPS with atoms, in their order but types in that of `elements`."""
    running = []

    def run(atoms, elements, *, units="metal", boundary="f f f", extra=(), step=0.5):
        lmp = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
        running.append(lmp)
        if atoms.cell.rank == 3:
            (lx, _, _), (xy, ly, _), (xz, yz, lz) = atoms.cell.array.tolist()
            box = f"region box prism 0 {lx!r} 0 {ly!r} 0 {lz!r} {xy!r} {xz!r} {yz!r} units box"
        else:
            box = "region box block -25 25 -25 25 -25 25 units box"
        commands = [
            f"units {units}", f"boundary {boundary}", "atom_style atomic", "atom_modify map array sort 1 2.0", box,
            f"create_box {len(elements)} box", f"timestep {step if units == 'real' else step / 1000}",
            "comm_modify cutoff 3.0",
        ]  # fmt: skip
        lmp.commands_list(commands)
        types = [elements.index(symbol) + 1 for symbol in atoms.symbols]
        lmp.create_atoms(len(atoms), None, types, atoms.positions.ravel().tolist())
        for k, symbol in enumerate(elements):
            lmp.command(f"mass {k + 1} {float(Atoms(symbol).get_masses()[0])!r}")
        lmp.commands_list(["thermo_style custom step pe ke pxx pyy pzz pxy pxz pyz", "thermo 1", *extra])
        return lmp

    yield run
    for lmp in running:
        lmp.close()


def gathered(lmp, name):
    """[N, 3] by atom ID."""
    return np.array(lmp.gather_atoms(name, 1, 3)).reshape(-1, 3)


@pytest.fixture(scope="module")
def water():
    return water_box()


@pytest.mark.parametrize(("units", "eV"), [("metal", 1.0), ("real", KCAL)], ids=["metal", "real"])
def test_energies_and_forces_are_those_of_evaluate(units, eV, begin, ethanol):
    lmp = begin(ethanol, ["O", "H", "C"], units=units)
    FixExternal(lmp, "ethanol", ["O", "H", "C"])
    rng = np.random.default_rng(0)
    for _ in range(3):
        atoms = ethanol.copy()
        atoms.positions += 0.05 * rng.normal(size=atoms.positions.shape)
        lmp.scatter_atoms("x", 1, 3, np.ctypeslib.as_ctypes(atoms.positions.ravel()))
        lmp.command("run 0")
        expected = evaluate("ethanol", [atoms])
        assert lmp.get_thermo("pe") / eV == pytest.approx(expected["energy"][0], rel=1e-8)
        np.testing.assert_allclose(gathered(lmp, "f") / eV, expected["forces"][0], atol=TIGHT)


def pressures(lmp):
    return np.array([lmp.get_thermo(f"p{name}") for name in ("xx", "yy", "zz", "yz", "xz", "xy")])


@pytest.mark.parametrize(("units", "factor"), [("metal", BAR), ("real", BAR / 1.01325)], ids=["metal", "real"])
def test_virial_of_a_periodic_box_is_the_stress(units, factor, begin, water):
    model, box = water
    lmp = begin(box, ["H", "O"], units=units, boundary="p p p")
    FixExternal(lmp, model, ["H", "O"])
    lmp.command("run 0")
    expected = evaluate(model, [box], ["energy", "forces", "stress"])
    np.testing.assert_allclose(pressures(lmp) / factor, -expected["stress"][0], atol=1e-7)
    unit = KCAL if units == "real" else 1.0
    assert lmp.get_thermo("pe") / unit == pytest.approx(expected["energy"][0], rel=1e-8)
    np.testing.assert_allclose(gathered(lmp, "f") / unit, expected["forces"][0], atol=TIGHT)


def test_atoms_that_leave_a_box_come_back_on_the_other_side(begin, water):
    """LAMMPS wraps positions and sorts atoms; energy is conserved and forces are those of the wrapped structure."""
    model, box = water
    lmp = begin(box, ["H", "O"], boundary="p p p", extra=["neigh_modify every 1 delay 0 check no"], step=0.2)
    FixExternal(lmp, model, ["H", "O"])
    lmp.commands_list(["velocity all create 300 7", "velocity all set 0.05 0.0 0.0 sum yes", "fix nve all nve"])
    totals = []
    for _ in range(5):
        lmp.command("run 20")
        totals.append(lmp.get_thermo("pe") + lmp.get_thermo("ke"))
    now = box.copy()
    lmp.command("run 0")
    now.positions = gathered(lmp, "x")
    images = np.array(lmp.gather_atoms("image", 0, 3)).reshape(-1, 3)
    assert abs(images).max() > 0
    order = lmp.numpy.extract_atom("id")[: len(box)].tolist()
    assert order != sorted(order)
    np.testing.assert_allclose(gathered(lmp, "f"), evaluate(model, [now])["forces"][0], atol=TIGHT)
    assert np.ptp(totals) < 2e-3


def test_a_slab_has_the_virial_of_its_periodic_directions(begin, water):
    model, box = water
    flat = box.copy()
    flat.set_cell([[8.4, 0.0, 0.0], [1.4, 8.8, 0.0], [0.0, 0.0, 60.0]])
    flat.positions[:, 2] += 20.0
    lmp = begin(flat, ["H", "O"], boundary="p p f")
    FixExternal(lmp, model, ["H", "O"])
    lmp.command("run 0")
    expected = evaluate(model, [flat], ["energy", "forces", "stress"])  # images across are out of sight
    slab = flat.copy()
    slab.pbc = [True, True, False]
    assert lmp.get_thermo("pe") == pytest.approx(evaluate(model, [slab])["energy"][0], rel=1e-9)
    np.testing.assert_allclose(gathered(lmp, "f"), expected["forces"][0], atol=TIGHT)
    np.testing.assert_allclose(pressures(lmp) / BAR, -expected["stress"][0], atol=1e-8)


def test_virial_of_a_molecule_is_minus_the_derivative_by_strain(begin, ethanol):
    model = load("ethanol", dtype="float64")
    lmp = begin(ethanol, ["C", "O", "H"])
    FixExternal(lmp, model, ["C", "O", "H"])
    lmp.command("run 0")
    virial = pressures(lmp)[[0, 5]] / BAR * 50.0**3
    step = 1e-4
    for (row, column), got in zip(((0, 0), (0, 1)), virial, strict=True):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[row, column] += sign * step
            strained = ethanol.copy()
            strained.positions = ethanol.positions @ strain.T
            energies.append(evaluate(model, [strained])["energy"][0])
        assert got == pytest.approx(-(energies[0] - energies[1]) / (2 * step), abs=2e-5)


@pytest.mark.parametrize("units", ["metal", "real"])
def test_nve_is_our_trajectory(units, begin, ethanol, ours):
    spread = np.sqrt(KB * 300.0 / ethanol.get_masses() / AMU_A2_PER_FS2)[:, None]
    velocities = np.random.default_rng(0).normal(size=(1, 9, 3)) * spread  # Å/fs
    lmp = begin(ethanol, ["O", "C", "H"], units=units, extra=["fix nve all nve"])
    FixExternal(lmp, "ethanol", ["O", "C", "H"])
    factor = 1.0 if units == "real" else 1000.0
    lmp.scatter_atoms("v", 1, 3, np.ctypeslib.as_ctypes((factor * velocities[0]).ravel()))
    frames, totals = [], []
    for _ in range(50):
        lmp.command("run 4 pre no" if frames else "run 4")
        frames.append(gathered(lmp, "x"))
        totals.append(lmp.get_thermo("pe") + lmp.get_thermo("ke"))
    expected = ours(load("ethanol"), ethanol, ethanol.positions[None], velocities, steps=200, time_step=0.5)
    tolerance = 1e-6 if units == "metal" else 1e-5  # LAMMPS's constants have 8 digits
    np.testing.assert_allclose(frames[:10], expected[4:44:4, 0], atol=tolerance)
    np.testing.assert_allclose(frames, expected[4::4, 0], atol=100 * tolerance)
    assert np.std(totals) < 5e-3 * (KCAL if units == "real" else 1.0)


def test_a_group_has_the_model_and_others_have_not(begin, ethanol):
    atoms = Atoms("Ar", [[0.0, 0.0, 5.0]]) + ethanol + Atoms("Ar", [[0.0, 5.0, 0.0]])
    elements = ["C", "H", "O", "Ar"]
    lmp = begin(atoms, elements, extra=["group inside type 1 2 3", "group other type 4"])
    with pytest.raises(PaiNNFastError, match=r"element that the model does not know.*Ar"):
        FixExternal(lmp, "ethanol", elements, group="inside")
    FixExternal(lmp, "ethanol", ["C", "H", "O", "O"], group="inside", name="net")
    lmp.command("run 0")
    expected = evaluate("ethanol", [ethanol])
    assert lmp.get_thermo("pe") == pytest.approx(expected["energy"][0], rel=1e-9)
    forces = gathered(lmp, "f")
    np.testing.assert_allclose(forces[1:-1], expected["forces"][0], atol=TIGHT)
    assert not forces[[0, -1]].any()


def test_minimisation_and_a_barostat_use_energy_and_virial(begin, water):
    model, box = water
    lmp = begin(box, ["H", "O"], boundary="p p p", step=0.2)
    FixExternal(lmp, model, ["H", "O"])
    lmp.command("run 0")
    first = lmp.get_thermo("pe")
    lmp.command("minimize 0 1e-3 20 50")
    assert lmp.get_thermo("pe") < first - 1e-3
    volume = lmp.get_thermo("vol")
    lmp.commands_list(["velocity all create 300 3", "fix npt all npt temp 300 300 0.02 tri 0 0 0.1", "run 100"])
    assert abs(lmp.get_thermo("vol") / volume - 1.0) > 1e-4
    now = box.copy()
    low, high, xy, yz, xz, *_ = lmp.extract_box()
    lx, ly, lz = np.subtract(high, low)
    now.cell = [[lx, 0, 0], [xy, ly, 0], [xz, yz, lz]]
    lmp.commands_list(["unfix npt", "run 0"])
    now.positions = gathered(lmp, "x")
    expected = evaluate(model, [now])
    assert lmp.get_thermo("pe") == pytest.approx(expected["energy"][0], rel=1e-8)
    np.testing.assert_allclose(gathered(lmp, "f"), expected["forces"][0], atol=TIGHT)


def test_charge_and_multiplicity_reach_a_model_with_embeddings(begin):
    model = random_potential(config(charge_embedding=ElectronicConfig(), spin_embedding=ElectronicConfig()))
    atoms = molecule("H2O")
    energies = set()
    for charge, multiplicity in ((0, 1), (-1, 1), (0, 3)):
        lmp = begin(atoms, ["H", "O"])
        FixExternal(lmp, model, ["H", "O"], charge=charge, multiplicity=multiplicity)
        lmp.command("run 0")
        atoms.info = {"charge": charge, "spin_multiplicity": multiplicity}
        assert lmp.get_thermo("pe") == pytest.approx(evaluate(model, [atoms])["energy"][0], abs=1e-9)
        energies.add(round(lmp.get_thermo("pe"), 6))
    assert len(energies) == 3


def test_errors_say_what_is_wrong_and_end_the_run(begin, ethanol):
    lmp = begin(ethanol, ["O", "H", "C"])
    with pytest.raises(PaiNNFastError, match=r"not those of LAMMPS's types.*one for each of 3 types"):
        FixExternal(lmp, "ethanol", ["O", "H"])
    with pytest.raises(PaiNNFastError, match=r"no such element.*Xy"):
        FixExternal(lmp, "ethanol", ["O", "H", "Xy"])
    with pytest.raises(PaiNNFastError, match=r"no such group.*solvent.*all"):
        FixExternal(lmp, "ethanol", ["O", "H", "C"], group="solvent")
    with pytest.raises(PaiNNFastError, match=r"other units.*lj.*metal \| real"):
        FixExternal(begin(ethanol, ["O", "H", "C"], units="lj"), "ethanol", ["O", "H", "C"])
    FixExternal(lmp, "ethanol", ["O", "H", "C"])
    lmp.commands_list(["fix nve all nve", "run 2"])
    near = ethanol.positions.copy()
    near[0] = near[1] + 0.01
    lmp.scatter_atoms("x", 1, 3, np.ctypeslib.as_ctypes(near.ravel()))
    with pytest.raises(Exception, match="painn has ended the run: atoms on top of each other"):
        lmp.command("run 10000")
    assert lmp.extract_global("ntimestep") == 2


def test_options_of_the_model(begin, ethanol):
    lmp = begin(ethanol, ["O", "H", "C"])
    FixExternal(lmp, "ethanol", ["O", "H", "C"], dtype="float64", backend="reference")
    lmp.command("run 0")
    expected = evaluate(load("ethanol", dtype=torch.float64), [ethanol])["energy"][0]
    assert lmp.get_thermo("pe") == pytest.approx(expected, abs=1e-9)


def test_lammps_with_a_model_is_a_client_of_ipi(begin, start, port, ethanol):
    """By fix ipi, which moves the atoms of LAMMPS and sends its energy, forces and virial."""
    server = start(f"<ffsocket name='painn' mode='inet'><address>localhost</address><port>{port}</port></ffsocket>")
    lmp = begin(ethanol, ["O", "H", "C"], extra=["neigh_modify every 1 delay 0 check no"])
    FixExternal(lmp, "ethanol", ["O", "H", "C"])
    lmp.command(f"fix ipi all ipi localhost {port}")
    end = time.monotonic() + 60.0
    message = "server unreachable"
    while "server unreachable" in message and time.monotonic() < end:  # fix ipi tries once
        time.sleep(0.2)
        with pytest.raises(Exception, match=r"server unreachable|i-PI") as caught:
            lmp.command("run 100000000")
        message = str(caught.value)
    assert "Got EXIT message from i-PI" in message
    server.finish()
    seen = server.seen
    beads = [ethanol.copy() for _ in seen["positions"]]
    for bead, positions in zip(beads, seen["positions"], strict=True):
        bead.positions = positions.reshape(-1, 3) * BOHR
    expected = evaluate("ethanol", beads)
    np.testing.assert_allclose(seen["energies"] * HARTREE, expected["energy"], rtol=3e-8)  # its constants
    np.testing.assert_allclose(seen["forces"].reshape(4, -1, 3) * HARTREE / BOHR, expected["forces"], atol=1e-5)
    positions, forces = seen["positions"].reshape(4, -1, 3), seen["forces"].reshape(4, -1, 3)
    virials = np.einsum("bnx,bny->bxy", positions, forces)
    np.testing.assert_allclose(seen["virials"], np.triu(virials), atol=1e-5)


def test_examples_of_docstrings_run():
    assert doctest.testmod(adapter).failed == 0
