"""Which labels the unused entries of a file may be, by their names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from painn_fast.train.data.frames import Frames, listed

LOOKS = {
    "energy": re.compile(r"energ|toten|potential|e_?pot|e_?tot|^(e|u0?|pe)$"),
    "forces": re.compile(r"forc|grad|^f$"),
    "stress": re.compile(r"stress|virial"),
    "dipole": re.compile(r"dipol|^(mu|d)$"),
    "polarizability": re.compile(r"polar|^(alpha|pol)$"),
    "charge": re.compile(r"charge|^(q|total_?q)$"),
    "length": re.compile(r"length|distance|position|coord|^(r|pos|geometry)$"),
    "multiplicity": re.compile(r"multiplicit|^(mult|total_?spin)$"),
}
"""Names, in lower case, that look like those of a label."""
HINTS, LOOKED_AT = 3, 100
"""Names that a note proposes, and names that are compared with those of labels."""
LONGEST = 60
"""Characters of a name that are shown."""


def looks_like(name: str, labels: Iterable[str]) -> str | None:
    """The label that an array of this name may be, also where it is misspelt."""
    lower = name[:LONGEST].lower()
    for label in labels:
        if label in LOOKS and LOOKS[label].search(lower):
            return label
    return next(iter(difflib.get_close_matches(lower, list(labels), n=1, cutoff=0.75)), None)


def unused_line(frames: Frames, file: str, used: Iterable[str], missing: Sequence[str]) -> str | None:
    """ "set.xyz: not used: REF_energy, tag; is REF_energy the energy? ...", None if all entries are used.

    Args:
        frames: the file.
        file: its name.
        used: entries that are read.
        missing: labels that are wanted and were not found in it.
    """
    taken = set(used)
    names = [name for name in (*frames.arrays, *frames.left) if name not in taken]
    if not names:
        return None
    hints = [(name, label) for name in names[:LOOKED_AT] if (label := _of(frames, name, missing)) is not None][:HINTS]
    shown = listed(_shown(frames, name) for name in dict.fromkeys([*(name for name, _ in hints), *names]))
    if not hints:
        return f"{file}: not used: {shown}"
    asked = ", ".join(f"is {name[:LONGEST]} the {label}?" for name, label in hints)
    name, label = hints[0]
    unit = "" if label in ("charge", "multiplicity") else " and its unit"
    return f'{file}: not used: {shown}; {asked} Then set keys = {{ {label} = "{name[:LONGEST]}" }}{unit}'


def _shown(frames: Frames, name: str) -> str:
    return f"{name} (of atoms)" if _of_atoms(frames, name) and not name.endswith(" of atoms") else name


def _of_atoms(frames: Frames, name: str) -> bool:
    return name in frames.arrays and frames.of_atoms(name) and len(frames.arrays[name]) == len(frames.numbers)


def _of(frames: Frames, name: str, missing: Sequence[str]) -> str | None:
    """The missing label that an entry may be: forces for one of atoms, others for one of structures."""
    of_atoms = _of_atoms(frames, name)
    return looks_like(name, [label for label in missing if label == "forces" or not of_atoms])
