"""All correlations of the series of a run that its spectra need, fed by dynamics frame by frame."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from painn_fast.correlation.names import SERIES
from painn_fast.correlation.online import Correlation, StreamingCorrelation
from painn_fast.errors import PaiNNFastError, reading
from painn_fast.runtime.atomic import atomic_write
from painn_fast.runtime.folders import trajectory_folders
from painn_fast.runtime.numpy_files import check_npz
from painn_fast.runtime.signature import npz_intact, signed_npz

FILE = "correlations.npz"
"""In the folder of a run."""
ABOUT, VERSION = "about", 2
DAMAGED = "not a file of correlations"


class SpectrumStreams:
    """Streaming correlations by the names of what dynamics observes.

    Args:
        intervals: fs between frames, of "dipole", "polarizability", "velocities" or some of them.
        depth: of the correlation functions, fs; an analysis may be shallower, not deeper.
        symbols: of the N atoms; for velocities only.
        masses: [N] amu; for velocities only.

    Attributes:
        streams: by series and part, such as "polarizability.isotropic".

    Raises:
        PaiNNFastError: for another series, or velocities without symbols and masses.

    Example:
        >>> import numpy as np
        >>> from painn_fast.correlation import SpectrumStreams
        >>> streams = SpectrumStreams({"dipole": 2.0}, depth=100.0)
        >>> for frame in np.random.default_rng(0).normal(size=(200, 4, 3)):  # e Å, of 4 trajectories
        ...     streams.push("dipole", frame)
        >>> streams.length("dipole"), streams.correlations("dipole")["dipole"].lags
        (398.0, 50)
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
            got = ", ".join(sorted(unknown)) or "nothing"
            raise PaiNNFastError("no spectrum needs this series", got=got, expected=", ".join(SERIES))
        if "velocities" in intervals and not len(symbols) == len(masses) > 0:
            raise PaiNNFastError("velocities need symbols and masses", got=f"{len(symbols)} and {len(masses)}")
        self.intervals, self.depth = dict(intervals), float(depth)
        self.symbols, self.masses = tuple(symbols), np.array(masses, dtype=np.float64)
        shapes = {"dipole": (3,), "polarizability": (3, 3), "velocities": (1, len(symbols), 3)}
        self.streams = {
            f"{series}.{part}": StreamingCorrelation(round(depth / every), every, differences=series != "velocities")
            for series, every in self.intervals.items()
            for part in correlated_parts(series, np.zeros(shapes[series]), self.symbols, self.masses)
        }

    @property
    def alive(self) -> np.ndarray:
        """Trajectories that were finite in all series so far [S] bool."""
        return np.all([stream.alive for stream in self.streams.values()], axis=0)

    def length(self, series: str) -> float:
        """Time of a series from its first frame to the last, fs."""
        stream = next(iter(self._of(series).values()))
        return stream.frames * stream.interval

    def push(self, series: str, values: np.ndarray) -> None:
        """Add a frame of all S trajectories; NaN for those that are frozen.

        Args:
            series: its name.
            values: dipole [S, 3] e Å and polarizability [S, 3, 3] Å^3, means over beads; velocities [S, P, N, 3] Å/fs.

        Raises:
            PaiNNFastError: if the series is unknown, or the shape is not that of the frames before.
        """
        streams = self._of(series)
        for part, x in correlated_parts(series, np.asarray(values, np.float64), self.symbols, self.masses).items():
            streams[part].push(x)

    def correlations(self, series: str) -> dict[str, Correlation]:
        """Correlations of a series by part, for `InfraredSpectrum.of`, `RamanSpectrum.of` or `PowerSpectrum.of`.

        Raises:
            PaiNNFastError: if the series is unknown, there are fewer frames than lags, or no trajectory is alive.
        """
        return {part: stream.correlation() for part, stream in self._of(series).items()}

    def state(self) -> dict[str, np.ndarray]:
        """The whole state as arrays, for a restart file."""
        return {
            f"{name}.{key}": value for name, stream in self.streams.items() for key, value in stream.state().items()
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a `state`: the same frames give the same bits.

        Raises:
            PaiNNFastError: if it is the state of other series, another depth or other intervals.
        """
        parts: dict[str, dict[str, np.ndarray]] = {}
        for key, value in state.items():
            name, _, field = key.rpartition(".")
            parts.setdefault(name, {})[field] = value
        if parts.keys() != self.streams.keys():
            got, expected = (", ".join(sorted(names)) for names in (parts, self.streams))
            raise PaiNNFastError("the state of other series", got=got, expected=expected)
        for name, stream in self.streams.items():
            stream.restore(parts[name])

    def save(self, folder: str | Path) -> None:
        """Write everything to `correlations.npz` in the folder of a run; the file is whole at any moment."""
        about = {"intervals": self.intervals, "depth": self.depth, "symbols": self.symbols}
        about |= {"masses": self.masses.tolist(), "version": VERSION}
        with atomic_write(Path(folder) / FILE) as temporary:
            temporary.write_bytes(signed_npz({ABOUT: np.array(json.dumps(about)), **self.state()}))

    @classmethod
    def load(cls, folder: str | Path) -> SpectrumStreams | None:
        """Read the files of `save`, of all processes of a run; None if there is no such file.

        Raises:
            PaiNNFastError: if it cannot be read, is damaged, or the processes have different numbers of frames.
        """
        paths = [part / FILE for part in trajectory_folders(Path(folder)) or [Path(folder)]]
        if not all(path.exists() for path in paths):
            return None
        with reading(DAMAGED, paths[0].parent):
            return _joined([cls._read(path) for path in paths])

    @classmethod
    def _read(cls, path: Path) -> SpectrumStreams:
        try:
            check_npz(path)
            data = path.read_bytes()
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                state = {name: file[name] for name in file.files}
            about = json.loads(str(state.pop(ABOUT)))
            if about.get("version", 1) > 1 and not npz_intact(data):  # version 1 has no hash
                raise ValueError("damaged: another SHA-256 than written")
            streams = cls(about["intervals"], about["depth"], symbols=about["symbols"], masses=about["masses"])
            streams.restore(state)  # of this file: a state of other series is damage too
        except Exception as error:  # a damaged archive makes readers raise anything
            got = error.got if isinstance(error, PaiNNFastError) else str(error)[:200]
            raise PaiNNFastError(DAMAGED, where=path, got=got) from None
        return streams

    def _of(self, series: str) -> dict[str, StreamingCorrelation]:
        """Streams of the parts of a series."""
        if series not in self.intervals:
            raise PaiNNFastError("unknown series", got=series, expected=", ".join(self.intervals))
        prefix = f"{series}."
        return {name.removeprefix(prefix): one for name, one in self.streams.items() if name.startswith(prefix)}


def _joined(parts: Sequence[SpectrumStreams]) -> SpectrumStreams:
    """The streams of several processes as those of all their trajectories, in order; no frames may follow."""
    first = parts[0]
    if len(parts) == 1:
        return first
    whole = SpectrumStreams(first.intervals, first.depth, symbols=first.symbols, masses=first.masses)
    for name, stream in whole.streams.items():
        stream.join([part.streams[name] for part in parts])
    return whole


def correlated_parts(
    series: str, values: np.ndarray, symbols: Sequence[str], masses: np.ndarray
) -> dict[str, np.ndarray]:
    """The parts of a series that are correlated each on its own.

    Args:
        series: "dipole", "polarizability" or "velocities".
        values: dipole [..., 3], polarizability [..., 3, 3], velocities [..., P, N, 3].
        symbols: of the N atoms; for velocities only.
        masses: [N] amu; for velocities only.

    Returns:
        dipole; isotropic and anisotropic; or mass-weighted velocities of the centroids by element.
    """
    if series == "velocities":
        return mass_weighted(values.mean(axis=-3), symbols, masses)
    if series == "polarizability":
        return dict(zip(("isotropic", "anisotropic"), invariants(values), strict=True))
    return {series: values}


def invariants(alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Isotropic and anisotropic parts of polarizabilities or their derivatives.

    Args:
        alpha: [..., 3, 3].

    Returns:
        a = tr(alpha) / 3 [..., 1], and sqrt(3/2) (alpha - a 1) [..., 9], whose square is gamma^2.

    Example:
        >>> import numpy as np
        >>> from painn_fast.correlation import invariants
        >>> isotropic, anisotropic = invariants(np.diag([4.0, 1.0, 1.0]))
        >>> isotropic.tolist(), round(float((anisotropic**2).sum()), 6)
        ([2.0], 9.0)
    """
    symmetric = 0.5 * (alpha + np.swapaxes(alpha, -1, -2))
    mean = np.trace(symmetric, axis1=-2, axis2=-1) / 3.0
    deviator = symmetric - mean[..., None, None] * np.eye(3)
    return mean[..., None], np.sqrt(1.5) * deviator.reshape(*alpha.shape[:-2], 9)


def mass_weighted(velocities: np.ndarray, symbols: Sequence[str], masses: np.ndarray) -> dict[str, np.ndarray]:
    """sqrt(m) v by element, whose correlations give the power spectrum.

    Args:
        velocities: [..., N, 3] Å/fs.
        symbols: of the N atoms.
        masses: [N] amu.

    Returns:
        Of each element, the lightest first, [..., n, 3] sqrt(amu) Å/fs of its n atoms.

    Example:
        >>> import numpy as np
        >>> from painn_fast.correlation import mass_weighted
        >>> parts = mass_weighted(np.ones((3, 3)), ["O", "H", "H"], np.array([16.0, 1.0, 1.0]))
        >>> {name: (values.shape, float(values.max())) for name, values in parts.items()}
        {'H': ((2, 3), 1.0), 'O': ((1, 3), 4.0)}
    """
    root = np.sqrt(masses)[:, None]
    mass = {symbol: float(masses[list(symbols).index(symbol)]) for symbol in symbols}
    of = {name: np.flatnonzero(np.array(symbols) == name) for name in sorted(mass, key=lambda name: mass[name])}
    return {name: velocities[..., atoms, :] * root[atoms] for name, atoms in of.items()}
