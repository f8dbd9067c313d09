"""i-PI gets from us what `evaluate` gives, all beads in one batch, whatever way it asks."""

import copy
import importlib.metadata
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule

from painn_fast import Ensemble, PaiNNFastError, Sum, evaluate, load
from painn_fast.adapters.ipi import Driver
from painn_fast.adapters.ipi_client import Address
from painn_fast.adapters.ipi_protocol import Structures
from painn_fast.io.find import MODELS
from painn_fast.io.structures import read_structures
from painn_fast.nn import EnergyHead, PotentialConfig, RepresentationConfig
from painn_fast.testing import random_potential
from painn_fast.units import BOHR, HARTREE

ROOT = Path(__file__).resolve().parents[2]
BEADS, STEPS = 4, 4


@pytest.fixture(scope="module")
def ethanol():
    return read_structures(MODELS / "ethanol.xyz")[0]


def beads_of(atoms, count=BEADS, spread=0.05):
    """Displaced copies."""
    rng = np.random.default_rng(0)
    copies = [atoms.copy() for _ in range(count)]
    for one in copies:
        one.positions += spread * rng.normal(size=one.positions.shape)
    return copies


def structures(beads):
    """Copies as i-PI sends them: bohr, cell vectors in columns."""
    cells = np.array([bead.cell.array.T for bead in beads]) / BOHR
    return Structures(cells, np.array([bead.positions for bead in beads]) / BOHR)


def test_driver_gives_what_evaluate_gives_in_atomic_units(driver, ethanol):
    beads = beads_of(ethanol)
    expected = evaluate("ethanol", beads, ("energy", "forces", "dipole", "polarizability"))
    for k, result in enumerate(driver.evaluate(structures(beads))):
        extras = json.loads(result.extras)
        assert list(extras) == ["dipole", "polarizability"]
        np.testing.assert_allclose(result.energy * HARTREE, expected["energy"][k], rtol=1e-9)
        np.testing.assert_allclose(result.forces * HARTREE / BOHR, expected["forces"][k], atol=1e-5)
        np.testing.assert_allclose(np.array(extras["dipole"]) * BOHR, expected["dipole"][k], atol=1e-6)
        np.testing.assert_allclose(
            np.array(extras["polarizability"]) * BOHR**3, expected["polarizability"][k], atol=1e-4
        )


def another(model, seed=0):
    """Of the same kind with slightly other weights."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in other.parameters():
            weight *= 1.0 + 0.01 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    return other


def test_a_driver_of_several_models_gives_means_and_spreads_in_atomic_units(ethanol):
    one = load("ethanol")
    models, names = [one, another(one)], ("energy", "forces", "dipole", "energy_spread", "forces_spread")
    driver = Driver(models[0], ethanol, "dipole energy_spread,forces_spread", members=models[1:])
    beads = beads_of(ethanol)
    expected = evaluate(Ensemble(models), beads, names)
    for k, result in enumerate(driver.evaluate(structures(beads))):
        extras = json.loads(result.extras)
        assert list(extras) == ["dipole", "energy_spread", "forces_spread"]
        np.testing.assert_allclose(result.energy * HARTREE, expected["energy"][k], rtol=1e-9)
        np.testing.assert_allclose(result.forces * HARTREE / BOHR, expected["forces"][k], atol=1e-5)
        np.testing.assert_allclose(np.array(extras["dipole"]) * BOHR, expected["dipole"][k], atol=1e-6)
        np.testing.assert_allclose(extras["energy_spread"] * HARTREE, expected["energy_spread"][k], rtol=1e-3)
        spread = np.array(extras["forces_spread"]) * HARTREE / BOHR
        assert spread.shape == (9,)
        np.testing.assert_allclose(spread, expected["forces_spread"][k], atol=1e-4)
        assert spread.min() > 1e-3
    with pytest.raises(PaiNNFastError, match=r"no such extra.*forces_spread.*dipole \| polarizability"):
        Driver("ethanol", properties="forces_spread")
    with pytest.raises(PaiNNFastError, match="members beside several models"):
        Driver(Ensemble(models), ethanol, members=models)
    with pytest.raises(PaiNNFastError, match="loaded has its type"):
        Driver("ethanol", ethanol, members=models, dtype="float64")
    summed = Driver(Sum(models), ethanol).evaluate(structures(beads))
    total = evaluate(Sum(models), beads, ("forces",))["forces"]
    np.testing.assert_allclose(summed[1].forces * HARTREE / BOHR, total[1], atol=1e-5)


def test_a_crystal_of_several_models(crystal):
    models = [crystal.potential, another(crystal.potential)]
    driver = Driver(Ensemble(models), crystal.atoms, ["forces_spread"])
    (result,) = driver.evaluate(structures([crystal.atoms]))
    expected = evaluate(Ensemble(models), [crystal.atoms], ("forces", "forces_spread"))
    np.testing.assert_allclose(result.forces * HARTREE / BOHR, expected["forces"][0], atol=1e-9)
    spread = np.array(json.loads(result.extras)["forces_spread"]) * HARTREE / BOHR
    np.testing.assert_allclose(spread, expected["forces_spread"][0], atol=1e-9)


def test_one_structure_and_a_list_of_them_are_called_as_ipi_does(driver, ethanol):
    sent = structures(beads_of(ethanol))
    several = driver(list(sent.cells), list(sent.positions))
    assert [len(result) for result in several] == [4] * BEADS
    energy, forces, virial, extras = driver(sent.cells[1], sent.positions[1])
    assert energy == several[1][0]
    np.testing.assert_allclose(json.loads(extras)["dipole"], json.loads(several[1][3])["dipole"], atol=1e-6)
    np.testing.assert_array_equal(forces, several[1][1])
    np.testing.assert_array_equal(virial, several[1][2])


def slope_by_strain(driver, bead, row, column, step=1e-4):
    """Derivative of the energy (hartree) by a strain, from differences."""
    energies = []
    for sign in (1, -1):
        strain = np.eye(3)
        strain[row, column] += sign * step
        strained = bead.copy()
        strained.set_cell(bead.cell.array @ strain.T)
        strained.positions = bead.positions @ strain.T
        energies.append(driver.evaluate(structures([strained]))[0].energy)
    return (energies[0] - energies[1]) / (2 * step)


@pytest.fixture(scope="module")
def crystal():
    """Water in a crooked cell and a model for it."""
    config = PotentialConfig(
        name="water",
        representation=RepresentationConfig(n_features=8, n_layers=2, n_rbf=5, cutoff=4.0),
        heads=(EnergyHead(),),
        elements=(1, 8),
    )
    atoms = molecule("H2O")
    atoms.set_cell([[4.2, 0.0, 0.0], [0.7, 4.4, 0.0], [-0.4, 0.5, 3.8]])
    atoms.pbc = True
    return Driver(random_potential(config, dtype=torch.float64), atoms)


@pytest.mark.parametrize("periodic", [False, True])
def test_virial_is_minus_the_derivative_by_strain(periodic, crystal, ethanol):
    driver = crystal if periodic else Driver("ethanol", dtype="float64")
    (bead,) = beads_of(driver.atoms, 1)
    (result,) = driver.evaluate(structures([bead]))
    expected = -np.array([[slope_by_strain(driver, bead, a, b) for b in range(3)] for a in range(3)])
    np.testing.assert_allclose(result.virial, expected, atol=1e-6)


def test_cell_counts_for_what_is_periodic_only(crystal, driver, ethanol):
    for model, counts in ((crystal, True), (driver, False)):
        sent = structures(beads_of(model.atoms, 1))
        other = model.evaluate(Structures(sent.cells + 80.0 * np.eye(3), sent.positions))
        assert (model.evaluate(sent)[0].energy != other[0].energy) == counts


def test_driver_tells_what_is_wrong(driver, ethanol, tmp_path):
    sent = structures(beads_of(ethanol))
    with pytest.raises(PaiNNFastError, match=r"another structure.*8 atoms.*9"):
        driver.evaluate(Structures(sent.cells, sent.positions[:, 1:]))
    with pytest.raises(PaiNNFastError, match="not finite"):
        driver.evaluate(Structures(sent.cells, sent.positions * np.nan))
    folded = np.mod(sent.positions, 40.0)
    with pytest.raises(PaiNNFastError, match=r"folded into it.*a cell of 21.2 Å; fix: write pbc='False'"):
        driver.evaluate(Structures(sent.cells + 40.0 * np.eye(3), folded))
    with pytest.raises(PaiNNFastError, match=r"no such extra.*charges.*dipole \| polarizability"):
        Driver("ethanol", properties="dipole,charges")
    with pytest.raises(PaiNNFastError, match=r"no such extra.*none of this model"):
        Driver(random_potential(PotentialConfig()), ethanol, properties=["dipole"])
    with pytest.raises(PaiNNFastError, match="no structure"):
        Driver(load("ethanol"))
    with pytest.raises(PaiNNFastError, match="no network runs"):
        Driver("ethanol", dtype="float16")
    with pytest.raises(PaiNNFastError, match="element"):
        Driver("ethanol", molecule("CH3SH"))


@pytest.mark.parametrize("text", ["localhost", "localhost:", ":31415", "localhost:http", "localhost:70000"])
def test_address_that_is_none(text):
    with pytest.raises(PaiNNFastError, match="not an address"):
        Address.parse(text)


def test_ipi_need_not_be_installed():
    for path in (ROOT / "painn_fast").rglob("*.py"):
        assert not re.search(r"^\s*(import|from) ipi\b", path.read_text(encoding="utf-8"), flags=re.MULTILINE), path


PAGE = (ROOT / "docs" / "ipi.md").read_text(encoding="utf-8")
XML, DIRECT = re.findall(r"^```xml.*?\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
STRUCTURE, CUSTOM = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def reference(start):
    """i-PI with the model in its process, all beads in one call, as documented."""
    return start(DIRECT, custom=CUSTOM, beads=BEADS, steps=STEPS)


def test_ipi_goes_the_same_way_by_socket_and_in_its_process(start, serve, port, reference, ethanol):
    ways = {
        "inet": (BEADS + 1, "", Counter({BEADS: STEPS + 1})),  # a client too many
        "unix batched": (1, f"<batch_size>{BEADS}</batch_size>", Counter({BEADS: STEPS + 1})),
        "unix threaded": (BEADS, "<consolidate_messages>False</consolidate_messages>", None),
    }
    runs = {}
    for way, (_, options, _) in ways.items():
        mode, name = way[:4], "localhost" if way == "inet" else "painn"
        place = f"<address>{name}</address><port>{port}</port>"
        runs[way] = start(f"<ffsocket name='painn' mode='{mode}'>{place}{options}</ffsocket>")
    for way, (clients, _, batches) in ways.items():
        run = runs[way]
        address = Address(port=port) if way == "inet" else Address(unix=str(run.folder / "ipi-painn"))
        client = serve(address, clients, patience=5.0 if clients <= BEADS else 2.0)
        run.finish()
        reference.finish()
        assert batches in (None, client.batches), way
        np.testing.assert_array_equal(run.energies, reference.energies, err_msg=way)
        for key, values in reference.seen.items():
            rounding = 1e-5 if key in ("dipole", "polarizability") else 0.0  # of a batch of another size
            np.testing.assert_allclose(run.seen[key], values, rtol=0, atol=rounding, err_msg=f"{way}, {key}")


def test_example_of_the_documentation_runs(tmp_path, monkeypatch, port):
    monkeypatch.chdir(tmp_path)
    exec(compile(STRUCTURE, "ipi.md", "exec"), {})
    (tmp_path / "input.xml").write_text(XML.replace("31415", str(port)))
    (verb,) = re.findall(r"^painn-fast (ipi .*)$", PAGE, flags=re.MULTILINE)
    words = [sys.executable, "-m", "painn_fast.cli", *verb.split(), "--address", f"localhost:{port}"]
    (command,) = (file.locate() for file in importlib.metadata.files("ipi") if file.name == "i-pi")
    with subprocess.Popen([sys.executable, command, "input.xml"], stdout=subprocess.DEVNULL) as theirs:
        try:
            ours = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
            assert "i-PI sent EXIT: 44 structures in 11 batches, the largest of 4\n" in ours.stderr
            assert theirs.wait(timeout=20) == ours.returncode == 0
        finally:
            theirs.kill()
    assert len((tmp_path / "ethanol.dipole_3").read_text().splitlines()) == 6 * 2
    assert len((tmp_path / "ethanol.polarizability_3").read_text().splitlines()) == 6 * 4


def test_ipi_sees_what_evaluate_gives(reference, ethanol):
    reference.finish()
    seen = reference.seen
    beads = [ethanol.copy() for _ in range(BEADS)]
    for bead, positions in zip(beads, seen["positions"], strict=True):
        bead.positions = positions.reshape(-1, 3) * BOHR
    expected = evaluate("ethanol", beads, ("energy", "forces", "dipole", "polarizability"))
    np.testing.assert_allclose(seen["energies"] * HARTREE, expected["energy"], rtol=1e-9)
    np.testing.assert_allclose(seen["forces"].reshape(BEADS, -1, 3) * HARTREE / BOHR, expected["forces"], atol=1e-5)
    np.testing.assert_allclose(seen["dipole"] * BOHR, expected["dipole"], atol=1e-6)
    np.testing.assert_allclose(seen["polarizability"] * BOHR**3, expected["polarizability"], atol=1e-4)
    virials = np.einsum("bnx,bny->bxy", seen["positions"].reshape(BEADS, -1, 3), seen["forces"].reshape(BEADS, -1, 3))
    np.testing.assert_allclose(seen["virials"], np.triu(virials), atol=1e-5)
