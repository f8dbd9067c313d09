"""Memory that notes every access, and what accesses without a barrier between them are races."""

import ctypes
from collections import Counter
from dataclasses import dataclass

import numpy as np

POISON = 0xFFBADBAD
"""A word that nothing has written: as a float it is a NaN that no arithmetic makes."""
GAP = 1 << 16
"""Bytes between tensors, so that an index beyond one of them is not an index of the next."""
MOST = 1 << 22
"""Accesses that wait for the search for races."""


@dataclass(frozen=True)
class Hazard:
    """A fault of a launch, once for each instruction that has part in it."""

    kind: str
    where: str
    instructions: tuple[str, ...]

    def __str__(self):
        return f"{self.kind} in {self.where}: {'; '.join(self.instructions)}"


def bytes_of(storage):
    """The memory of a torch storage, without an operation of torch."""
    if storage.nbytes() == 0:
        return np.empty(0, np.uint8)
    return np.frombuffer((ctypes.c_uint8 * storage.nbytes()).from_address(storage.data_ptr()), np.uint8)


class Memory:
    """Bytes, some of which may be touched, and a log of accesses.

    A race are two accesses of a word by different agents, one of them a write, in one program and with no barrier
    between them, or in two programs. Agents are warps for shared memory, threads for global memory.
    """

    def __init__(self, name, size, agents, programs, hazards):
        self.name, self.hazards = name, hazards
        self.bytes = np.empty(-(-size // 16) * 16, np.uint8)
        self.views = {1: self.bytes, 2: self.bytes.view("u2"), 4: self.bytes.view("u4"), 8: self.bytes.view("u8")}
        self.views[4][:] = POISON
        self.allowed = np.zeros(len(self.bytes), bool)
        self.agents, self.programs = agents, programs  # of all lanes
        self.log, self.logged = [], 0
        self.traffic = Counter()
        self.common = False  # whether a word may be of several programs

    def where(self, byte):
        """Name of what lies at an address."""
        return f"{self.name} memory, byte {byte}"

    def hazard(self, kind, byte, *instructions):
        self.hazards[Hazard(kind, self.where(int(byte)), tuple(sorted({i.text for i in instructions})))] += 1

    def check(self, address, width, mask, lanes, instruction):
        """Which of the lanes may access so many bytes, and their addresses."""
        mask = np.ones(len(address), bool) if mask is None else mask
        inside = (address >= 0) & (address + width <= len(self.allowed))
        at = np.where(inside, address, 0)
        inside &= self.allowed[at] & self.allowed[at + width - 1]
        if (bad := mask & ~inside).any():
            self.hazard("access out of bounds", address[bad][0], instruction)
        mask = mask & inside
        if (bad := mask & (address % width != 0)).any():
            self.hazard("misaligned access", address[bad][0], instruction)
            mask = mask & ~bad
        chosen = None if mask.all() else np.flatnonzero(mask)
        return (address, lanes, None) if chosen is None else (address[chosen], lanes[chosen], chosen)

    def load(self, address, size, count, mask, lanes, epochs, instruction):
        """`count` arrays of elements of `size` bytes, poison where nothing may be read."""
        n = len(address)
        address, lanes, chosen = self.check(address, size * count, mask, lanes, instruction)
        first = address // size
        rows = self.views[size][first[:, None] + np.arange(count)]
        if size >= 4 and (rows.view(np.uint32) == POISON).any():
            bad = (rows.view(np.uint32) == POISON).any(axis=1)
            self.hazard("read of what nothing has written", address[bad][0], instruction)
        self.note(address, size * count, lanes, epochs, False, instruction)
        self.traffic["loaded"] += size * rows.size
        if chosen is not None:
            some, rows = rows, np.full((n, count), POISON | POISON << 32, np.uint64).astype(rows.dtype)
            rows[chosen] = some
        return [np.ascontiguousarray(rows[:, k]) for k in range(count)]

    def store(self, address, size, values, mask, lanes, epochs, instruction):
        """Elements of `size` bytes, one array after the other."""
        address, lanes, chosen = self.check(address, size * len(values), mask, lanes, instruction)
        rows = np.stack(values, axis=1)
        rows = (rows if chosen is None else rows[chosen]).astype(f"u{size}")
        at = address[:, None] // size + np.arange(len(values))
        self.views[size][at] = rows
        self.traffic["stored"] += size * rows.size
        if len(np.unique(address)) < len(address):
            if (self.views[size][at] != rows).any():
                self.hazard("different values stored in one word", address[0], instruction)
            own = address * (int(self.programs[-1]) + 1) + self.programs[lanes]
            kept = np.unique(own, return_index=True)[1]  # copies of one value by one program are one store
            address, lanes = address[kept], lanes[kept]
        self.note(address, size * len(values), lanes, epochs, True, instruction)

    def note(self, address, width, lanes, epochs, write, instruction):
        """Log an access: the barriers that the programs of lanes have passed are `epochs`, by lane."""
        words = (address[:, None] // 4 + np.arange(max(width // 4, 1))).astype(np.int32)
        self.log.append((words, lanes, epochs[lanes], write, instruction))
        self.logged += words.size

    def races(self):
        """Search the log and empty it: at the end of a launch, or where all programs are at a barrier."""
        log, self.log, self.logged = self.log, [], 0
        if not any(write for *_, write, _ in log):
            return
        sizes = [words.size for words, *_ in log]
        words = np.concatenate([entry[0].ravel() for entry in log]).astype(np.int64)
        writes = np.repeat([entry[3] for entry in log], sizes)
        changed = np.zeros(len(self.views[4]), bool)
        changed[words[writes]] = True
        some = changed[words]
        lanes, epochs = (
            np.concatenate([np.repeat(entry[k], entry[0].shape[1]) for entry in log])[some] for k in (1, 2)
        )
        if not some.any():
            return
        words, writes, number = words[some], writes[some], np.repeat(np.arange(len(log)), sizes)[some]
        programs = self.programs[lanes]
        key = (words * (int(programs.max()) + 1) + programs) * (int(epochs.max()) + 1) + epochs
        searches = [("race within a program", key, self.agents[lanes])]
        if self.common:
            searches.append(("race between programs", words, programs))
        for kind, keys, agents in searches:
            for bad in _mixed(keys, agents, writes):
                parts = [log[k][4] for k in np.unique(number[bad])]
                self.hazard(kind, 4 * int(words[bad][0]), *parts)


MOST_SHOWN = 20
"""Words of a kind of race that are reported."""


def _mixed(key, agents, writes):
    """Positions of the accesses that share a key, where one is a write and agents differ."""
    order = np.argsort(key)
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    agents, writes = agents[order], writes[order]
    bad = np.minimum.reduceat(agents, starts) != np.maximum.reduceat(agents, starts)
    bad &= np.logical_or.reduceat(writes, starts)
    ends = np.append(starts[1:], len(order))
    return [order[starts[k] : ends[k]] for k in np.flatnonzero(bad)[:MOST_SHOWN]]
