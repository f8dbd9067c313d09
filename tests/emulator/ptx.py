"""Text of PTX as blocks of instructions."""

import re
from dataclasses import dataclass, field

KINDS = {"p": "b1", "rs": "u2", "r": "u4", "rd": "u8", "f": "u4", "fd": "u8", "SP": "u8", "SPL": "u8"}
"""How a register lies between blocks, by the prefix of its name."""
REGISTER = re.compile(r"%(?:(?:rs|rd|r|p|fd|f)\d+|SPL?)")
_INSTRUCTION = re.compile(r"(?:@(!?)(%p\d+)\s+)?([a-z][\w.:]*)\s*(.*)", re.DOTALL)


@dataclass(frozen=True)
class Instruction:
    """`@predicate parts[0].parts[1]... operands`, from a line of the text."""

    line: int
    text: str
    parts: tuple[str, ...]
    operands: tuple[str, ...]
    predicate: str | None
    negated: bool


@dataclass
class Block:
    """Instructions that are entered at the first and left after the last: a branch, a barrier or `ret` ends it."""

    instructions: list[Instruction] = field(default_factory=list)
    target: int | None = None  # where a branch goes
    reads: set[str] = field(default_factory=set)  # registers of other blocks
    writes: set[str] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)  # registers that later blocks read

    @property
    def last(self) -> str:
        """ "bra", "ret", "bar" or "" where the next block follows."""
        head = self.instructions[-1].parts[0] if self.instructions else ""
        return head if head in ("bra", "ret", "bar", "exit") else ""


@dataclass(frozen=True)
class Program:
    name: str
    threads: int
    parameters: dict[str, str]  # name to type, in order
    tables: dict[str, bytes]  # constants of the module, in global memory
    local: int  # bytes of the stack of a thread
    blocks: list[Block]


def parse(text: str) -> Program:
    """The only kernel of a module as Triton writes it."""
    entry = re.search(r"\.visible \.entry (\w+)\((.*?)\n\)", text, re.DOTALL)
    threads = re.search(r"\.reqntid (\d+)", text)
    parameters = {name: kind for kind, name in re.findall(r"\.param\s+\.(\w+)[^\n]*?(\w+_param_\d+)", entry[2])}
    begin, end = text.index("\n{", entry.end()) + 2, text.index("\n}", entry.end())
    first_line = text.count("\n", 0, begin) + 1
    blocks, labels = _blocks(text[begin:end].split("\n"), first_line)
    for block in blocks:
        if block.last == "bra":
            block.target = labels[block.instructions[-1].operands[0]]
    _live(blocks)
    tables = re.findall(r"\.global \.align \d+ \.b8 (\w+)\[\d+\] = \{([^}]*)\}", text)
    stack = re.search(r"\.local \.align \d+ \.b8\s+\w+\[(\d+)\]", text[begin:end])
    return Program(
        entry[1], int(threads[1]), parameters, {name: bytes(map(int, values.split(","))) for name, values in tables},
        int(stack[1]) if stack else 0, blocks,
    )  # fmt: skip


def _blocks(lines: list[str], first_line: int) -> tuple[list[Block], dict[str, int]]:
    blocks, labels = [Block()], {}
    for number, line in enumerate(lines, first_line):
        line = line.split("//")[0].strip()
        if match := re.fullmatch(r"(\$?\w+):", line):
            if blocks[-1].instructions:
                blocks.append(Block())
            labels[match[1]] = len(blocks) - 1
        elif line and not line.startswith("."):
            for part in filter(None, (piece.strip() for piece in _statements(line))):
                match = _INSTRUCTION.fullmatch(part)
                if match is None:
                    raise ValueError(f"line {number}: no instruction: {part!r}")
                negated, predicate, name, rest = match.groups()
                blocks[-1].instructions.append(
                    Instruction(number, part, tuple(name.split(".")), _operands(rest), predicate, bool(negated))
                )
                if blocks[-1].last:
                    blocks.append(Block())
    return blocks, labels


def _statements(line: str) -> list[str]:
    """Without the braces of a scope; a register that it declares for what nothing reads becomes `_`.

    Of a call the passing of arguments is left out.
    """
    if scope := re.fullmatch(r"\{\s*\.reg\s+\.\w+\s+(\w+);(.*)\}", line):
        line = re.sub(rf"\b{scope[1]}\b", "_", scope[2])
    if line in "{}" or re.match(r"st\.param|ld\.param.*\[retval", line):
        return []
    return line.split(";")


def _operands(text: str) -> tuple[str, ...]:
    """At commas outside of braces and brackets."""
    pieces = re.findall(r"(?:\{[^}]*\}|\[[^\]]*\]|[^,{\[])+", text)
    return tuple(stripped for piece in pieces if (stripped := piece.strip()))


def written(instruction: Instruction) -> list[str]:
    """Registers that an instruction changes."""
    head, operands = instruction.parts[0], instruction.operands
    if not operands or head in ("st", "stmatrix", "bra", "bar", "cp", "ret", "call"):
        return []
    return REGISTER.findall(operands[0])


def _live(blocks: list[Block]) -> None:
    """Which registers go from block to block."""
    for block in blocks:
        for instruction in block.instructions:
            out = written(instruction)
            sources = instruction.operands[1:] if out else instruction.operands
            read = {name for operand in sources for name in REGISTER.findall(operand)}
            if instruction.predicate:
                read |= {instruction.predicate, *out}  # where it is off, the old value stays
            block.reads |= read - block.writes
            block.writes |= set(out)
    live = [set(block.reads) for block in blocks]
    changed = True
    while changed:
        changed = False
        for k in reversed(range(len(blocks))):
            block = blocks[k]
            after = [] if _unconditional(block) else [k + 1]
            after += [] if block.target is None else [block.target]
            kept = set().union(*(live[n] for n in after if n < len(blocks)))
            new = block.reads | (kept - block.writes)
            block.kept = kept & block.writes
            changed |= new != live[k]
            live[k] = new


def _unconditional(block: Block) -> bool:
    return block.last in ("bra", "ret", "exit") and not block.instructions[-1].predicate
