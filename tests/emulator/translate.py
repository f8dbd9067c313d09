"""Python of PTX: a function for each block, a statement of NumPy for each instruction.

Values of floats, integers and bits are views of one array; a function keeps the view that an instruction needs.
Approximate instructions of the hardware err by up to what the manual allows.
"""

import re
from collections import Counter
from functools import lru_cache

import numpy as np

from emulator import arithmetic
from emulator.ptx import KINDS, REGISTER, parse

COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "lo": "<", "ls": "<=", "hi": ">",
               "hs": ">="}  # fmt: skip
OPERATORS = {"add": "+", "sub": "-", "mul": "*", "and": "&", "or": "|", "xor": "^", "shl": "<<", "shr": ">>"}
IGNORED = {"griddepcontrol", "membar", "fence", "prefetch", "createpolicy"}
CLASSES = {
    "fma": "multiply-add", "mma": "tensor core", "shfl": "shuffle", "redux": "shuffle", "bar": "barrier",
    "bra": "branch", "ret": "branch", "ldmatrix": "load shared", "stmatrix": "store shared", "cp": "copy",
    "setp": "select", "selp": "select", "mov": "move", "cvt": "convert", "ex2": "special", "lg2": "special",
    "rsqrt": "special", "sqrt": "special", "rcp": "special", "div": "special",
}  # fmt: skip


def kind_of(ptx_type):
    """ "f4" of "f32", "u4" of "b32", "b1" of "pred"."""
    if ptx_type == "pred":
        return "b1"
    letter, bits = ptx_type[0].replace("b", "u"), int(ptx_type[1:])
    return f"{letter.replace('s', 'i')}{bits // 8}"


def class_of(instruction):
    """What an instruction counts as."""
    parts = instruction.parts
    if parts[0] in ("ld", "st"):
        space = next((part for part in parts if part in ("global", "shared", "param", "local")), "generic")
        return "parameter" if space == "param" else f"{'load' if parts[0] == 'ld' else 'store'} {space}"
    if parts[0] in CLASSES:
        return f"{CLASSES[parts[0]]}{' float64' if parts[0] == 'fma' and parts[-1] == 'f64' else ''}"
    return {"f32": "float", "f64": "float64"}.get(parts[-1], "integer")


@lru_cache(maxsize=256)
def translated(text):
    """The program of a text, and a function of a `Machine` for each of its blocks."""
    program = parse(text)
    functions = []
    for k, block in enumerate(program.blocks):
        block.classes = Counter(map(class_of, block.instructions))
        made = _Block(program, block)
        source = made.source(f"block_{k}")
        names = {"np": np, "a": arithmetic, **made.constants}
        exec(compile(source, f"{program.name}, block {k}", "exec"), names)
        functions.append(names[f"block_{k}"])
    return program, functions


class _Block:
    def __init__(self, program, block):
        self.program, self.block = program, block
        self.lines, self.constants = [], {}
        self.have = {}  # register: kinds in which its value is at hand
        for name in sorted(block.reads):
            self.have[name] = {self.kind(name)}

    def source(self, name):
        reads = sorted(self.block.reads)
        if reads:
            names = [self.variable(register, self.kind(register)) for register in reads]
            listed = ", ".join(f"{register[1:]!r}" for register in reads)
            self.lines.append(f"{', '.join(names)}, = M.get({listed})")
        taken = "None"
        for instruction in self.block.instructions:
            if instruction.parts[0] in ("bra", "ret", "bar", "exit"):
                if instruction.predicate:
                    taken = self.mask(instruction)
            else:
                self.instruction(instruction)
        kept = [f"{r[1:]}={self.value(r, self.kind(r))}" for r in sorted(self.block.kept)]
        if kept:
            self.lines.append(f"M.put({', '.join(kept)})")
        self.lines.append(f"return {taken}")
        return f"def {name}(M):\n    " + "\n    ".join(self.lines)

    # values

    @staticmethod
    def kind(register):
        return KINDS[register[1:].rstrip("0123456789")]

    @staticmethod
    def variable(register, kind):
        return f"{register[1:]}_{kind}"

    def constant(self, value):
        name = f"K{len(self.constants)}"
        self.constants[name] = value
        return name

    def value(self, operand, kind):
        """Expression of an operand, of one of NumPy's kinds."""
        if operand.startswith("-%"):
            return f"(-{self.value(operand[1:], kind)})"
        if REGISTER.fullmatch(operand):
            return self._register(operand, kind)
        if operand.startswith("%"):
            return f"M.own({operand[1:]!r}).astype({kind!r})"
        if operand == "global_smem" or operand.startswith("__local_depot"):
            operand = "0"
        if operand in self.program.tables:
            return f"M.tables[{operand!r}]"
        if kind == "b1":
            return self.constant(np.bool_(int(operand, 0) != 0))
        bits = 8 * int(kind[1])
        number = int(operand[2:], 16) if operand[:2] in ("0f", "0d") else int(operand, 0)
        return self.constant(np.array(number % 2**bits, f"u{kind[1]}").view(kind)[()])

    def _register(self, register, kind):
        have = self.have.get(register)
        if have is None:
            raise ValueError(f"{self.program.name}: {register} is read before it is written")
        wanted = self.variable(register, kind)
        if kind not in have:
            same = next((k for k in have if k[1] == kind[1]), None)
            if same is None:  # the lower part of a wider register
                other = next(iter(have))
                return f"{self.variable(register, other)}.astype('u{kind[1]}').view({kind!r})"
            self.lines.append(f"{wanted} = {self.variable(register, same)}.view({kind!r})")
            have.add(kind)
        return wanted

    def set(self, instruction, register, kind, expression):
        """The value of a register; where the predicate is off it keeps the old one."""
        if instruction.predicate:
            old = self.value(register, kind) if register in self.have else self.constant(np.zeros((), kind)[()])
            expression = f"np.where({self.mask(instruction)}, {expression}, {old})"
        own = self.kind(register)
        if kind[1] != own[1]:
            expression, kind = f"({expression}).astype({own!r})", own
        self.lines.append(f"{self.variable(register, kind)} = {expression}")
        self.have[register] = {kind}

    def mask(self, instruction):
        if not instruction.predicate:
            return "None"
        return f"{'~' if instruction.negated else ''}{self.value(instruction.predicate, 'b1')}"

    def address(self, operand):
        """Base and offset of `[base + offset]`."""
        base, sign, offset = re.fullmatch(r"\[\s*([%\w]+)\s*(?:([+-])\s*(-?\w+))?\s*\]", operand).groups()
        number = int(offset or "0", 0) * (-1 if sign == "-" else 1)
        kind = self.kind(base) if base.startswith("%") else "u4"
        return f"{self.value(base, kind)}, {number}"

    @staticmethod
    def listed(operand):
        """Registers of `{a, b}`, or of `a`."""
        return [name.strip() for name in operand.strip("{} ").split(",")]

    # instructions

    def instruction(self, i):
        head = i.parts[0]
        if head in IGNORED:
            return
        method = getattr(self, f"do_{head}", None)
        if method is None:
            raise NotImplementedError(f"{self.program.name}, line {i.line}: the emulator does not know {i.text!r}")
        method(i)

    def do_ld(self, i):
        size, count, space = self.access(i)
        if space == "param":
            value = self.constant(i.operands[1].strip("[] "))
            self.set(i, i.operands[0], f"u{size}", f"M.parameters[{value}].astype('u{size}')")
            return
        name = self.constant(i)
        to = self.listed(i.operands[0])
        call = f"M.load({space!r}, {self.address(i.operands[1])}, {size}, {count}, {self.mask(i)}, {name})"
        self.lines.append(f"{', '.join(f'x{k}' for k in range(count))}, = {call}")
        for k, register in enumerate(to):
            self.set(i, register, f"u{size}", f"x{k}")

    def do_st(self, i):
        size, _, space = self.access(i)
        values = ", ".join(self.value(register, f"u{size}") for register in self.listed(i.operands[1]))
        self.lines.append(
            f"M.store({space!r}, {self.address(i.operands[0])}, {size}, [{values}], {self.mask(i)}, {self.constant(i)})"
        )

    @staticmethod
    def access(i):
        """Bytes of an element, number of elements, and memory."""
        count = next((int(part[1:]) for part in i.parts if re.fullmatch(r"v\d", part)), 1)
        space = next((part for part in i.parts if part in ("global", "shared", "param", "local")), None)
        if space is None:
            raise NotImplementedError(i.text)
        return int(i.parts[-1][1:]) // 8, count, space

    def do_ldmatrix(self, i):
        at, name = self.address(i.operands[1]), self.constant(i)
        self.lines.append(f"m = ({at})")
        for k, register in enumerate(self.listed(i.operands[0])):
            self.set(i, register, "u4", f"M.load_matrix(*m, {k}, {'trans' in i.parts}, {name})")

    def do_stmatrix(self, i):
        if "trans" in i.parts:
            raise NotImplementedError(i.text)
        at, name = self.address(i.operands[0]), self.constant(i)
        for k, register in enumerate(self.listed(i.operands[1])):
            self.lines.append(f"M.store_matrix({at}, {k}, {self.value(register, 'u4')}, {name})")

    def do_cp(self, i):
        if i.parts[2] == "commit_group":
            self.lines.append("M.commit()")
        elif i.parts[2] in ("wait_group", "wait_all"):
            self.lines.append(f"M.wait({int(i.operands[0], 0) if i.operands else 0})")
        else:
            to, source, size = i.operands[:3]
            given = self.value(i.operands[3], "u4") if len(i.operands) > 3 else size
            at = f"{self.address(to)}, {self.address(source)}"
            self.lines.append(f"M.copy({at}, {int(size, 0)}, {given}, {self.mask(i)}, {self.constant(i)})")

    def do_shfl(self, i):
        to, value, lane, bounds = i.operands[:4]
        expected = {"idx": 31, "bfly": 31, "down": 31, "up": 0}[i.parts[2]]
        if int(bounds, 0) != expected:
            raise NotImplementedError(i.text)
        given = f"*M.warps({self.value(value, 'u4')}, {self.value(lane, 'u4')})"
        self.set(i, to, "u4", f"a.shuffle({i.parts[2]!r}, {given})")

    def do_redux(self, i):
        kind = kind_of(i.parts[-1])
        self.set(i, i.operands[0], kind, f"a.reduce({i.parts[2]!r}, *M.warps({self.value(i.operands[1], kind)}))")

    def do_mma(self, i):
        shape = f"{i.parts[3]} {i.parts[-2]}"
        if shape not in arithmetic.PRODUCTS:
            raise NotImplementedError(i.text)
        kinds = arithmetic.PRODUCTS[shape]
        to, *groups = (self.listed(operand) for operand in i.operands)
        values = [
            f"M.warps({', '.join(self.value(register, kind) for register in group)})"
            for group, kind in zip(groups, kinds, strict=True)
        ]
        self.lines.append(f"d = a.product({shape!r}, {', '.join(values)})")
        for k, register in enumerate(to):
            self.set(i, register, kinds[2], f"d[{k}]")

    def do_call(self, i):
        """Of functions that Triton's kernels do not need: the reduction of large angles."""
        self.lines.append(f"M.not_emulated({self.mask(i)}, {self.constant(i)})")

    def do_cvta(self, i):
        self.set(i, i.operands[0], "u8", self.value(i.operands[1], "u8"))

    def do_mov(self, i):
        to, value = i.operands
        kind = kind_of(i.parts[1])
        if to.startswith("{"):
            registers, wide = self.listed(to), self.value(value, f"u{kind[1]}")
            size = int(kind[1]) // len(registers)
            for k, register in enumerate(registers):
                if register != "_":
                    self.set(i, register, f"u{size}", f"({wide} >> {8 * size * k}).astype('u{size}')")
        elif value.startswith("{"):
            registers = self.listed(value)
            size = int(kind[1]) // len(registers)
            parts = [
                f"{self.value(r, f'u{size}')}.astype('u{kind[1]}') << {8 * size * k}" for k, r in enumerate(registers)
            ]
            self.set(i, to, f"u{kind[1]}", " | ".join(f"({part})" for part in parts))
        else:
            if REGISTER.fullmatch(value) and kind not in (have := self.have[value]):
                kind = next((k for k in have if k[1] == kind[1]), kind)
            self.set(i, to, kind, self.value(value, kind))

    def binary(self, i):
        to, x, y = i.operands
        kind = kind_of(i.parts[-1])
        self.set(i, to, kind, f"{self.value(x, kind)} {OPERATORS[i.parts[0]]} {self.value(y, kind)}")

    do_add = do_sub = do_and = do_or = do_xor = binary

    def do_shl(self, i):
        to, x, y = i.operands
        kind = kind_of(i.parts[-1])
        self.set(i, to, kind, f"a.{i.parts[0]}({self.value(x, kind)}, {self.value(y, 'u4')})")

    do_shr = do_shl

    def do_mul(self, i):
        if i.parts[-1] in ("f32", "f64"):
            self.binary(i)
            return
        self.set(i, i.operands[0], *self.integer_product(i))

    def do_mad(self, i):
        kind, product = self.integer_product(i)
        self.set(i, i.operands[0], kind, f"{product} + {self.value(i.operands[3], kind)}")

    def integer_product(self, i):
        kind = kind_of(i.parts[-1])
        x, y = (self.value(operand, kind) for operand in i.operands[1:3])
        wide = f"{kind[0]}{2 * int(kind[1])}"
        if i.parts[1] == "wide":
            return wide, f"({x}.astype({wide!r}) * {y}.astype({wide!r}))"
        if i.parts[1] == "hi":
            if kind[1] != "4":
                raise NotImplementedError(i.text)
            return kind, f"(({x}.astype({wide!r}) * {y}.astype({wide!r})) >> {32}).astype({kind!r})"
        return kind, f"({x} * {y})"

    def function(self, i):
        """An instruction that is a function of `arithmetic`."""
        kind = kind_of(i.parts[-1])
        name = "_".join((i.parts[0], *(part for part in i.parts[1:-1] if part in ("approx", "full", "NaN"))))
        if not hasattr(arithmetic, name) or i.parts[-2:] == ("ftz", "f64"):
            raise NotImplementedError(f"{self.program.name}, line {i.line}: the emulator does not know {i.text!r}")
        values = ", ".join(self.value(operand, kind) for operand in i.operands[1:])
        self.set(i, i.operands[0], kind, f"a.{name}({values})")

    do_fma = do_div = do_rem = do_neg = do_abs = do_min = do_max = do_sqrt = do_rsqrt = do_rcp = do_ex2 = function
    do_lg2 = do_bfe = function

    def do_not(self, i):
        kind = kind_of(i.parts[-1])
        self.set(i, i.operands[0], kind, f"~{self.value(i.operands[1], kind)}")

    def do_selp(self, i):
        to, x, y, which = i.operands
        kind = kind_of(i.parts[-1])
        self.set(i, to, kind, f"np.where({self.value(which, 'b1')}, {self.value(x, kind)}, {self.value(y, kind)})")

    def do_setp(self, i):
        if len(i.parts) != 3:
            raise NotImplementedError(i.text)
        to, x, y = i.operands
        _, comparison, ptx_type = i.parts
        kind = kind_of(ptx_type)
        x, y = self.value(x, kind), self.value(y, kind)
        if kind[0] == "f":
            nan = f"(np.isnan({x}) | np.isnan({y}))"
            if comparison in ("num", "nan"):
                expression = nan if comparison == "nan" else f"~{nan}"
            else:
                expression = f"({x} {COMPARISONS[comparison[:2]]} {y})"
                expression += f" | {nan}" if comparison.endswith("u") else f" & ~{nan}"
        else:
            expression = f"{x} {COMPARISONS[comparison]} {y}"
        self.set(i, to, "b1", expression)

    def do_cvt(self, i):
        to, *sources = i.operands
        modes, into, origin = i.parts[1:-2], i.parts[-2], i.parts[-1]
        if into in ("tf32", "bf16x2", "f16x2"):
            values = ", ".join(self.value(source, "f4") for source in sources)
            self.set(i, to, "u4", f"a.{into}({values})")
            return
        source, kind = kind_of(origin), kind_of(into)
        value = self.value(sources[0], source)
        rounding = next((mode for mode in modes if mode in ("rni", "rzi", "rmi", "rpi")), None)
        if rounding:
            value = f"a.{rounding}({value}, {kind!r})"
        self.set(i, to, kind, f"{value}.astype({kind!r})")
