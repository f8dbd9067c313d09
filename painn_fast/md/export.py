"""Recorded positions as files of other programs: extended XYZ by ASE; H5MD, DCD and Amber's NetCDF by MDAnalysis."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase.cell import Cell

from painn_fast.errors import PaiNNFastError
from painn_fast.io.structures import write_extxyz
from painn_fast.md.trajectory import Trajectory
from painn_fast.runtime.atomic import atomic_write
from painn_fast.runtime.progress import warn

EXTXYZ = (".xyz", ".extxyz")
MDANALYSIS = {".h5md": "H5MD", ".dcd": "DCD", ".nc": "NCDF"}
"""Formats by the ending of a file."""


def export(
    run: str | Path,
    target: str | Path,
    *,
    trajectory: int | None = None,
    beads: bool = False,
    every: int = 1,
    overwrite: bool = False,
) -> list[Path]:
    """Write the positions that a run of dynamics recorded, of the centroids or of all beads.

    Extended XYZ has Å and `time_fs`; the others are in the units of their formats, by MDAnalysis in single precision.
    They hold a cell as lengths and angles, so that a periodic system is turned into the standard orientation (a along
    x, b in the plane of x and y), and elements are in an .xyz beside them. Frames of a trajectory that a guard stopped
    end there; of one that has no frame there is a warning and no file.

    Args:
        run: its folder, or its trajectory.h5.
        target: a file that ends in .xyz, .extxyz, .h5md, .dcd or .nc. If several are written, their names have the
            number of the trajectory and of the bead before the ending.
        trajectory: only this one, by its index; all by default.
        beads: a file of each bead instead of one of the centroid.
        every: only each so-manieth frame, 1 or more.
        overwrite: replace files.

    Returns:
        The files.

    Raises:
        PaiNNFastError: for another ending, files that exist, a run without positions, one that guards stopped before
            its first frame, or if MDAnalysis is needed and not installed.

    Example:
        >>> from painn_fast.md import MDSettings, export, run
        >>> path = run(MDSettings(model="ethanol", duration="2 fs", positions_every="1 fs"))
        >>> export(path, "ethanol.xyz")
        [PosixPath('ethanol.xyz')]
        >>> import ase.io
        >>> [float(atoms.info["time_fs"]) for atoms in ase.io.read("ethanol.xyz", ":")]
        [0.0, 1.0, 2.0]
    """
    target, source = Path(target), Trajectory(run)
    if target.suffix not in (*EXTXYZ, *MDANALYSIS):
        raise PaiNNFastError(
            "unknown format of the target", where=target, got=f"ending '{target.suffix}'",
            expected=", ".join((*EXTXYZ, *MDANALYSIS)),
        )  # fmt: skip
    if every < 1:
        raise PaiNNFastError("not a distance of frames", where="every", got=every, expected="1 or more")
    if trajectory is not None and not 0 <= trajectory < source.trajectories:
        raise PaiNNFastError("no such trajectory", got=trajectory, expected=f"0 to {source.trajectories - 1}")
    if target.suffix in MDANALYSIS:
        _mdanalysis()
    chosen = range(source.trajectories) if trajectory is None else [trajectory]
    pieces = [(k, bead) for k in chosen for bead in (range(source.beads) if beads else [None])]
    several = len(pieces) > 1
    there = np.isfinite(source.positions).all(axis=(2, 3, 4)).any(axis=0)  # [S]
    gone = [str(k) for k in chosen if not there[k]]
    if len(gone) == len(chosen):
        raise PaiNNFastError("guards stopped it before the first frame", where=f"trajectory {', '.join(gone)}")
    if gone:
        warn(f"no file of trajectory {', '.join(gone)}: guards stopped it before the first frame")
    pieces = [(k, bead) for k, bead in pieces if there[k]]
    files = [_numbered(target, source, *piece, several=several) for piece in pieces]
    beside = [file.with_suffix(".xyz") for file in files if target.suffix in MDANALYSIS]
    for file in (*files, *beside):
        if file.exists() and not overwrite:
            raise PaiNNFastError("the target exists already", where=file, fix="choose another name, or --overwrite")
    for file, (k, bead) in zip(files, pieces, strict=True):
        frames = [frame for frame in source.atoms(k, bead)[::every] if np.isfinite(frame.positions).all()]
        if target.suffix in EXTXYZ:
            write_extxyz(file, frames)
        else:
            write_extxyz(file.with_suffix(".xyz"), frames[0])
            _write(file, MDANALYSIS[target.suffix], frames)
    return files


def _numbered(target: Path, source: Trajectory, k: int, bead: int | None, *, several: bool) -> Path:
    """The name of a file: `run.xyz`, or `run-0.xyz` and `run-0-bead-00.xyz` of several."""
    name = target.stem + (f"-{k}" if several else "")
    if bead is not None and source.beads > 1:
        name += f"-bead-{bead:0{len(str(source.beads - 1))}}"
    return target.with_name(name + target.suffix)


def _mdanalysis() -> Any:
    try:
        import MDAnalysis
    except ImportError:
        raise PaiNNFastError("MDAnalysis is not installed", fix="pip install MDAnalysis, or choose .xyz") from None
    return MDAnalysis


def _write(path: Path, kind: str, frames: list[ase.Atoms]) -> None:
    """Frames at equal intervals, in the units of MDAnalysis: Å and ps."""
    package, n = _mdanalysis(), len(frames[0])
    times = np.array([frame.info["time_fs"] for frame in frames]) / 1000
    options: dict[str, Any] = {"dt": float(times[1] - times[0])} if len(frames) > 1 else {}
    if kind == "H5MD":  # which states its units itself
        options |= {"timeunit": "ps", "lengthunit": "Angstrom"}
    with atomic_write(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no cell; which library writes NetCDF
        universe = package.Universe.empty(n, trajectory=True)
        with package.Writer(str(temporary), n_atoms=n, format=kind, **options) as writer:
            for k, (cell, positions) in enumerate(map(_standard, frames)):
                universe.trajectory.ts.frame, universe.trajectory.ts.time = k, times[k]
                universe.trajectory.ts.dimensions = cell
                universe.atoms.positions = positions
                writer.write(universe.atoms)


def _standard(frame: ase.Atoms) -> tuple[np.ndarray | None, np.ndarray]:
    """Lengths (Å) and angles (degrees) of a cell, None without one, and positions turned as such a cell is."""
    if not frame.pbc.any() or frame.cell.rank < 3:
        return None, frame.positions
    cell = Cell(frame.cell.array * np.sign(np.linalg.det(frame.cell.array)))  # right-handed, of the same lattice
    standard, turn = cell.standard_form()
    return standard.cellpar(), frame.positions @ turn.T
