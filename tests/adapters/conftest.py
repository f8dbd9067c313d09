"""The real i-PI as a process of its own, a potential of openmm-ml, and our dynamics to compare engines with."""

import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from engines import require

from painn_fast.adapters.ipi import Driver
from painn_fast.adapters.ipi_client import Address, Client
from painn_fast.io.find import MODELS
from painn_fast.md.estimators import Estimators
from painn_fast.md.forces import ModelForces
from painn_fast.md.integrators import RingPolymer
from painn_fast.md.simulation import Group, Simulation
from painn_fast.md.state import State, System

INPUT = """
<simulation verbosity="low" floatformat="%.15e" safe_stride="1000000">
  <output prefix="out">
    <properties stride="1" filename="energies">[potential{electronvolt}, kinetic_cv{electronvolt}]</properties>
  </output>
  <total_steps>STEPS</total_steps>
  <prng><seed>1</seed></prng>
  FORCEFIELD
  <system>
    <initialize nbeads="BEADS">
      <file mode="ase">ethanol.xyz</file>
      <cell mode="abc" units="angstrom">[30, 30, 30]</cell>
      <velocities mode="thermal" units="kelvin">300</velocities>
    </initialize>
    <forces><force forcefield="painn"/></forces>
    <ensemble><temperature units="kelvin">300</temperature></ensemble>
    <motion mode="dynamics">
      <dynamics mode="nvt" splitting="baoab">
        <timestep units="femtosecond">0.5</timestep>
        <thermostat mode="pile_l"><tau units="femtosecond">TAU</tau></thermostat>
      </dynamics>
    </motion>
  </system>
</simulation>
"""
RUN = """
import numpy as np
from ipi.engine.simulation import Simulation
from ipi.utils.softexit import softexit

simulation = Simulation.load_from_xml(open("input.xml"), sockets_prefix="ipi-")
simulation.run()
system = simulation.syslist[0]
seen = {name: np.array(values) for name, values in system.forces.extras.items() if name != "raw"}
seen |= {"positions": system.beads.q, "energies": system.forces.pots, "forces": system.forces.f}
np.savez("seen.npz", virials=system.forces.virs, **seen)
softexit.trigger(status="success", message="done")
"""


def patience(steps: int) -> float:
    """Seconds after which i-PI is taken for hanging."""
    return 120 + 0.1 * steps


@dataclass
class Run:
    """i-PI that works in a folder."""

    folder: Path
    process: subprocess.Popen

    def finish(self) -> None:
        """Wait for its end."""
        assert self.process.wait(timeout=60) == 0, (self.folder / "log").read_text()[-3000:]

    @property
    def energies(self) -> np.ndarray:
        """Potential and centroid-virial kinetic energy [T, 2] eV, step by step."""
        return np.loadtxt(self.folder / "out.energies", ndmin=2)

    @property
    def seen(self) -> dict[str, np.ndarray]:
        """What i-PI knows after the last step, in atomic units."""
        return dict(np.load(self.folder / "seen.npz"))


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """Start i-PI with `forcefield`, XML, in a folder of its own, which holds `custom` as painn.py."""
    timers, processes = [], []

    def begin(forcefield: str, *, beads: int = 4, steps: int = 4, tau: float = 50.0, custom: str = "") -> Run:
        folder = tmp_path_factory.mktemp("ipi")
        text = INPUT
        for name, value in {"STEPS": steps, "FORCEFIELD": forcefield, "BEADS": beads, "TAU": tau}.items():
            text = text.replace(name, str(value))
        (folder / "input.xml").write_text(text)
        (folder / "painn.py").write_text(custom)
        (folder / "ethanol.xyz").write_bytes((MODELS / "ethanol.xyz").read_bytes())
        with (folder / "log").open("w") as log:
            process = subprocess.Popen([sys.executable, "-c", RUN], cwd=folder, stdout=log, stderr=log)
        processes.append(process)
        timers.append(threading.Timer(patience(steps), process.kill))
        timers[-1].start()
        return Run(folder, process)

    yield begin
    for timer in timers:
        timer.cancel()
    for process in processes:  # that a failed test has left
        process.kill()
        process.wait()


@pytest.fixture
def port():
    """A free port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(scope="session")
def driver():
    """Ethanol with all extras."""
    return Driver("ethanol", properties="dipole, polarizability")


@pytest.fixture
def serve(driver):
    """Serve i-PI to its end; the client, to be asked for its batches."""

    def run(address: Address, clients: int, **options) -> Client:
        client = Client(driver.evaluate, address, clients, timeout=60.0, **options)
        client.run()
        return client

    return run


@pytest.fixture
def ours():
    """Our dynamics without a thermostat: positions [T + 1, P, N, 3] Å, from velocities [P, N, 3] in Å/fs."""

    def run(model, atoms, positions, velocities, *, steps, time_step, temperature=300.0):
        system = System.from_atoms(atoms)
        temperatures = torch.full((1,), temperature, dtype=torch.float64)
        integrator = RingPolymer(system, "rpmd", len(positions), temperatures, time_step)
        momenta = torch.tensor(velocities)[None] * system.masses[:, None]
        state = State.at(torch.tensor(positions)[None], momenta, torch.zeros(1, dtype=torch.int64))
        estimators = Estimators(system, len(positions), temperatures)
        group = Group(system, state, temperatures, integrator, estimators)
        simulation = Simulation([group], ModelForces(model, atoms))
        frames = [state.positions[0].numpy().copy()]
        for _ in range(steps):
            simulation.step()
            frames.append(state.positions[0].numpy().copy())
        return np.array(frames)

    return run


@pytest.fixture(scope="module")
def potential():
    """The bundled model as a potential of openmm-ml."""
    return require("openmmml").MLPotential("painn-fast", model="ethanol")
