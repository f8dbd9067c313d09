"""Streaming gives what the whole series gives, whatever comes in between."""

import numpy as np
import pytest

from painn_fast import PaiNNFastError
from painn_fast.correlation import invariants, velocity_correlation
from painn_fast.correlation.online import BINS
from painn_fast.spectra import (
    Analysis,
    InfraredSpectrum,
    RamanSpectrum,
    StreamingCorrelation,
    infrared,
    raman,
)
from painn_fast.spectra.density import spectral_density, standard_error
from painn_fast.testing import assert_close


def pushed(series, lags, interval=1.0, **options):
    streaming = StreamingCorrelation(lags, interval, **options)
    for frame in series.swapaxes(0, 1):
        streaming.push(frame)
    return streaming


def autocorrelation(series, lags):
    """<x(0) . x(t)> of each trajectory, summed over components, averaged over origins: the definition."""
    S, T = series.shape[:2]
    x = series.reshape(S, T, -1)
    return np.stack([(x[:, : T - k] * x[:, k:]).sum((1, 2)) / (T - k) for k in range(lags)], axis=1)


def test_nothing_wraps_around_from_the_end_to_the_start():
    series = np.zeros((1, 100, 1))
    series[0, 0], series[0, -1] = 1.0, 1.0
    correlation = velocity_correlation(series, 100, 1.0, differences=False).mean
    assert correlation[1:99] == pytest.approx(0.0, abs=1e-15)
    assert correlation[99] == pytest.approx(1.0)


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("frames", [21, 64, 65, 66, 129, 500, 3000])
@pytest.mark.parametrize("lags", [1, 20, 90])
@pytest.mark.parametrize("shape", [(3,), (2, 2), ()])
def test_equals_the_correlation_of_the_whole_series(rng, frames, lags, shape):
    series = rng.normal(size=(3, frames, *shape)) + 1.0
    if frames - 1 < lags:
        with pytest.raises(PaiNNFastError, match=rf"too few frames.*got: {frames - 1}; expected: {lags} or more"):
            pushed(series, lags).correlation()
        return
    got = pushed(series, lags, 0.5).correlation()
    expected = autocorrelation(np.diff(series, axis=1) / 0.5, lags)
    assert_close(got.blocks, expected, 1e-13)
    assert_close(got.mean, expected.mean(axis=0), 1e-13)
    assert got.weights == pytest.approx(1 / 3)
    velocities = pushed(series, lags, 0.5, differences=False).correlation()
    assert_close(velocities.blocks, autocorrelation(series, lags), 1e-13)


def test_many_trajectories_take_less_memory_each(rng):
    series = rng.normal(size=(20, 1500, 2))
    streaming = pushed(series, 30)
    assert streaming.state()["sums"].shape == (2, 20, 30)
    assert_close(streaming.correlation().blocks, autocorrelation(np.diff(series, axis=1), 30), 1e-13)
    series[1:, 40] = np.nan
    alone = pushed(series, 30).correlation()
    assert_close(alone.mean, autocorrelation(np.diff(series[:1], axis=1), 30)[0], 1e-13)
    assert alone.weights.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("frames", [150, 1000, 1024, 1601, 30000])
def test_one_trajectory_alone_has_parts(rng, frames):
    """Their mean, weighted by their origins, is the whole; each is two depths or longer, but for the last one."""
    lags = 50
    series = rng.normal(size=(1, frames, 3))
    got = pushed(series, lags, differences=False).correlation()
    assert_close(got.mean, autocorrelation(series, lags)[0], 1e-13)
    assert got.weights.sum() == pytest.approx(1.0)
    assert got.weights @ got.blocks[:, 0] == pytest.approx(got.mean[0])
    lengths = got.weights * frames
    assert (lengths[:-1] >= 2 * lags - 1e-9).all()
    assert len(lengths) == {150: 2, 1000: 8, 1024: 8, 1601: 13, 30000: 15}[frames]
    start = 0
    for part, length in zip(got.blocks, lengths, strict=True):
        end = start + round(length)
        pairs = [
            sum(series[0, t] @ series[0, t - lag] for t in range(max(start, lag), end)) / (end - max(start, lag))
            for lag in (0, 7, 49)
        ]
        assert part[[0, 7, 49]] == pytest.approx(np.array(pairs), abs=1e-12)
        start = end


def test_frames_one_by_one_or_many_at_once_give_the_same_bits(rng):
    series = rng.normal(size=(2, 1000, 3))
    expected = pushed(series, 30)
    for sizes in ([1000], [1, 999], [63, 64, 65, 808], [500, 500]):
        got, start = StreamingCorrelation(30, 1.0), 0
        for size in sizes:
            got.extend(series[:, start : start + size])
            start += size
        assert same(got.state().values(), expected.state().values())
        assert np.array_equal(got.correlation().blocks, expected.correlation().blocks)


@pytest.mark.parametrize("stop", [0, 1, 5, 64, 65, 66, 700, 1999, 2000])
def test_saved_and_restored_it_gives_the_same_bits(rng, stop):
    """A correlation taken in between does not change it either."""
    series = rng.normal(size=(1, 2000, 2))
    series = np.concatenate([series, -series])
    series[1, 900] = np.nan
    expected = pushed(series, 25)
    before = pushed(series[:, :stop], 25)
    if stop > 25:
        before.correlation()
    kept = {name: value.copy() for name, value in before.state().items()}
    for frame in series.swapaxes(0, 1)[stop : stop + 100]:
        before.push(frame)  # a saved state is not the accumulator's own
    after = StreamingCorrelation(25, 1.0)
    after.restore(kept)
    for frame in series.swapaxes(0, 1)[stop:]:
        after.push(frame)
    assert same(after.state().values(), expected.state().values())
    assert np.array_equal(after.correlation().mean, expected.correlation().mean)
    assert np.array_equal(after.correlation().blocks, expected.correlation().blocks)


def test_memory_does_not_grow_with_the_run(rng):
    streaming = pushed(rng.normal(size=(2, 300, 3)), 40)
    before = {name: value.nbytes for name, value in streaming.state().items()}
    for _ in range(20):
        streaming.extend(rng.normal(size=(2, 1000, 3)))
    assert {name: value.nbytes for name, value in streaming.state().items()} == before
    assert streaming.frames == 20299
    assert streaming.state()["buffer"].shape == (2, 3, 39 + 64)
    assert streaming.state()["sums"].shape == (BINS, 2, 40)


def test_trajectories_that_are_not_finite_are_left_out(rng):
    series = rng.normal(size=(4, 800, 3))
    expected = pushed(series[[0, 2]], 30).correlation()
    damaged = series.copy()
    damaged[1, 500:] = np.nan
    damaged[3, 0, 1] = np.inf
    streaming = pushed(damaged, 30)
    assert streaming.alive.tolist() == [True, False, True, False]
    assert np.array_equal(streaming.correlation().blocks, expected.blocks)
    assert np.array_equal(streaming.correlation().mean, expected.mean)
    damaged[[0, 2], 799] = np.nan
    with pytest.raises(PaiNNFastError, match="no trajectory is finite; got: 4"):
        pushed(damaged, 30).correlation()


def test_the_last_one_alive_still_has_an_error(rng):
    series = rng.normal(size=(2, 3000, 3))
    series[0, 2000:] = np.nan
    got = pushed(series, 30).correlation()
    expected = pushed(series[1:], 30).correlation()
    assert np.array_equal(got.blocks, expected.blocks)
    assert len(got.blocks) > 8


def test_error_of_a_long_trajectory_covers_the_truth(rng):
    """White noise, 60 runs: the stated errors are what the spectra scatter by."""
    found = []
    analysis = Analysis("hann", 60.0, 8000.0)
    for _ in range(60):
        correlation = velocity_correlation(rng.normal(size=(1, 2000, 1)), 30, 2.0, differences=False)
        density = spectral_density(correlation, 300.0, analysis)
        at = np.array([300, 1500, 3000, 6000]) // round(density.wavenumber[1])
        error = standard_error(density.mean, density.blocks, density.weights)
        found.append((density.mean[at], error[at]))
    means, errors = np.array(found).swapaxes(0, 1)
    assert 0.6 < (means.var(axis=0) / (errors**2).mean(axis=0)).mean() < 1.6


def test_spectra_from_streams_are_those_of_the_series(rng):
    """A stream may be deeper than the analysis."""
    dipole, alpha = rng.normal(size=(3, 900, 3)), rng.normal(size=(3, 900, 3, 3))
    analysis = Analysis("hann", 200.0, 4000.0)
    ir = InfraredSpectrum.of(pushed(dipole, 150, 2.0).correlation(), 300.0, analysis, correction="standard")
    expected = infrared(dipole, 2.0, 300.0, analysis, correction="standard")
    assert_close(ir.intensity, expected.intensity, 1e-12)
    assert_close(ir.error, expected.error, 1e-12)
    parts = (pushed(part, 150, 2.0).correlation() for part in invariants(alpha))
    got = RamanSpectrum.of(*parts, 300.0, analysis, laser=785.0)
    scattered = raman(alpha, 2.0, 300.0, analysis, laser=785.0)
    for name in ("activity", "error", "isotropic", "anisotropic"):
        assert_close(getattr(got, name), getattr(scattered, name), 1e-12)
    assert_close(got.stokes[50:], scattered.stokes[50:], 1e-12)


def test_a_stream_that_is_not_deep_enough(rng):
    correlation = pushed(rng.normal(size=(3, 900, 3)), 50, 2.0).correlation()
    with pytest.raises(PaiNNFastError, match=r"correlation depth.*200 fs.*16 to 100 fs"):
        InfraredSpectrum.of(correlation, 300.0, Analysis(depth=200.0))


def test_invalid_input_is_refused(rng):
    with pytest.raises(PaiNNFastError, match="lags must be positive"):
        StreamingCorrelation(0, 1.0)
    with pytest.raises(PaiNNFastError, match="interval must be positive"):
        StreamingCorrelation(10, 0.0)
    streaming = pushed(rng.normal(size=(2, 30, 3)), 10)
    with pytest.raises(PaiNNFastError, match=r"another shape; got: 2 trajectories of 9 components; expected: 2 of 3"):
        streaming.push(np.zeros((2, 3, 3)))
    with pytest.raises(PaiNNFastError, match=r"state of another correlation; got: lags 10.*expected: lags 11"):
        StreamingCorrelation(11, 1.0).restore(streaming.state())
