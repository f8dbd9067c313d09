"""A launch: all threads of all programs step through the blocks of a kernel together.

Where threads part, those with the lowest block go first, so that they meet again behind loops and branches.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from emulator.memory import GAP, POISON, Hazard, Memory, bytes_of
from emulator.ptx import KINDS

WARP = 32
LONGEST = 1_000_000
"""Blocks that a launch may execute."""


@dataclass
class Execution:
    """What a launch did, over all warps and programs.

    Args:
        instructions: of PTX, by class, a warp at a time.
        barriers: that each program passed.
        traffic: bytes "loaded" and "stored", by memory.
        hazards: with how often each was seen.
    """

    name: str
    grid: tuple[int, int, int]
    warps: int
    registers: int = 0
    shared: int = 0
    instructions: Counter = field(default_factory=Counter)
    barriers: Counter = field(default_factory=Counter)
    traffic: dict[str, Counter] = field(default_factory=dict)
    hazards: Counter[Hazard] = field(default_factory=Counter)


def _undefined(register):
    """A register before its first value, such as that of a load which a predicate turns off."""
    kind = KINDS[register.rstrip("0123456789")]
    return np.array(POISON << 32 | POISON, "u8").astype(kind)[()]


class Global(Memory):
    """Tensors of the CPU, copied to where indices beyond one of them are seen, and back."""

    def __init__(self, tensors, tables, lanes, programs, hazards):
        """Tensors by name, views of one storage stay views of one; and constant bytes by name."""
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in tensors.values()}
        self.offsets, top = {}, GAP
        for pointer, storage in storages.items():
            self.offsets[pointer] = top + pointer % 512
            top += -(-(storage.nbytes() + 512) // 512) * 512 + GAP
        self.tables = {}
        for name, values in tables.items():
            self.tables[name], top = np.uint64(top), top + -(-len(values) // 512) * 512
        super().__init__("global", top + GAP, lanes // WARP, programs, hazards)
        self.common = True
        for name, values in tables.items():
            begin = int(self.tables[name])
            self.bytes[begin : begin + len(values)] = np.frombuffer(values, np.uint8)
            self.allowed[begin : begin + len(values)] = True
        self.storages, self.named = storages, {}
        for pointer, at in self.offsets.items():
            self.bytes[at : at + storages[pointer].nbytes()] = bytes_of(storages[pointer])
        for name, tensor in tensors.items():
            if tensor.numel():
                steps = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
                begin = self.address(tensor)
                end = begin + (steps + 1) * tensor.element_size()
                self.allowed[begin:end] = True
                self.named[name] = begin, end

    def address(self, tensor):
        """Where a tensor begins."""
        storage = tensor.untyped_storage().data_ptr()
        return self.offsets[storage] + tensor.data_ptr() - storage

    def where(self, byte):
        """The argument, or those it lies between."""
        names = [name for name, (begin, end) in self.named.items() if begin <= byte < end]
        if names:
            return " and ".join(names)
        before = [name for name, (_, end) in self.named.items() if end <= byte]
        return f"global memory behind {before[-1] if before else 'nothing'}"

    def give_back(self):
        """Copy what the launch wrote into the tensors."""
        for pointer, at in self.offsets.items():
            bytes_of(self.storages[pointer])[:] = self.bytes[at : at + self.storages[pointer].nbytes()]


class Machine:
    """State of a launch; the functions that `translate` makes read and change it."""

    def __init__(self, program, grid, shared, parameters, tensors):
        self.program, self.grid, self.parameters = program, grid, parameters
        T, C = program.threads, grid[0] * grid[1] * grid[2]
        self.lanes = T * C
        lane = np.arange(self.lanes)
        self.programs, thread = lane // T, lane % T
        x, y = self.programs % grid[0], self.programs // grid[0] % grid[1]
        z = self.programs // (grid[0] * grid[1])
        special = {"tid.x": thread, "laneid": thread % WARP, "ctaid.x": x, "ctaid.y": y, "ctaid.z": z}
        self.special = {name: values.astype(np.uint32) for name, values in special.items()}
        self.special |= {f"nctaid.{axis}": np.uint32(grid[k]) for k, axis in enumerate("xyz")}
        self.special |= {"ntid.x": np.uint32(T)}
        self.result = Execution(program.name, grid, T // WARP, shared=shared)
        self.stride = -(-shared // 16) * 16 + 1024
        self.shared = Memory("shared", self.stride * C, lane // WARP, self.programs, self.result.hazards)
        for c in range(C):
            self.shared.allowed[self.stride * c : self.stride * c + shared] = True
        self.memory = Global(tensors, program.tables, lane, self.programs, self.result.hazards)
        self.tables = self.memory.tables
        self.local = Memory("local", program.local * self.lanes, lane, self.programs, self.result.hazards)
        self.local.allowed[:] = True
        self.epochs = np.zeros(self.lanes, np.int64)
        self.running = np.full(C, T)
        self.registers = {}
        self.copies, self.committed = [], np.zeros(self.lanes, np.int64)
        self.active = lane

    def run(self, functions):
        """Execute until all threads have returned."""
        waiting, all_lanes = {0: [self.active]}, self.active
        for _ in range(LONGEST):
            if not waiting:
                break
            k = min(waiting)
            parts = waiting.pop(k)
            self.active = parts[0] if len(parts) == 1 else np.sort(np.concatenate(parts))
            self.everywhere = len(self.active) == self.lanes
            if self.everywhere:
                self.active = all_lanes
            self._count(self.program.blocks[k])
            for target, lanes in self._leave(k, functions[k](self)):
                if len(lanes):
                    waiting.setdefault(target, []).append(lanes)
        else:
            raise RuntimeError(f"{self.program.name}: more than {LONGEST} blocks")
        if self.copies:
            self.shared.hazard("copy that nothing waited for", 0)
        self.memory.races()
        self.shared.races()
        self.result.traffic = {"global": self.memory.traffic, "shared": self.shared.traffic}
        return self.result

    def _count(self, block):
        warps = len(self.active) // WARP if self.everywhere else len(np.unique(self.active // WARP))
        for name, number in block.classes.items():
            self.result.instructions[name] += number * warps

    def _leave(self, k, taken):
        """Where the active lanes go from block k; `taken` are those for which its last instruction is on."""
        block = self.program.blocks[k]
        if block.last == "bar":
            self._barrier(block.instructions[-1])
            return [(k + 1, self.active)]
        if not block.last:
            return [(k + 1, self.active)]
        on = self.active if taken is None else self.active[np.broadcast_to(taken, self.active.shape)]
        rest = [] if taken is None else [(k + 1, self.active[~np.broadcast_to(taken, self.active.shape)])]
        if block.last == "bra":
            return [(block.target, on), *rest]
        np.subtract.at(self.running, self.programs[on], 1)
        return rest

    def _barrier(self, instruction):
        arrived = np.bincount(self.programs[self.active], minlength=len(self.running))
        if ((arrived > 0) & (arrived < self.running)).any():
            self.shared.hazard("barrier that not all threads reach", 0, instruction)
        self.epochs[self.active] += 1
        self.result.barriers.update(np.flatnonzero(arrived).tolist())
        if self.everywhere and self.shared.logged > 1 << 22:
            self.shared.races()

    # what the functions of blocks call

    def get(self, *names):
        """Values of registers in the active lanes."""
        values = [self.registers.get(name) for name in names]
        values = [_undefined(name) if value is None else value for name, value in zip(names, values, strict=True)]
        if self.everywhere:
            return values
        return [value[self.active] if np.ndim(value) else value for value in values]

    def put(self, **values):
        """Give registers new values in the active lanes."""
        for name, value in values.items():
            if not self.everywhere:
                old = self.registers.get(name)
                new = np.full(self.lanes, 0 if old is None else old, np.asarray(value).dtype)
                new[self.active] = value
                value = new
            self.registers[name] = value

    def own(self, name):
        """A special register."""
        value = self.special[name]
        return value[self.active] if np.ndim(value) else value

    def spread(self, value):
        """A value of each active lane."""
        return value if np.shape(value) == self.active.shape else np.broadcast_to(value, self.active.shape)

    def load(self, space, address, offset, size, count, mask, instruction):
        memory, at = self._at(space, address, offset)
        return memory.load(at, size, count, self._mask(mask), self.active, self.epochs, instruction)

    def store(self, space, address, offset, size, values, mask, instruction):
        memory, at = self._at(space, address, offset)
        values = [self.spread(value) for value in values]
        memory.store(at, size, values, self._mask(mask), self.active, self.epochs, instruction)

    def not_emulated(self, mask, instruction):
        if mask is None or np.any(mask):
            raise NotImplementedError(f"{self.program.name}, line {instruction.line}: {instruction.text}")

    def _at(self, space, address, offset):
        at = self.spread(np.asarray(address).astype(np.int64) + offset)
        if space == "global":
            return self.memory, at
        if space == "local":
            return self.local, at + self.active * self.program.local
        return self.shared, np.where((at < 0) | (at >= self.stride), -1, at + self.programs[self.active] * self.stride)

    def _mask(self, mask):
        return None if mask is None else self.spread(mask)

    def warps(self, *values):
        """Values as [warps, 32]: for instructions that whole warps execute together."""
        if not self.everywhere:
            lanes = self.active.reshape(-1, WARP) if len(self.active) % WARP == 0 else None
            if lanes is None or (lanes[:, 0] % WARP != 0).any() or (lanes[:, -1] - lanes[:, 0] != WARP - 1).any():
                raise RuntimeError(f"{self.program.name}: threads of a warp part before an instruction of all of them")
        return [self.spread(value).reshape(-1, WARP) for value in values]

    def rows(self, address, offset, m):
        """[8, warps, 8] bytes of the rows of matrix m of an ldmatrix or stmatrix: where each begins."""
        (at,) = self.warps(np.asarray(address).astype(np.int64) + offset)
        return at[:, 8 * m : 8 * m + 8]

    def load_matrix(self, address, offset, m, transposed, instruction):
        """Matrix m, two halves of a word for each lane."""
        rows = self.rows(address, offset, m)
        if not transposed:
            at = (rows[:, :, None] + 4 * np.arange(4)).reshape(-1)
            return self.load("shared", at, 0, 4, 1, None, instruction)[0]
        halves = []
        for half in (0, 1):
            at = (rows[:, None, half::2] + 2 * np.arange(8)[:, None]).reshape(-1)
            word = self.load("shared", at & ~3, 0, 4, 1, None, instruction)[0]
            halves.append((word >> (8 * (at & 2)).astype(np.uint32)) & np.uint32(0xFFFF))
        return halves[0] | halves[1] << np.uint32(16)

    def store_matrix(self, address, offset, m, value, instruction):
        at = (self.rows(address, offset, m)[:, :, None] + 4 * np.arange(4)).reshape(-1)
        self.store("shared", at, 0, 4, [value], None, instruction)

    def copy(self, to, to_offset, source, source_offset, size, given, mask, instruction):
        """Begin an asynchronous copy of `size` bytes, zeros where `given` is 0; it ends in `wait`."""
        (_, source), (memory, to) = self._at("global", source, source_offset), self._at("shared", to, to_offset)
        mask = self._mask(mask)
        given = np.broadcast_to(given, self.active.shape)
        if ((given != 0) & (given != size)).any():
            raise NotImplementedError(f"part of an asynchronous copy: {instruction.text}")
        on = given != 0 if mask is None else mask & (given != 0)
        words = self.memory.load(source, 4, size // 4, on, self.active, self.epochs, instruction)
        words = [np.where(given != 0, word, np.uint32(0)) for word in words]
        at, lanes, chosen = memory.check(to, size, mask, self.active, instruction)
        data = np.stack(words, axis=1)
        memory.views[4][at[:, None] // 4 + np.arange(size // 4)] = POISON
        self.copies.append((at, lanes, data if chosen is None else data[chosen], self.epochs[lanes],
                            self.committed[lanes], instruction))  # fmt: skip

    def commit(self):
        """Copies until now are a group of each lane."""
        self.committed[self.active] += 1

    def wait(self, groups):
        """End all copies of the active lanes but those of the last groups; they are written between begin and end."""
        active = np.zeros(self.lanes, bool)
        active[self.active] = True
        left, memory = [], self.shared
        for at, lanes, data, begun, group, instruction in self.copies:
            ready = active[lanes] & (group < self.committed[lanes] - groups)
            if ready.any():
                words = at[ready][:, None] // 4 + np.arange(data.shape[1])
                if (memory.views[4][words] != POISON).any():
                    memory.hazard("store in the target of a copy before its end", at[ready][0], instruction)
                memory.views[4][words] = data[ready]
                memory.traffic["copied"] += 4 * words.size
                epochs = self.epochs.copy()
                for back in range(int((self.epochs[lanes[ready]] - begun[ready]).max()) + 1):
                    epochs[lanes[ready]] = np.maximum(self.epochs[lanes[ready]] - back, begun[ready])
                    memory.note(at[ready], 4 * data.shape[1], lanes[ready], epochs, True, instruction)
            if not ready.all():
                rest = ~ready
                left.append((at[rest], lanes[rest], data[rest], begun[rest], group[rest], instruction))
        self.copies = left
