"""Pickles from elsewhere, read without executing them.

A pickle is a program for a small stack machine, and `pickle.load` lets that program call anything that can be imported.
This is the machine without that: names are compared with a list and never looked up, a call is recorded instead of
made, and attributes are never set. The result is plain data, `Name`s, `Record`s of objects and `TensorRecord`s, which
the caller interprets. An instruction or a name that is not listed here ends the reading, and so does a program that
exceeds a budget: time and memory stay in proportion to the size of a real model.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from painn_fast.errors import PaiNNFastError, reading
from painn_fast.io.torch_archive import STORAGE_DTYPES, StorageRecord, TensorRecord, TorchArchive


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names. Nothing is behind it."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Record:
    """An object as the pickle describes it: what it is called, its arguments, its state, and what was put into it."""

    kind: Name
    arguments: tuple[Any, ...] = ()
    state: Any = None
    entries: list[Any] = field(default_factory=list)
    items: dict[Any, Any] = field(default_factory=dict)


BUILTINS = {"set", "frozenset", "dict", "list", "tuple", "int", "float", "bool", "str", "object", "type"}
PLAIN_NAMES = {
    "__builtin__": BUILTINS | {"long", "unicode"},
    "builtins": BUILTINS,
    "collections": {"OrderedDict", "defaultdict"},
    "typing": {"Any", "Dict", "List", "Optional", "Union"},
    "functools": {"partial"},
    "torch": {
        *STORAGE_DTYPES, "Size", "device", "float32", "float64", "float16", "bfloat16", "int64", "int32", "bool"
    },
    "torch._utils": {"_rebuild_tensor_v2", "_rebuild_parameter"},
    "torch._C._nn": {"silu", "softplus"},
}  # fmt: skip
"""Modules and the names in them that a model file may mention."""

NOTED_PACKAGES = (
    "schnetpack",
    "painn_fast.schnetpack",
    "torch.nn",
    "torch.optim",
    "torchmetrics",
    "pytorch_lightning",
    "lightning",
    "lightning_fabric",
    "omegaconf",
)
"""Packages whose classes come along in a task or checkpoint (optimizers, metrics, settings); they stay mere names."""


MAX_INSTRUCTIONS = 250_000
"""A model of SchNetPack has some thousand, its checkpoint with the state of an optimizer some ten thousand."""
MAX_GATHERED = 250_000
"""Elements that calls copy into new dictionaries and sets; one list may be passed to many calls."""
MAX_ODD_KEYS = 10_000
"""Keys of dictionaries that are not text: their hashes can be chosen such that all collide."""
MAX_NAME = 500
"""Characters of a module and a name in it."""
MAX_TUPLE = 16
"""Elements of a tuple that is examined each time that it is named: a key, the shape of a tensor."""
MAX_KEY_BITS = 31


def read_torch_pickle(archive: TorchArchive) -> Any:
    """What was saved in `archive`, as plain data and records.

    Raises:
        PaiNNFastError: naming the instruction or the name that is not allowed, or if the pickle is damaged.
    """
    return _Machine(archive.path).run(archive.pickle())


class _Machine:
    """The stack machine: `stack` grows, `marks` remembers where a group began, `memo` holds what comes again."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.left = {"instructions": MAX_INSTRUCTIONS, "gathered elements": MAX_GATHERED, "odd keys": MAX_ODD_KEYS}

    def spend(self, what: str, amount: int = 1) -> None:
        """Take from a budget.

        Raises:
            PaiNNFastError: if it is used up.
        """
        self.left[what] -= amount
        if self.left[what] < 0:
            raise PaiNNFastError(f"a pickle that is not one of a model: too many {what}", where=self.where)

    def run(self, program: bytes) -> Any:
        with reading("a damaged pickle", self.where):
            for opcode, argument, _ in pickletools.genops(program):
                self.spend("instructions")
                if opcode.name == "STOP":
                    return self.stack.pop()
                instruction = INSTRUCTIONS.get(opcode.name)
                if instruction is None:
                    raise PaiNNFastError("a pickle instruction that is not allowed", where=self.where, got=opcode.name)
                instruction(self, argument)
        raise PaiNNFastError("a pickle that does not end", where=self.where)

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop_group(self) -> list[Any]:
        group, self.stack = self.stack, self.marks.pop()
        return group

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def push_tuple(self, length: int) -> None:
        if length > len(self.stack):
            raise IndexError("too few values for a tuple")
        self.stack[-length:] = [tuple(self.stack[-length:])]

    def name(self, module: str, name: str) -> None:
        """Record a name, if it is on the list."""
        if len(module) + len(name) > MAX_NAME:
            raise PaiNNFastError("a pickle with a name that is too long", where=self.where, expected=MAX_NAME)
        identifiers = name.isidentifier() and all(part.isidentifier() for part in module.split("."))
        listed = name in PLAIN_NAMES.get(module, ()) or any(
            module == package or module.startswith(f"{package}.") for package in NOTED_PACKAGES
        )
        if not (identifiers and listed):
            raise PaiNNFastError(
                "the file asks for a name that no model file needs; nothing was executed",
                where=self.where,
                got=f"{module}.{name}"[:120],
                expected="the classes of SchNetPack and of torch.nn",
                fix="do not open this file with anything that runs pickles, unless you know who made it",
            )
        self.push(Name(module, name))

    def name_from_stack(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise TypeError("a name that is not text")
        self.name(module, name)

    def call(self, understood: Mapping[Name, Callable[..., Any]]) -> None:
        """REDUCE, NEWOBJ: the few calls that only gather data are understood, any other becomes a record."""
        arguments, called = self.stack.pop(), self.stack.pop()
        if not isinstance(called, Name) or not isinstance(arguments, tuple):
            raise TypeError("a call of something that is not a name")
        gather = understood.get(called)
        self.push(gather(self, *arguments) if gather is not None else Record(called, arguments))

    def build(self) -> None:
        """BUILD: the state of a record is kept; that of a dictionary (a state dict's version numbers) is not needed."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Record):
            target.state = state
        elif type(target) is not dict:
            raise TypeError(f"state for a {type(target).__name__}")

    def append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        (target.entries if isinstance(target, Record) else _exactly(target, list)).extend(values)

    def add(self, values: list[Any]) -> None:
        _exactly(self.stack[-1], set).update(self.key(value) for value in values)

    def set_items(self, flat: list[Any]) -> None:
        target = self.stack[-1]
        items = target.items if isinstance(target, Record) else _exactly(target, dict)
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            items[self.key(key)] = value

    def key(self, value: Any) -> Any:
        """A key of a dictionary or an element of a set: plain, so that hashing it is fast, and not all hash alike."""
        if type(value) is str:
            return value
        self.spend("odd keys")
        parts = value if type(value) is tuple and len(value) <= MAX_TUPLE else (value,)
        for part in parts:
            if type(part) not in (str, int, float, bool, type(None), Name):
                raise TypeError(f"a {type(part).__name__} as a key")
            if type(part) is int and part.bit_length() > MAX_KEY_BITS:
                raise TypeError("a large number as a key")
        return value

    def storage(self) -> None:
        """BINPERSID: torch refers to ("storage", type, key, device, length)."""
        reference = self.stack.pop()
        if not (type(reference) is tuple and len(reference) == 5 and reference[0] == "storage"):
            raise TypeError("a persistent reference that is not a storage")
        _, kind, key, _, length = reference
        if not (isinstance(kind, Name) and kind.module == "torch" and kind.name in STORAGE_DTYPES):
            raise TypeError("a storage of unknown type")
        if not (type(key) is str and key.isascii() and key.isdigit() and type(length) is int and length >= 0):
            raise TypeError("a storage without a number")
        self.push(StorageRecord(STORAGE_DTYPES[kind.name], key, length))


def _exactly(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def _tensor(
    machine: _Machine, storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, *hooks: Any
) -> TensorRecord:
    del machine, requires_grad
    if not isinstance(storage, StorageRecord) or any(hooks):
        raise TypeError("a tensor that is not a plain one")
    if max(len(_exactly(size, tuple)), len(_exactly(stride, tuple))) > MAX_TUPLE:
        raise TypeError("a tensor of too many dimensions")
    if not all(type(number) is int for number in (offset, *size, *stride)):
        raise TypeError("a tensor whose shape is not made of numbers")
    return TensorRecord(storage, offset, size, stride)


def _parameter(machine: _Machine, data: Any, requires_grad: Any = True, hooks: Any = None) -> TensorRecord:
    del machine, requires_grad
    if not isinstance(data, TensorRecord) or hooks:
        raise TypeError("a parameter that is not a plain tensor")
    return data


def _dictionary(machine: _Machine, pairs: Any = ()) -> dict[Any, Any]:
    if type(pairs) not in (list, tuple, dict):
        raise TypeError(f"a dictionary made of a {type(pairs).__name__}")
    machine.spend("gathered elements", len(pairs))
    return {machine.key(key): value for key, value in (pairs.items() if type(pairs) is dict else pairs)}


def _set(machine: _Machine, values: Any = ()) -> set[Any]:
    machine.spend("gathered elements", len(_exactly(values, list)))
    return {machine.key(value) for value in values}


GATHER: dict[Name, Callable[..., Any]] = {
    Name("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Name("torch._utils", "_rebuild_parameter"): _parameter,
    Name("collections", "OrderedDict"): _dictionary,
    Name("collections", "defaultdict"): lambda machine, factory=None, pairs=(): _dictionary(machine, pairs),
    Name("__builtin__", "set"): _set,
    Name("builtins", "set"): _set,
}
"""Calls that are understood: they put data together."""


INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, version: None,
    "FRAME": lambda machine, length: None,
    "MARK": lambda machine, _: machine.mark(),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"), lambda machine, value: machine.push(value)),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE"), lambda machine, value: machine.push(value)),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES"), lambda machine, value: machine.push(value)),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": lambda machine, _: machine.push(set()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_group())),
    "TUPLE1": lambda machine, _: machine.push_tuple(1),
    "TUPLE2": lambda machine, _: machine.push_tuple(2),
    "TUPLE3": lambda machine, _: machine.push_tuple(3),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.pop_group()),
    "ADDITEMS": lambda machine, _: machine.add(machine.pop_group()),
    "SETITEM": lambda machine, _: machine.set_items([machine.stack.pop(-2), machine.stack.pop()]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_group()),
    "BINPUT": lambda machine, index: machine.memo.update({index: machine.stack[-1]}),
    "LONG_BINPUT": lambda machine, index: machine.memo.update({index: machine.stack[-1]}),
    "MEMOIZE": lambda machine, _: machine.memo.update({len(machine.memo): machine.stack[-1]}),
    "BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "LONG_BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "GLOBAL": lambda machine, both: machine.name(*both.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.name_from_stack(),
    "REDUCE": lambda machine, _: machine.call(GATHER),
    "NEWOBJ": lambda machine, _: machine.call({}),
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.storage(),
}
"""Every instruction that a file of torch.save needs."""
