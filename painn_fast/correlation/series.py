"""All correlations that the spectra of a run are made from, fed by dynamics frame by frame."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from painn_fast.correlation.online import Correlation, StreamingCorrelation
from painn_fast.errors import PaiNNFastError, reading
from painn_fast.runtime.atomic import atomic_write
from painn_fast.runtime.folders import trajectory_folders
from painn_fast.runtime.numpy_files import check_npz
from painn_fast.runtime.signature import npz_intact, signed_npz

SERIES = ("dipole", "polarizability", "velocities")
FILE = "correlations.npz"
"""In the folder of a run."""
ABOUT, VERSION = "about", 2


class SpectrumStreams:
    """Streaming correlations by the names of what dynamics observes.

    Args:
        intervals: fs between frames, of "dipole", "polarizability", "velocities" or some of them.
        depth: of the correlation functions, fs; an analysis may be shallower, not deeper.
        symbols: of the N atoms; for velocities only.
        masses: [N] amu; for velocities only.
    """

    def __init__(
        self,
        intervals: Mapping[str, float],
        depth: float,
        *,
        symbols: Sequence[str] = (),
        masses: Sequence[float] | np.ndarray = (),
    ) -> None:
        unknown = set(intervals) - set(SERIES)
        if unknown or not intervals:
            raise PaiNNFastError(
                "no spectrum is made of that", got=", ".join(sorted(unknown)) or "nothing", expected=", ".join(SERIES)
            )
        if "velocities" in intervals and not len(symbols) == len(masses) > 0:
            raise PaiNNFastError("velocities need symbols and masses", got=f"{len(symbols)} and {len(masses)}")
        self.intervals, self.depth = dict(intervals), float(depth)
        self.symbols, self.masses = tuple(symbols), np.array(masses, dtype=np.float64)
        self._streams = {
            f"{series}.{part}": StreamingCorrelation(round(depth / every), every, differences=series != "velocities")
            for series, every in self.intervals.items()
            for part in self._parts(series)
        }

    @property
    def alive(self) -> np.ndarray:
        """Trajectories that were finite in all series so far [S] bool."""
        return np.all([stream.alive for stream in self._streams.values()], axis=0)

    def length(self, series: str) -> float:
        """Time that a series went through so far, fs."""
        stream = next(stream for name, stream in self._streams.items() if name.startswith(f"{series}."))
        return stream.frames * stream.interval

    def push(self, series: str, values: np.ndarray) -> None:
        """One frame of all S trajectories; NaN for those that are frozen.

        Args:
            series: its name.
            values: dipole [S, 3] e Å and polarizability [S, 3, 3] Å^3, means over beads; velocities [S, P, N, 3] Å/fs.

        Raises:
            PaiNNFastError: if the series was not announced, or the shape is not that of the frames before.
        """
        if series not in self.intervals:
            raise PaiNNFastError("a series that nobody announced", got=series, expected=", ".join(self.intervals))
        for part, x in self._split(series, np.asarray(values, dtype=np.float64)).items():
            self._streams[f"{series}.{part}"].push(x)

    def correlations(self, series: str) -> dict[str, Correlation]:
        """What `InfraredSpectrum.of` (dipole), `RamanSpectrum.of` (isotropic, anisotropic), `PowerSpectrum.of` take.

        Raises:
            PaiNNFastError: if there are fewer frames than lags, or no trajectory is alive.
        """
        return {part: self._streams[f"{series}.{part}"].correlation() for part in self._parts(series)}

    def state(self) -> dict[str, np.ndarray]:
        """All that decides how it goes on, as arrays, for a restart file."""
        return {
            f"{name}.{key}": value for name, stream in self._streams.items() for key, value in stream.state().items()
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a `state`: the same frames give the same bits.

        Raises:
            PaiNNFastError: if it is the state of other series, another depth or other intervals.
        """
        found, expected = ({key.rpartition(".")[0] for key in keys} for keys in (state, self.state()))
        if found != expected:
            raise PaiNNFastError(
                "the state of other series", got=", ".join(sorted(found)), expected=", ".join(sorted(expected))
            )
        for name, stream in self._streams.items():
            prefix = f"{name}."
            stream.restore({key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)})

    def save(self, folder: str | Path) -> None:
        """Write everything to `correlations.npz` in the folder of a run; the file is whole at any moment."""
        about = {"intervals": self.intervals, "depth": self.depth, "symbols": self.symbols}
        about |= {"masses": self.masses.tolist(), "version": VERSION}
        with atomic_write(Path(folder) / FILE) as temporary:
            temporary.write_bytes(signed_npz({ABOUT: np.array(json.dumps(about)), **self.state()}))

    @classmethod
    def load(cls, folder: str | Path) -> SpectrumStreams | None:
        """What `save` wrote, by all processes of a run; None if there is no such file.

        Raises:
            PaiNNFastError: if it cannot be read, is not what was written, or the processes did not come equally far.
        """
        paths = [part / FILE for part in trajectory_folders(Path(folder)) or [Path(folder)]]
        if not all(path.exists() for path in paths):
            return None
        with reading("not a file of correlations", paths[0].parent):
            for path in paths:
                try:
                    check_npz(path)
                except PaiNNFastError as error:
                    raise PaiNNFastError("not a file of correlations", where=path, got=error.got) from None
            return joined([cls._read(path) for path in paths])

    @classmethod
    def _read(cls, path: Path) -> SpectrumStreams:
        try:
            data = path.read_bytes()
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                state = {name: file[name] for name in file.files}
            about = json.loads(str(state.pop(ABOUT)))
            if about.get("version", 1) > 1 and not npz_intact(data):  # version 1 has no hash
                raise ValueError("damaged: another SHA-256 than written")
            streams = cls(about["intervals"], about["depth"], symbols=about["symbols"], masses=about["masses"])
        except Exception as error:  # a damaged archive makes readers raise anything
            raise PaiNNFastError("not a file of correlations", where=path, got=str(error)[:200]) from None
        streams.restore(state)
        return streams

    @property
    def streams(self) -> dict[str, StreamingCorrelation]:
        """By series and part."""
        return self._streams

    def _parts(self, series: str) -> tuple[str, ...]:
        if series == "velocities":
            return tuple(weighted(np.zeros((len(self.symbols), 3)), self.symbols, self.masses))
        return ("isotropic", "anisotropic") if series == "polarizability" else ("dipole",)

    def _split(self, series: str, values: np.ndarray) -> dict[str, np.ndarray]:
        if series == "velocities":
            return weighted(values.mean(axis=1), self.symbols, self.masses)  # of centroids
        return dict(
            zip(self._parts(series), invariants(values) if series == "polarizability" else (values,), strict=True)
        )


def joined(parts: Sequence[SpectrumStreams]) -> SpectrumStreams:
    """The streams of several processes as those of all their trajectories, in order; nothing more is to be pushed.

    Raises:
        PaiNNFastError: if they did not come equally far.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    whole = SpectrumStreams(first.intervals, first.depth, symbols=first.symbols, masses=first.masses)
    for name, stream in whole.streams.items():
        stream.join([part.streams[name] for part in parts])
    return whole


def invariants(alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Isotropic and anisotropic parts of polarizabilities or their derivatives.

    Args:
        alpha: [..., 3, 3].

    Returns:
        a = tr(alpha) / 3 [..., 1], and sqrt(3/2) (alpha - a 1) [..., 9], whose square is gamma^2.
    """
    symmetric = 0.5 * (alpha + np.swapaxes(alpha, -1, -2))
    mean = np.trace(symmetric, axis1=-2, axis2=-1) / 3.0
    deviator = symmetric - mean[..., None, None] * np.eye(3)
    return mean[..., None], np.sqrt(1.5) * deviator.reshape(*alpha.shape[:-2], 9)


def weighted(velocities: np.ndarray, symbols: Sequence[str], masses: np.ndarray) -> dict[str, np.ndarray]:
    """sqrt(m) v of the n atoms of each element [..., n, 3], lightest element first, from v of all [..., N, 3]."""
    root = np.sqrt(masses)[:, None]
    mass = {symbol: float(masses[list(symbols).index(symbol)]) for symbol in symbols}
    of = {name: np.flatnonzero(np.array(symbols) == name) for name in sorted(mass, key=lambda name: mass[name])}
    return {name: velocities[..., atoms, :] * root[atoms] for name, atoms in of.items()}
