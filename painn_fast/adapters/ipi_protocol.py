"""One connection to i-PI's `ffsocket`: bytes in, bytes out, never waiting.

i-PI asks STATUS, answers NEEDINIT with INIT, sends POSDATA (cell, its inverse, number of atoms, positions) and collects
with GETFORCE (energy, number of atoms, forces, virial, extras). With its `batch_size` B > 1, which INIT tells, POSDATA
holds B structures at once. All is in atomic units and native byte order.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Generator, Sequence
from typing import NamedTuple

import numpy as np

from painn_fast.errors import PaiNNFastError

HEADER = 12
CHUNK = 1 << 18
MOST_ATOMS = 10_000_000
"""Of a structure; more are taken for what is no number of atoms."""
SHARED_MEMORY = b"ipi_shm_"
"""Begins the names that POSDATA carries where i-PI's mode is "shm"."""


class Structures(NamedTuple):
    """What one POSDATA holds."""

    cells: np.ndarray  # [B, 3, 3] bohr, columns are the vectors
    positions: np.ndarray  # [B, N, 3] bohr


class Result(NamedTuple):
    """Of one structure, as i-PI wants it."""

    energy: float  # hartree
    forces: np.ndarray  # [N, 3] hartree/bohr
    virial: np.ndarray  # [3, 3] hartree, minus the derivative of the energy by strain
    extras: str  # JSON, or nothing


class Connection:
    """The client's end of a connection.

    `request` is what waits to be evaluated; until `answer` nothing more of what i-PI says is heeded. `over` tells that
    there is nobody to talk to any more, `said_exit` whether i-PI took leave.
    """

    def __init__(self, own: socket.socket) -> None:
        own.setblocking(False)
        self.socket = own
        self.request: Structures | None = None
        self.greeted = self.over = self.said_exit = False
        self._in, self._out = bytearray(), bytearray()
        self._batch = 0  # 0: not initialised
        self._packed = b""
        self._talk = self._conversation()
        self._wanted = next(self._talk)

    def receive(self) -> None:
        """Take what has arrived.

        Raises:
            PaiNNFastError: for what is not of this protocol.
        """
        try:
            data = self.socket.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.greeted = True
        if not data:
            self.over = True
            self.said_exit |= self._in.endswith(b"EXIT".ljust(HEADER))  # while positions wait to be evaluated
        self._in += data
        self._go_on()

    def answer(self, results: Sequence[Result]) -> None:
        """Have the results of `request` ready."""
        atoms = len(results[0].forces)
        parts = [np.array([result.energy for result in results]).tobytes(), struct.pack("=i", atoms)]
        parts += [np.ascontiguousarray(result.forces, dtype=np.float64).tobytes() for result in results]
        parts += [np.ascontiguousarray(result.virial, dtype=np.float64).tobytes() for result in results]
        for result in results:
            extras = result.extras.encode()
            parts += [struct.pack("=i", len(extras)), extras]
        self._packed = b"".join(parts)
        self.request = None
        self._go_on()

    def send(self) -> bool:
        """Send what the socket takes; whether something is left."""
        while self._out and not self.over:
            try:
                del self._out[: self.socket.send(self._out)]
            except BlockingIOError:
                return True
            except OSError:
                self.over = True
        return False

    def _go_on(self) -> None:
        while self.request is None and not self.said_exit and len(self._in) >= self._wanted:
            data = bytes(self._in[: self._wanted])
            del self._in[: self._wanted]
            self._wanted = self._talk.send(data)
        self.over |= self.said_exit

    def _say(self, word: bytes, data: bytes = b"") -> None:
        self._out += word.ljust(HEADER) + data

    def _conversation(self) -> Generator[int, bytes, None]:
        """Yields how many bytes it needs next and is sent them."""
        while True:
            match (yield HEADER).rstrip():
                case b"STATUS":
                    self._say(b"HAVEDATA" if self._packed else b"READY" if self._batch else b"NEEDINIT")
                case b"INIT":
                    _, length = struct.unpack("=2i", (yield 8))
                    if not 0 <= length <= MOST_ATOMS:
                        raise PaiNNFastError("this is not i-PI's protocol", got=f"parameters of {length} bytes")
                    self._batch = _batch_size((yield length))
                case b"POSDATA":
                    self.request = yield from self._structures()
                case b"GETFORCE" if self._packed:
                    self._say(b"FORCEREADY", self._packed)
                    self._packed = b""
                case b"EXIT":
                    self.said_exit = True
                    yield 0
                case other:
                    raise PaiNNFastError("this is not i-PI's protocol", got=repr(other))

    def _structures(self) -> Generator[int, bytes, Structures]:
        batch = max(self._batch, 1)
        if batch == 1:
            cells, atoms = struct.unpack("=144si", (yield 148))
            if SHARED_MEMORY in cells:
                raise PaiNNFastError("i-PI's shared memory is not spoken here", fix='write <ffsocket mode="unix">')
        else:
            (atoms,) = struct.unpack("=i", (yield 4))
            cells = yield 144 * batch
        if not 0 < atoms <= MOST_ATOMS:
            raise PaiNNFastError("this is not i-PI's protocol", got=f"a structure of {atoms} atoms")
        positions = np.frombuffer((yield 24 * atoms * batch)).reshape(batch, atoms, 3)
        return Structures(np.frombuffer(cells).reshape(batch, 2, 3, 3)[:, 0], positions)


def _batch_size(parameters: bytes) -> int:
    """B as i-PI adds it to its parameters, "name : value, batch_size:8"; otherwise 1."""
    for pair in parameters.decode(errors="replace").split(","):
        name, _, value = pair.partition(":")
        if name.strip() == "batch_size" and re.fullmatch(r"[0-9]{1,6}", value.strip()):
            return int(value)
    return 1
