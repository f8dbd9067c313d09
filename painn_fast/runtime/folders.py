"""Folders of a run: one for each process of several, in it one for each molecule of several."""

from __future__ import annotations

from pathlib import Path

WRITTEN = ("restart*.safetensors", "settings.toml", "frozen-*.xyz", "trajectory.h5", "segments/to-*.h5")
"""Files that a process writes into its folder, or into those of its molecules."""


def rank_folder(output: Path, rank: int, world: int) -> Path:
    """Folder of one process: restart files, settings and trajectories."""
    return output if world == 1 else output / f"rank-{rank}"


def molecule_folder(folder: Path, index: int, formula: str, count: int) -> Path:
    """Folder of the trajectory of one of `count` molecules of a run."""
    return folder if count == 1 else folder / f"{index}-{formula}"


def has_trajectory(folder: Path) -> bool:
    """Whether a trajectory lies directly in it."""
    return (folder / "trajectory.h5").exists() or any((folder / "segments").glob("to-*.h5"))


def molecules_in(folder: Path) -> list[Path]:
    """Folders of the trajectories of one process: itself, or one for each molecule."""
    return [one for one in (folder, *_numbered(folder, "[0-9]*-*")) if has_trajectory(one)]


def ranks_in(output: Path) -> list[Path]:
    """Folders of the processes of a run: itself, or those of several."""
    return _numbered(output, "rank-*") or [output]


def trajectory_folders(path: Path) -> list[Path]:
    """Folders with parts of one trajectory, one for each process, in the order of trajectories; empty if there is none.

    Args:
        path: a run, or the folder of one molecule in it; that of several processes stands in each of their folders.
    """
    if has_trajectory(path):
        return [path]
    found = [rank for rank in ranks_in(path) if has_trajectory(rank)]
    return found or [rank / path.name for rank in ranks_in(path.parent) if has_trajectory(rank / path.name)]


def molecules_of(output: Path) -> list[str]:
    """Names of the molecules' folders in a run of several."""
    names = {one.name for rank in ranks_in(output) for one in molecules_in(rank) if one != rank}
    return sorted(names, key=lambda name: int(name.partition("-")[0]))


def remove_temporaries(folder: Path) -> None:
    """Delete the files that an earlier process of this folder was writing when it was killed."""
    for part in (folder, *_numbered(folder, "[0-9]*-*")):
        for name in map(Path, WRITTEN):
            for path in (part / name.parent).glob(f".{name.name}.*.tmp"):
                path.unlink()


def _numbered(folder: Path, pattern: str) -> list[Path]:
    """Subfolders with a number in their names, by it."""
    found = [one for one in folder.glob(pattern) if one.is_dir() and _number(one.name) >= 0]
    return sorted(found, key=lambda one: _number(one.name))


def _number(name: str) -> int:
    text = name.removeprefix("rank-").partition("-")[0]
    return int(text) if text.isdecimal() else -1
