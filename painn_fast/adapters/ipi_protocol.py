"""One connection to i-PI's `ffsocket`: bytes in, bytes out, never waiting.

i-PI asks STATUS, answers NEEDINIT with INIT, sends POSDATA (cell, its inverse, number of atoms, positions) and collects
with GETFORCE (energy, number of atoms, forces, virial, extras). With its `batch_size` B > 1, a parameter of INIT,
POSDATA holds B structures at once. All is in atomic units and native byte order.
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
"""Of a structure; a larger number is an error of the protocol."""
SHARED_MEMORY = b"ipi_shm_"
"""Begins the names that POSDATA carries where i-PI's mode is "shm"."""


class Structures(NamedTuple):
    """Cells and positions of the structures that i-PI sends at once.

    Example:
        >>> import numpy as np
        >>> from painn_fast.adapters import Structures
        >>> sent = Structures(cells=np.zeros((4, 3, 3)), positions=np.zeros((4, 9, 3)))
        >>> len(sent.positions)
        4
    """

    cells: np.ndarray  # [B, 3, 3] bohr, columns are the vectors
    positions: np.ndarray  # [B, N, 3] bohr


class Result(NamedTuple):
    """Results for one structure, as they are returned to i-PI.

    Example:
        >>> import numpy as np
        >>> from painn_fast.adapters import Result
        >>> result = Result(-1.0, forces=np.zeros((9, 3)), virial=np.zeros((3, 3)), extras="")
        >>> result.energy
        -1.0
    """

    energy: float  # hartree
    forces: np.ndarray  # [N, 3] hartree/bohr
    virial: np.ndarray  # [3, 3] hartree, minus the derivative of the energy by strain
    extras: str  # JSON, or nothing


class Connection:
    """The client's end of a connection.

    `request` holds the structures that wait to be evaluated; until `answer`, further messages are not processed. `over`
    is true once the connection is closed, `exited` once i-PI has sent EXIT.
    """

    def __init__(self, own: socket.socket) -> None:
        own.setblocking(False)
        self.socket = own
        self.request: Structures | None = None
        self.greeted = self.over = self.exited = False
        self._in, self._out = bytearray(), bytearray()
        self._batch = 0  # 0: not initialised
        self._packed = b""
        self._talk = self._conversation()
        self._wanted = next(self._talk)

    def receive(self) -> None:
        """Take what has arrived.

        Raises:
            PaiNNFastError: for a message that is not of this protocol.
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
            self.exited |= self._in.endswith(b"EXIT".ljust(HEADER))  # while positions wait to be evaluated
        self._in += data
        self._go_on()

    def answer(self, results: Sequence[Result]) -> None:
        """Store the results of `request` for the next GETFORCE."""
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
        """Send as much as the socket takes; whether something is left."""
        while self._out and not self.over:
            try:
                del self._out[: self.socket.send(self._out)]
            except BlockingIOError:
                return True
            except OSError:
                self.over = True
        return False

    def _go_on(self) -> None:
        while self.request is None and not self.exited and len(self._in) >= self._wanted:
            data = bytes(self._in[: self._wanted])
            del self._in[: self._wanted]
            self._wanted = self._talk.send(data)
        self.over |= self.exited

    def _queue(self, word: bytes, data: bytes = b"") -> None:
        self._out += word.ljust(HEADER) + data

    def _conversation(self) -> Generator[int, bytes, None]:
        """Yields the number of bytes that it needs next, and is sent them."""
        while True:
            match (yield HEADER).rstrip():
                case b"STATUS":
                    self._queue(b"HAVEDATA" if self._packed else b"READY" if self._batch else b"NEEDINIT")
                case b"INIT":
                    _, length = struct.unpack("=2i", (yield 8))
                    if not 0 <= length <= MOST_ATOMS:
                        raise PaiNNFastError("this is not i-PI's protocol", got=f"parameters of {length} bytes")
                    self._batch = _batch_size((yield length))
                case b"POSDATA":
                    self.request = yield from self._structures()
                case b"GETFORCE" if self._packed:
                    self._queue(b"FORCEREADY", self._packed)
                    self._packed = b""
                case b"EXIT":
                    self.exited = True
                    yield 0
                case other:
                    raise PaiNNFastError("this is not i-PI's protocol", got=repr(other))

    def _structures(self) -> Generator[int, bytes, Structures]:
        batch = max(self._batch, 1)
        if batch == 1:
            cells, atoms = struct.unpack("=144si", (yield 148))
            if SHARED_MEMORY in cells:
                fix = 'write <ffsocket mode="unix">'
                raise PaiNNFastError("i-PI's shared memory (mode shm) is not supported", fix=fix)
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
