"""The client of i-PI's `ffsocket`: one process with as many connections as there are beads."""

from __future__ import annotations

import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field

import numpy as np

from painn_fast.adapters.ipi_protocol import Connection, Result, Structures
from painn_fast.errors import PaiNNFastError

UNIX_PREFIX = "/tmp/ipi_"
"""i-PI's prefix of the paths of its sockets of mode "unix"."""
PATIENCE = 0.02
"""Seconds; more than i-PI takes from one connection to the next."""
MISSES = 3
"""Batches without a connection after which the next ones do not wait for it."""
RETRY = 0.2
"""Seconds between attempts to connect."""


@dataclass(frozen=True)
class Address:
    """The address of i-PI's server: host and port, or the name (or path) of a socket of its mode "unix".

    Example:
        >>> from painn_fast.adapters import Address
        >>> Address.parse("localhost:31415")
        Address(host='localhost', port=31415, unix=None)
        >>> str(Address(unix="painn"))
        '/tmp/ipi_painn'
    """

    host: str = "localhost"
    port: int = 31415
    unix: str | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """The address of a text host:port.

        Returns:
            The address.

        Raises:
            PaiNNFastError: for another text.
        """
        host, colon, port = text.rpartition(":")
        if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise PaiNNFastError("not an address", got=repr(text), expected="host:port, such as localhost:31415")
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.unix is None else self._path

    @property
    def _path(self) -> str:
        return str(self.unix) if "/" in str(self.unix) else f"{UNIX_PREFIX}{self.unix}"

    def connect(self) -> socket.socket:
        """A new connection; OSError if there is none."""
        if self.unix is None:
            connected = socket.create_connection((self.host, self.port), timeout=1.0)
            if connected.getsockname() == connected.getpeername():  # the kernel chose this very port for our own end
                connected.close()
                raise ConnectionRefusedError("Connection refused")
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connected
        if not hasattr(socket, "AF_UNIX"):  # Windows
            raise PaiNNFastError("no such sockets on this system", got=str(self), fix='use mode="inet", --address')
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connected.settimeout(1.0)
            connected.connect(self._path)
        except OSError:
            connected.close()
            raise
        return connected


@dataclass
class Client:
    """Serves i-PI through several connections at once, as if they were as many processes.

    A batch is what all connections have sent. One that has sent nothing for `MISSES` batches is not waited for, nor is
    any when nothing has arrived for `patience` seconds.

    Attributes:
        evaluate: a function such as `Driver.evaluate`.
        address: of i-PI.
        clients: connections, one a bead.
        timeout: seconds to wait for i-PI to start.
        patience: seconds without news from i-PI after which what has arrived is evaluated, though not all have sent.
        tell: called with the present state, a line that replaces the one before.
        keep: called with lines that stay.
        batches: number of batches by their size.

    Example:
        >>> from painn_fast.adapters import Address, Client, Driver
        >>> client = Client(Driver("ethanol").evaluate, Address(unix="painn"), clients=4)
        >>> client.summary()
        '0 structures in 0 batches'
        >>> client.run()  # doctest: +SKIP
    """

    evaluate: Callable[[Structures], list[Result]]
    address: Address
    clients: int = 1
    _: KW_ONLY
    timeout: float = 300.0
    patience: float = PATIENCE
    tell: Callable[[str], None] = lambda message: None
    keep: Callable[[str], None] = lambda message: None
    batches: Counter[int] = field(default_factory=Counter)

    def run(self) -> None:
        """Serve until i-PI has closed the last connection.

        Raises:
            PaiNNFastError: if i-PI does not start in time, violates its protocol, or sends a structure that the model
                cannot evaluate.
        """
        self._missed: dict[Connection, int] = {}
        self._opened = 0
        self._selector = selectors.DefaultSelector()
        exited = False
        try:
            self._add(self._first())
            while any(connection.greeted or not exited for connection in self._missed):
                if not exited:
                    self._grow()
                self._round()
                for connection in [one for one in self._missed if one.over]:
                    exited |= connection.exited
                    self._drop(connection)
        finally:
            for connection in list(self._missed):
                self._drop(connection)
            self._selector.close()
        self.keep(f"i-PI {'sent EXIT' if exited else 'closed the connection without EXIT'}: {self.summary()}")

    def summary(self) -> str:
        """Numbers of structures and batches."""
        total = sum(size * count for size, count in self.batches.items())
        largest = f", the largest of {max(self.batches)}" if self.batches else ""
        return f"{total} structures in {self.batches.total()} batches{largest}"

    def _first(self) -> socket.socket:
        """Wait for i-PI."""
        start, waiting = time.monotonic(), False
        while True:
            try:
                return self.address.connect()
            except socket.gaierror as error:
                raise PaiNNFastError("no such host", where=self.address, got=error.strerror) from None
            except OSError as error:
                if time.monotonic() - start >= self.timeout:
                    raise PaiNNFastError(
                        "no connection to i-PI", where=self.address,
                        got=f"{str(error.strerror or error).lower()}, for {self.timeout:g} s",
                        fix="start i-pi, check that its ffsocket has this address, or wait longer (--timeout)",
                    ) from None  # fmt: skip
            if not waiting:
                self.keep(f"waiting for i-PI at {self.address}")
                waiting = True
            time.sleep(RETRY)

    def _grow(self) -> None:
        """One more connection, if more are wanted and i-PI has greeted all others: its queue is short."""
        if self._opened < self.clients and all(connection.greeted for connection in self._missed):
            try:
                self._add(self.address.connect())
            except OSError:  # full, or about to end
                return

    def _add(self, connected: socket.socket) -> None:
        self._opened += 1
        connection = Connection(connected)
        self._missed[connection] = 0
        self._selector.register(connected, selectors.EVENT_READ, connection)

    def _drop(self, connection: Connection) -> None:
        del self._missed[connection]
        self._selector.unregister(connection.socket)
        connection.socket.close()

    def _round(self) -> None:
        """Receive what has arrived; if nothing has, evaluate the requests that wait."""
        waiting = [connection for connection in self._missed if connection.request]
        complete = all(connection.request or missed >= MISSES for connection, missed in self._missed.items())
        wait = (0.0 if complete else self.patience) if waiting else RETRY
        events = self._selector.select(wait)
        for key, mask in events:
            if mask & selectors.EVENT_READ:
                key.data.receive()
            self._send(key.data)
        if waiting and not events:
            self._evaluate(waiting)

    def _evaluate(self, waiting: Sequence[Connection]) -> None:
        requests = [connection.request for connection in waiting if connection.request]
        sizes = sorted({request.positions.shape[1] for request in requests})
        if len(sizes) > 1:
            raise PaiNNFastError("i-PI sends different structures", got=f"{sizes} atoms", expected="copies of one")
        results = self.evaluate(Structures(*(np.concatenate(parts) for parts in zip(*requests, strict=True))))
        self.batches[len(results)] += 1
        for connection in self._missed:
            self._missed[connection] += 1
        for connection, request in zip(waiting, requests, strict=True):
            own, results = results[: len(request.cells)], results[len(request.cells) :]
            connection.answer(own)
            self._missed[connection] = 0
            self._send(connection)
        self.tell(f"i-PI at {self.address}: {self.summary()}")

    def _send(self, connection: Connection) -> None:
        left = connection.send()
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if left else 0)
        self._selector.modify(connection.socket, events, connection)
