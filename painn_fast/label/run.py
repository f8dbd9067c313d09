"""Labels of many structures by several processes."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import ase
import numpy as np

from painn_fast.errors import PaiNNFastError
from painn_fast.graph.charge import charge_and_multiplicity
from painn_fast.label.finite_field import WARNING
from painn_fast.label.journal import Journal
from painn_fast.label.methods import How
from painn_fast.label.output import FORMATS, NPZ, UNITS, check_composition, write
from painn_fast.label.structures import structures
from painn_fast.label.workers import Task, Workers
from painn_fast.runtime.interrupt import Interrupt
from painn_fast.runtime.progress import StatusLine, clock, warn


def label(
    file: str | Path,
    output: str | Path,
    *,
    method: str,
    level: str | None = None,
    options: dict[str, Any] | None = None,
    properties: Sequence[str] = (),
    polarizability_every: int | None = None,
    every: int = 1,
    workers: int | None = None,
    resume: bool = False,
    finish: bool = False,
) -> Path:
    """Label all structures of a file; a killed run can be resumed.

    Args:
        file: structures: anything that ASE reads, `.npz` with R and z, our HDF5 data, or a trajectory of ours, whose
            beads count as structures. Total charge and spin multiplicity are those that it states.
        output: `.xyz`/`.extxyz`, or `.npz` for structures of one composition; both keep cell, charge, spin
            multiplicity, masses and tags, and state units and level of theory. Constraints are not kept, and forces are
            those without them. Beside it `OUTPUT.journal` keeps what is finished until all is.
        method: "pyscf", "tblite", "model:NAME", or an ASE calculator as "module:Class".
        level: "PBE0/def2-SVPD" for pyscf, "GFN2-xTB" for tblite.
        options: of the method; `charge` and `multiplicity` are those of all structures.
        properties: to label with, of energy, forces, stress, dipole and polarizability; default: all that the method
            gives. Without forces among them labels take less time.
        polarizability_every: of every so many structures also the polarizability, where the method has one; 0 for none;
            default: 5, or 1 where `properties` names the polarizability.
        every: label every so many structures of the file.
        workers: processes, each on one thread; default: one for each processor.
        resume: go on with the structures that the journal lacks.
        finish: write what the journal has, and label nothing more.

    Returns:
        The output file.

    Raises:
        PaiNNFastError: for a file, a method or a journal that does not fit, or if no structure could be labelled.

    Example:
        >>> import ase.io
        >>> from ase.build import molecule
        >>> from painn_fast.label import label
        >>> ase.io.write("water.xyz", molecule("H2O"))
        >>> output = label("water.xyz", "labelled.xyz", method="ase.calculators.emt:EMT")
        >>> ase.io.read(output).info["theory"]
        'ase.calculators.emt:EMT'
    """
    output = Path(output)
    if output.suffix not in FORMATS:
        raise PaiNNFastError("unknown kind of output", got=output.name, expected=" | ".join(FORMATS))
    polarizability_every = _every(properties, polarizability_every)
    how = How(
        method, level, tuple(sorted((options or {}).items())), tuple(name for name in UNITS if name in properties)
    )
    frames = [how.charged(atoms, f"{file}, structure {k * every}") for k, atoms in enumerate(structures(file)[::every])]
    if output.suffix == NPZ:
        check_composition(frames, output)
    journal_path = journal_of(output)
    for path in (output, journal_path):
        if path.exists() and not (resume or finish):
            raise PaiNNFastError("the output exists already", where=path, fix="use --resume to go on, or another name")
    if not finish:
        how.make()  # its errors are raised here, once, and not by each worker process
        if method == "tblite" and polarizability_every and not all(atoms.pbc.any() for atoms in frames):
            warn(WARNING)
        if how.foreign and any(atoms.info.keys() & {"charge", "spin"} for atoms in frames):
            warn(
                f"{method} is trusted to take charge and spin from its parameters, atoms.info, or the sums of initial "
                "charges and magnetic moments; a calculator that does none of this computes neutral singlets"
            )
    return label_frames(frames, output, how, polarizability_every=polarizability_every, workers=workers, finish=finish)


def _every(properties: Sequence[str], polarizability_every: int | None) -> int:
    """Of every so many structures the polarizability.

    Raises:
        PaiNNFastError: for names of no label, or a polarizability that is asked for and not to be computed.
    """
    unknown = [name for name in properties if name not in UNITS]
    if unknown:
        raise PaiNNFastError("no such labels", got=", ".join(unknown), expected=" | ".join(UNITS))
    if not properties:
        return 5 if polarizability_every is None else polarizability_every
    asked = "polarizability" in properties
    if polarizability_every is not None and bool(polarizability_every) != asked:
        raise PaiNNFastError(
            "the properties and the number of polarizabilities contradict each other",
            got=f"{', '.join(properties)}; the polarizability of every {polarizability_every}",
        )
    return polarizability_every or int(asked)


def label_frames(
    frames: list[ase.Atoms],
    output: Path,
    how: How,
    *,
    polarizability_every: int,
    workers: int | Workers | None = None,
    finish: bool = False,
) -> Path:
    """Label structures, or go on with it, as `label` does; `workers` may be processes that run already."""
    journal_path = journal_of(output)
    header = {
        "structures": len(frames),
        "sha256": _fingerprint(frames),
        "method": how.method,
        "level": how.level,
        "options": dict(how.options),
        "polarizability_every": polarizability_every,
    }
    if how.properties:
        header["properties"] = list(how.properties)
    with Journal(journal_path, header) as journal:
        for number in journal.damaged:
            warn(f"{journal_path}: line {number} is damaged; its structure is labelled again")
        left = [k for k in range(len(frames)) if k not in journal.entries]
        if left and not finish:
            with _running(workers, how, len(left)) as pool:
                _label(frames, left, polarizability_every, pool, journal)
        entries = dict(sorted(journal.entries.items()))
    good = {k: entry for k, entry in entries.items() if "failed" not in entry}
    if not good:
        reasons = sorted({entry["failed"] for entry in entries.values()})
        raise PaiNNFastError("no structure could be labelled", where=output, got="; ".join(reasons[:3]) or "nothing")
    write(output, [frames[k] for k in good], list(good.values()), how.theory)
    if len(entries) == len(frames):
        journal_path.unlink()
    return output


def _fingerprint(frames: list[ase.Atoms]) -> str:
    digest = hashlib.sha256()
    for atoms in frames:
        digest.update(atoms.numbers.astype(np.int64).tobytes())
        digest.update(np.round(atoms.positions, 8).tobytes())
        digest.update(np.round(atoms.cell.array, 8).tobytes() + atoms.pbc.tobytes())
        digest.update(repr(charge_and_multiplicity(atoms.info, where=atoms.get_chemical_formula())).encode())
    return digest.hexdigest()


def journal_of(output: Path) -> Path:
    """Where labels are kept until all are finished."""
    return output.with_name(output.name + ".journal")


def _running(workers: int | Workers | None, how: How, count: int) -> AbstractContextManager[Workers]:
    """Processes for so many structures."""
    if isinstance(workers, Workers):
        return nullcontext(workers)
    return Workers(how, min(workers or os.cpu_count() or 1, count))


def _label(
    frames: list[ase.Atoms], left: list[int], polarizability_every: int, pool: Workers, journal: Journal
) -> None:
    start, before = time.monotonic(), len(journal.entries)
    with StatusLine() as status, Interrupt() as interrupt:

        def tasks() -> Iterator[Task]:
            for k in left:
                if interrupt.signal:
                    return
                yield k, frames[k], bool(polarizability_every) and k % polarizability_every == 0

        failed = sum("failed" in entry for entry in journal.entries.values())
        for k, entry in pool.results(tasks()):
            journal.add(k, entry)
            if "failed" in entry:
                failed += 1
                status.keep(f"structure {k} failed: {entry['failed']}")
            done, passed = len(journal.entries), time.monotonic() - start
            rate = (done - before) / passed
            status.update(
                f"{done} of {len(frames)} labelled, {failed} failed, {60 * rate:.1f} a minute, "
                f"{clock((len(frames) - done) / rate)} left"
            )
        passed = time.monotonic() - start
        status.keep(f"{len(journal.entries)} of {len(frames)} labelled, {failed} failed, took {clock(passed)}")
    if interrupt.signal and len(journal.entries) < len(frames):
        raise PaiNNFastError("interrupted; what is labelled is saved", where=journal.path, fix="go on with --resume")
