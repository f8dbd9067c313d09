"""Correlation functions of runs with too many frames to keep: only a block of them and the lags before it are held.

The sum over origins is exact, that of all frames: a block of new frames is correlated with itself and with the lags
before it, by FFT, and added. Blocks go into at most 16 bins of equal length, neighbours merged when there would be
more; they give the error of a single trajectory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from painn_fast.errors import PaiNNFastError

BINS = 16
"""At most, even."""
BINS_OF_MANY = 2
"""At most, of 16 trajectories or more, whose scatter is enough for an error."""
LEAST_BLOCK = 64
"""Frames."""


@dataclass(frozen=True)
class Correlation:
    """<v(0) . v(t)>, summed over components, where v is a velocity x_dot.

    Attributes:
        mean: over all origins of all trajectories [lags].
        blocks: of each trajectory, or of parts of a single one [B, lags]; errors come from their scatter.
        weights: of the blocks [B], their sum is 1.
        interval: between lags, fs.
        differences: whether v is the difference of neighbouring frames over the interval, and not a velocity itself.

    Example:
        >>> import numpy as np
        >>> from painn_fast.correlation import velocity_correlation
        >>> dipole = np.random.default_rng(0).normal(size=(4, 500, 3))  # e Å, of 4 trajectories
        >>> correlation = velocity_correlation(dipole, lags=100, interval=2.0)
        >>> correlation.lags, correlation.blocks.shape, float(correlation.weights.sum())
        (100, (4, 100), 1.0)
    """

    mean: np.ndarray
    blocks: np.ndarray
    weights: np.ndarray
    interval: float
    differences: bool = True

    @property
    def lags(self) -> int:
        """Number of lags, 0 included."""
        return len(self.mean)


class StreamingCorrelation:
    """Autocorrelation of the velocity of x, from frames in the order of time.

    Args:
        lags: number of lags, 0 included: depth / interval.
        interval: between frames, fs.
        differences: frames are x, whose velocity is the difference of neighbouring frames over the interval; if False,
            frames are velocities.

    Raises:
        PaiNNFastError: if lags or interval are not positive.

    Example:
        >>> import numpy as np
        >>> from painn_fast.correlation import StreamingCorrelation, velocity_correlation
        >>> dipole = np.random.default_rng(0).normal(size=(4, 500, 3))  # e Å, of 4 trajectories
        >>> stream = StreamingCorrelation(lags=100, interval=2.0)
        >>> for frame in dipole.swapaxes(0, 1):
        ...     stream.push(frame)
        >>> bool(np.allclose(stream.correlation().mean, velocity_correlation(dipole, 100, 2.0).mean))
        True
    """

    def __init__(self, lags: int, interval: float, *, differences: bool = True) -> None:
        for name, value in (("lags", lags), ("interval", interval)):
            if not value > 0:
                raise PaiNNFastError(f"{name} must be positive", got=value)
        self.lags, self.interval, self.differences = lags, float(interval), differences
        self.block = max(lags, LEAST_BLOCK)
        self._count = 0  # velocities so far
        self._folded = 0  # blocks of them in the sums
        self._per_bin = 1  # blocks
        self._buffer = np.zeros((0, 0, lags - 1 + self.block))  # [S, C, frames]: the lags before a block, the block
        self._last: np.ndarray | None = None  # frame [S, C]
        self._lost = np.zeros(0, dtype=bool)  # [S] trajectories with something that is not finite
        self._sums = np.zeros((BINS, 0, lags))  # over pairs of frames whose later one is in the bin [bins, S, lags]

    @property
    def alive(self) -> np.ndarray:
        """Trajectories that were finite so far [S] bool."""
        return ~self._lost

    @property
    def frames(self) -> int:
        """Number of velocities so far; with differences one less than that of frames."""
        return self._count

    def push(self, values: np.ndarray) -> None:
        """Add a frame [S, ...] of all trajectories; everything after S is a component.

        A trajectory with a value that is not finite is left out from then on, as a whole.

        Raises:
            PaiNNFastError: if the shape is not that of the frames before.
        """
        self.extend(np.asarray(values)[:, None])

    def extend(self, series: np.ndarray) -> None:
        """Add frames [S, T, ...] of all trajectories. The result is that of pushing them one by one, bit for bit.

        Raises:
            PaiNNFastError: if the shape is not that of the frames before.
        """
        S, T = series.shape[:2]
        components = int(np.prod(series.shape[2:]))
        if not self._buffer.size:
            self._begin(S, components)
        if (S, components) != self._buffer.shape[:2]:
            raise PaiNNFastError(
                "frames of another shape",
                got=f"{S} trajectories of {components} components",
                expected=f"{self._buffer.shape[0]} of {self._buffer.shape[1]}",
            )
        start = 0
        while start < T:
            filled = self._count % self.block
            part = np.asarray(series[:, start : start + self.block - filled], dtype=np.float64)
            start += part.shape[1]
            velocity = self._velocity(part.reshape(S, -1, components))
            at = self.lags - 1 + filled
            self._buffer[:, :, at : at + velocity.shape[1]] = velocity.swapaxes(1, 2)
            self._count += velocity.shape[1]
            if self._count == (self._folded + 1) * self.block:
                self._fold()

    def correlation(self) -> Correlation:
        """The correlation of the frames so far, of the trajectories that are alive; more frames may follow.

        Raises:
            PaiNNFastError: if there are fewer frames than lags, or no trajectory is alive.
        """
        if self._count < self.lags:
            raise PaiNNFastError("too few frames for the correlation", got=self._count, expected=f"{self.lags} or more")
        if self._lost.all():
            raise PaiNNFastError("no trajectory is finite", got=f"{len(self._lost)} that are not")
        sums = self._sums[:, self.alive]
        if unfinished := self._count - self._folded * self.block:
            sums[self._folded // self._per_bin] += self._pairs(unfinished)[self.alive]
        whole = sums.sum(axis=0) / (self._count - np.arange(self.lags))  # [S, lags], unbiased
        if len(whole) > 1:
            weights = np.full(len(whole), 1.0 / len(whole))
            return Correlation(whole.mean(axis=0), whole, weights, self.interval, self.differences)
        return Correlation(whole[0], *self._parts(sums[:, 0]), self.interval, self.differences)

    def state(self) -> dict[str, np.ndarray]:
        """The whole state as arrays, for `restore` of another one with the same lags and interval."""
        return {
            "made_for": np.array([self.lags, self.interval, self.differences], dtype=np.float64),
            "counters": np.array([self._count, self._folded, self._per_bin, self._last is not None], dtype=np.int64),
            "buffer": self._buffer.copy(),
            "last": np.zeros((0, 0)) if self._last is None else self._last.copy(),
            "lost": self._lost.copy(),
            "sums": self._sums.copy(),
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a `state`: the same frames give the same bits.

        Raises:
            PaiNNFastError: if the state is of other lags or another interval.
        """
        expected = self.state()["made_for"]
        if not np.array_equal(state["made_for"], expected):
            raise PaiNNFastError(
                "the state of another correlation",
                got="lags {:g}, interval {:g} fs, differences {:g}".format(*state["made_for"]),
                expected="lags {:g}, interval {:g} fs, differences {:g}".format(*expected),
            )
        S, buffer, sums = len(state["lost"]), state["buffer"], state["sums"]
        width = self.lags - 1 + self.block
        if buffer.shape != (S, *buffer.shape[1:2], width) or sums.shape != (*sums.shape[:1], S, self.lags):
            got = f"buffer {buffer.shape}, sums {sums.shape}"
            raise PaiNNFastError("a damaged state of a correlation", got=got, expected=f"{S} trajectories")
        self._count, self._folded, self._per_bin, begun = (int(value) for value in state["counters"])
        self._buffer, self._sums = np.array(state["buffer"]), np.array(state["sums"])
        self._lost = np.array(state["lost"], dtype=bool)
        self._last = np.array(state["last"]) if begun else None

    def join(self, parts: Sequence[StreamingCorrelation]) -> None:
        """Become the correlation of the trajectories of all parts, in order; no frames may follow.

        Raises:
            PaiNNFastError: if the parts have different numbers of frames.
        """
        counts = {part.frames for part in parts}
        if len(counts) > 1:
            raise PaiNNFastError(
                "processes with different numbers of frames", got=f"{sorted(counts)} frames", fix="resume those behind"
            )
        first = parts[0]
        self._count, self._folded, self._per_bin, self._last = first._count, first._folded, first._per_bin, first._last
        self._buffer = np.concatenate([part._buffer for part in parts])
        self._lost = np.concatenate([part._lost for part in parts])
        sums = [part._sums for part in parts]
        if len({(len(part._sums), part._per_bin) for part in parts}) > 1:  # bins of different lengths: all into one
            self._per_bin = max(self._folded + 1, 1)
            sums = [np.stack([one.sum(axis=0), np.zeros_like(one[0])]) for one in sums]
        self._sums = np.concatenate(sums, axis=1)

    def _begin(self, trajectories: int, components: int) -> None:
        self._buffer = np.zeros((trajectories, components, self._buffer.shape[2]))
        self._sums = np.zeros((BINS if trajectories < BINS else BINS_OF_MANY, trajectories, self.lags))
        self._lost = np.zeros(trajectories, dtype=bool)

    def _velocity(self, frames: np.ndarray) -> np.ndarray:
        """[S, T, C] of frames [S, T, C]; one less if they are the first. Zero for trajectories that are lost."""
        self._lost |= ~np.isfinite(frames).all(axis=(1, 2))
        if self._lost.any():
            frames = np.where(self._lost[:, None, None], 0.0, frames)
        if not self.differences:
            return frames
        before = frames[:, :1] if self._last is None else self._last[:, None]
        velocity = np.diff(np.concatenate([before, frames], axis=1), axis=1) / self.interval
        velocity = velocity[:, 1:] if self._last is None else velocity
        self._last = frames[:, -1].copy()
        return velocity

    def _fold(self) -> None:
        """Add a full block to its bin, and keep its last lags for the next one."""
        self._sums[self._folded // self._per_bin] += self._pairs(self.block)
        self._folded += 1
        if self._folded == len(self._sums) * self._per_bin:
            half = self._sums[0::2] + self._sums[1::2]
            self._sums = np.concatenate([half, np.zeros_like(half)])
            self._per_bin *= 2
        self._buffer[:, :, : self.lags - 1] = self._buffer[:, :, self.block :].copy()

    def _pairs(self, frames: int) -> np.ndarray:
        """Sums of v(t) . v(t - lag) over the first frames t of the block [S, lags]."""
        reach = self.lags - 1
        length = scipy.fft.next_fast_len(reach + self.block, real=True)  # nothing wraps around
        new = scipy.fft.rfft(self._buffer[:, :, reach : reach + frames], length, axis=2)
        whole = scipy.fft.rfft(self._buffer[:, :, : reach + frames], length, axis=2)
        cross = scipy.fft.irfft((new.conj() * whole).sum(axis=1), length, axis=1)
        return cross[:, reach::-1]

    def _parts(self, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Correlations [B, lags] and weights [B] of parts of one trajectory, two correlation depths or longer."""
        bins, merged = len(self._sums), 1
        while merged * self._per_bin * self.block < 2 * self.lags and merged < bins:
            merged *= 2
        edges = np.minimum(np.arange(0, bins + 1, merged) * self._per_bin * self.block, self._count)
        used = np.diff(edges) > 0
        first, end = edges[:-1][used, None], edges[1:][used, None]
        pairs = end - np.maximum(first, np.arange(self.lags))
        parts = np.add.reduceat(sums, np.arange(0, bins, merged))[used]
        return parts / pairs, (end - first)[:, 0] / self._count


def velocity_correlation(series: np.ndarray, lags: int, interval: float, *, differences: bool = True) -> Correlation:
    """Autocorrelation of the velocity of x, from a whole series.

    Args:
        series: [S, T, ...] of S trajectories; everything after T is a component.
        lags: number of lags, 0 included: depth / interval.
        interval: between frames, fs.
        differences: whether the series is x, whose velocity is the difference of neighbouring frames, or a velocity.

    Returns:
        <v(0) . v(t)>, summed over components, averaged over origins and trajectories; its unit is that of v squared.

    Raises:
        PaiNNFastError: if there are fewer frames than lags, or no trajectory is finite.

    Example:
        >>> import numpy as np
        >>> from painn_fast.correlation import velocity_correlation
        >>> x = np.cos(0.1 * np.arange(1000.0))[None, :, None]  # of one oscillator; its velocity has the variance 0.005
        >>> f"{velocity_correlation(x, lags=10, interval=1.0).mean[0]:.3f}"
        '0.005'
    """
    streaming = StreamingCorrelation(lags, interval, differences=differences)
    streaming.extend(series)
    return streaming.correlation()
