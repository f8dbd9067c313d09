"""The client follows i-PI's protocol, also if i-PI is late, sends in parts or is gone."""

import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from painn_fast import PaiNNFastError
from painn_fast.adapters.ipi_client import MISSES, PATIENCE, Address, Client
from painn_fast.adapters.ipi_protocol import Result, Structures

ATOMS = 3


def springs(beads):
    """Every atom on a spring to the origin; the extras hold the width of the cell."""
    square = np.einsum("bnx,bnx->b", beads.positions, beads.positions)
    virials = -np.einsum("bnx,bny->bxy", beads.positions, beads.positions)
    extras = [json.dumps({"width": cell[0, 0], "é": "é"}) for cell in beads.cells]
    forces = -beads.positions
    return [Result(float(e), f, v, x) for e, f, v, x in zip(square / 2, forces, virials, extras, strict=True)]


class Peer:
    """i-PI's end of one connection."""

    def __init__(self, accepted):
        self.socket = accepted
        self.socket.settimeout(20)

    def say(self, word, *data):
        self.socket.sendall(word.ljust(12) + b"".join(data))

    def receive(self, size):
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            assert part, "the client closed the connection"
            data += part
        return data

    def status(self):
        self.say(b"STATUS")
        return self.receive(12).rstrip()

    def initialise(self, parameters=b" "):
        assert self.status() == b"NEEDINIT"
        self.say(b"INIT", struct.pack("=2i", 7, len(parameters)), parameters)
        assert self.status() == b"READY"

    def read(self, atoms=ATOMS, batch=1):
        """Results after GETFORCE: energies, forces, virials, extras."""
        assert self.receive(12).rstrip() == b"FORCEREADY"
        energies = np.frombuffer(self.receive(8 * batch))
        assert struct.unpack("=i", self.receive(4)) == (atoms,)
        forces = np.frombuffer(self.receive(24 * atoms * batch)).reshape(batch, atoms, 3)
        virials = np.frombuffer(self.receive(72 * batch)).reshape(batch, 3, 3)
        extras = [json.loads(self.receive(struct.unpack("=i", self.receive(4))[0])) for _ in range(batch)]
        return energies, forces, virials, extras


def posdata(positions, width=9.0):
    """What follows POSDATA."""
    cell = width * np.eye(3)
    return cell.tobytes() + np.linalg.inv(cell).tobytes() + struct.pack("=i", len(positions)) + positions.tobytes()


def check(results, positions, width=9.0):
    energies, forces, virials, extras = results
    (expected,) = springs(Structures(np.eye(3)[None], positions[None]))
    np.testing.assert_array_equal(energies, [expected.energy])
    np.testing.assert_array_equal(forces[0], expected.forces)
    np.testing.assert_array_equal(virials[0], expected.virial)
    assert extras == [{"width": width, "é": "é"}]


@pytest.fixture
def sites():
    return np.random.default_rng(0).normal(size=(8, ATOMS, 3))


@pytest.fixture
def ipi():
    """A listening socket; `accept` gives peers, `serve` starts a client in a thread."""

    class Server:
        def __init__(self):
            self.listener = socket.create_server(("127.0.0.1", 0))
            self.listener.settimeout(20)
            self.port = self.listener.getsockname()[1]
            self.pool = ThreadPoolExecutor()
            self.lines, self.peers = [], []

        def serve(self, clients, evaluate=springs, timeout=20.0, patience=PATIENCE):
            address = Address("127.0.0.1", self.port)
            self.client = Client(evaluate, address, clients, timeout=timeout, patience=patience, keep=self.lines.append)
            return self.pool.submit(self.client.run)

        def accept(self, count=1):
            peers = [self.accept_one() for _ in range(count)]
            for peer in peers:
                peer.initialise()
            return peers

        def accept_one(self):
            peer = Peer(self.listener.accept()[0])
            self.peers.append(peer)
            assert peer.status() == b"NEEDINIT"  # as i-PI asks at once
            return peer

    server = Server()
    yield server
    for opened in (server.listener, *(peer.socket for peer in server.peers)):
        opened.close()
    server.pool.shutdown()


def test_conversation_step_by_step(ipi, sites):
    end = ipi.serve(1)
    (peer,) = ipi.accept()
    for positions in sites[:2]:
        message = b"POSDATA".ljust(12) + posdata(positions, width=4.0)
        for first in range(0, len(message), 50):
            peer.socket.sendall(message[first : first + 50])
            time.sleep(0.001)
        assert peer.status() == b"HAVEDATA"
        peer.say(b"GETFORCE")
        check(peer.read(), positions, width=4.0)
        assert peer.status() == b"READY"
    peer.say(b"EXIT")
    end.result(timeout=20)
    assert ipi.lines == ["i-PI sent EXIT: 2 structures in 2 batches, the largest of 1"]


def test_all_connections_in_one_batch(ipi, sites):
    end = ipi.serve(8, patience=10.0)
    peers = ipi.accept(8)
    for _ in range(3):
        for peer, positions in zip(peers, sites, strict=True):
            peer.say(b"POSDATA", posdata(positions), b"GETFORCE".ljust(12))
            time.sleep(PATIENCE)
        for peer, positions in zip(peers, sites, strict=True):
            check(peer.read(), positions)
    for peer in peers:
        peer.say(b"EXIT")
    end.result(timeout=20)
    assert ipi.client.batches == Counter({8: 3})


def test_batches_that_ipi_makes(ipi, sites):
    end = ipi.serve(1)
    peer = ipi.accept_one()
    peer.initialise(b" model : x , batch_size:8")
    cells = b"".join(posdata(positions)[:144] for positions in sites)
    peer.say(b"POSDATA", struct.pack("=i", ATOMS), cells, sites.tobytes(), b"GETFORCE".ljust(12))
    energies, forces, _, extras = peer.read(batch=8)
    np.testing.assert_array_equal(forces, -sites)
    np.testing.assert_allclose(energies, np.square(sites).sum(axis=(1, 2)) / 2)
    assert len(extras) == 8
    peer.say(b"EXIT")
    end.result(timeout=20)


def test_some_of_the_beads_are_not_waited_for(ipi, sites):
    patience = 0.2
    end = ipi.serve(3, patience=patience)
    peers = ipi.accept(3)
    waited = []
    for _ in range(MISSES + 2):
        for peer, positions in zip(peers[:2], sites[:2], strict=True):
            peer.say(b"POSDATA", posdata(positions), b"GETFORCE".ljust(12))
        start = time.monotonic()
        for peer, positions in zip(peers[:2], sites[:2], strict=True):
            check(peer.read(), positions)
        waited.append(time.monotonic() - start)
    assert min(waited[:MISSES]) >= patience
    assert min(waited[MISSES:]) < patience
    peers[2].say(b"POSDATA", posdata(sites[2]), b"GETFORCE".ljust(12))
    check(peers[2].read(), sites[2])
    for peer in peers:
        peer.say(b"EXIT")
    end.result(timeout=20)
    assert ipi.client.batches == Counter({2: MISSES + 2, 1: 1})


def test_structures_larger_than_the_buffers_do_not_lock_up(ipi):
    """i-PI sends all positions before it reads any result."""
    atoms = 200_000
    positions = np.random.default_rng(0).normal(size=(atoms, 3))
    end = ipi.serve(2)
    peers = ipi.accept(2)
    peers[0].say(b"POSDATA", posdata(positions), b"GETFORCE".ljust(12))
    time.sleep(5 * PATIENCE)
    peers[1].say(b"POSDATA", posdata(positions), b"GETFORCE".ljust(12))
    for peer in peers:
        check(peer.read(atoms), positions)
        peer.say(b"EXIT")
    end.result(timeout=20)
    assert ipi.client.batches == Counter({1: 2})


def test_ipi_that_starts_later_is_waited_for(ipi):
    ipi.listener.close()
    end = ipi.serve(1)
    time.sleep(0.3)
    with socket.create_server(("127.0.0.1", ipi.port)) as ipi.listener:
        (peer,) = ipi.accept()
        peer.say(b"EXIT")
        end.result(timeout=20)
    assert ipi.lines == [f"waiting for i-PI at 127.0.0.1:{ipi.port}", "i-PI sent EXIT: 0 structures in 0 batches"]


def test_ipi_that_never_starts_is_an_error(ipi):
    ipi.listener.close()
    message = rf"no connection to i-PI.*127.0.0.1:{ipi.port}.*connection refused, for 0.1 s.*--timeout"
    with pytest.raises(PaiNNFastError, match=message):
        ipi.serve(1, timeout=0.1).result(timeout=20)


def test_host_that_does_not_exist():
    with pytest.raises(PaiNNFastError, match="no such host"):
        Client(springs, Address("no.such.host.invalid")).run()


@pytest.mark.parametrize("when", ["idle", "evaluating", "before the results are read"])
def test_ipi_that_goes_away(ipi, sites, when):
    left = threading.Event()

    def slow(beads):
        assert when != "evaluating" or left.wait(20)
        return springs(beads)

    end = ipi.serve(2, slow)
    peers = ipi.accept(2)
    for peer in peers:
        if when != "idle":
            peer.say(b"POSDATA", posdata(sites[0]), b"GETFORCE".ljust(12))
        if when == "before the results are read":
            peer.receive(1)
    for peer in peers:
        peer.socket.close()
    left.set()
    end.result(timeout=20)
    assert re.match(r"i-PI closed the connection without EXIT: \d structures in \d batches", ipi.lines[-1])


def test_ipi_that_sends_exit_while_positions_wait(ipi, sites):
    left = threading.Event()

    def slow(beads):
        assert left.wait(20)
        return springs(beads)

    end = ipi.serve(1, slow)
    (peer,) = ipi.accept()
    peer.say(b"POSDATA", posdata(sites[0]), b"EXIT".ljust(12))
    peer.socket.close()
    left.set()
    end.result(timeout=20)
    assert ipi.lines[0].startswith("i-PI sent EXIT")


def test_connection_that_ipi_drops_leaves_the_others(ipi, sites):
    end = ipi.serve(2)
    peers = ipi.accept(2)
    peers[0].socket.close()
    peers[1].say(b"POSDATA", posdata(sites[0]), b"GETFORCE".ljust(12))
    check(peers[1].read(), sites[0])
    peers[1].say(b"EXIT")
    end.result(timeout=20)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"HTTP/1.1 400 Bad Request", "not i-PI's protocol.*HTTP"),
        (b"GETFORCE".ljust(12), "not i-PI's protocol.*GETFORCE"),
        (b"POSDATA".ljust(12) + struct.pack("=2i", 9, 16) + b"ipi_shm_1_2_pos ".ljust(200), "shared memory.*unix"),
    ],
)
def test_what_is_not_spoken_is_an_error(ipi, data, text):
    end = ipi.serve(1)
    (peer,) = ipi.accept()
    peer.socket.sendall(data)
    with pytest.raises(PaiNNFastError, match=text):
        end.result(timeout=20)


def test_different_structures_are_an_error(ipi, sites):
    end = ipi.serve(2)
    peers = ipi.accept(2)
    for peer, atoms in zip(peers, (3, 2), strict=True):
        peer.say(b"POSDATA", posdata(sites[0][:atoms]))
    with pytest.raises(PaiNNFastError, match=r"different structures; got: \[2, 3\] atoms"):
        end.result(timeout=20)


def test_an_error_names_the_other_kind_where_there_are_no_unix_sockets(monkeypatch):
    monkeypatch.delattr(socket, "AF_UNIX")
    with pytest.raises(PaiNNFastError, match=r'no such sockets on this system.*/tmp/ipi_painn.*mode="inet"'):
        Address(unix="painn").connect()
