"""Spectra of a committee of models, a run each: their mean, with the errors of sampling and of the model apart."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from painn_fast.errors import PaiNNFastError
from painn_fast.md import Trajectory
from painn_fast.runtime.ranks import ranks
from painn_fast.spectra.analyse import SpectrumResult
from painn_fast.spectra.infrared import InfraredSpectrum
from painn_fast.spectra.overlay import read_overlays
from painn_fast.spectra.peaks import fit_shift, infrared_peaks, raman_peaks
from painn_fast.spectra.power import PowerSpectrum
from painn_fast.spectra.raman import RamanSpectrum, stokes_factor
from painn_fast.spectra.report import peak_table
from painn_fast.spectra.run import PATIENCE, check_output, prepare_output, run, write
from painn_fast.spectra.settings import DYNAMICS, SpectrumSettings


def run_committee(settings: SpectrumSettings, *, resume: bool = False, overwrite: bool = False) -> SpectrumResult:
    """Compute the spectra of a molecule by each model of a committee, and their mean.

    Files: those of `run`, in a folder a model, member-0 and so on; infrared.csv, raman.csv, power.csv (if velocities
    are recorded), peaks.csv, spectrum.png and .svg of the mean beside them. Sticks and names are those of the first
    model.

    Args:
        settings: with a committee.
        resume: go on with an interrupted one; members that are done are analysed anew.
        overwrite: replace what the folder holds.

    Returns:
        The mean spectra: `error` is the standard error of sampling, `model_error` the standard deviation between models
        beyond that.

    Raises:
        PaiNNFastError: as `run`; if there is only one model, or models have no kind of spectrum in common.

    Example:
        >>> from painn_fast.spectra import SpectrumSettings, run_committee
        >>> settings = SpectrumSettings(model="a.safetensors", committee=("b.safetensors",), structure="start.xyz")
        >>> [one.model for one in settings.members], str(settings.members[1].folder)
        (['a.safetensors', 'b.safetensors'], 'a-spectrum/member-1')
        >>> run_committee(SpectrumSettings(model="ethanol"))
        Traceback (most recent call last):
        painn_fast.errors.PaiNNFastError: no committee; got: 1 model; expected: two or more
    """
    if not settings.committee:
        raise PaiNNFastError("no committee", got="1 model", expected="two or more")
    with ranks("cpu", PATIENCE) as (group, _):
        if group.first:
            check_output(settings.folder, resume or overwrite)
            prepare_output(settings, {}, overwrite)
        group.wait()
    results = [run(one, resume=resume, overwrite=overwrite) for one in settings.members]
    result = _mean(settings, results)
    with ranks("cpu", PATIENCE) as (group, _):
        if group.first:
            models = [Path(one.model).stem for one in settings.members]
            about = {"model": models[0], "committee": f"mean of {len(models)} models: {', '.join(models)}"}
            trajectory = Trajectory(results[0].folder / DYNAMICS)
            write(result, trajectory, settings, about, read_overlays(settings.overlay, settings.highest))
            Console(file=sys.stdout).print(peak_table(result.infrared_peaks, result.raman_peaks))
        group.wait()
    return result


def _mean(settings: SpectrumSettings, results: Sequence[SpectrumResult]) -> SpectrumResult:
    first = results[0]
    infrared = [one.infrared for one in results if one.infrared is not None]
    raman = [one.raman for one in results if one.raman is not None]
    ir = mean_infrared(infrared) if len(infrared) == len(results) else None
    rm = mean_raman(raman) if len(raman) == len(results) else None
    powers = [one.power for one in results if one.power is not None]
    vdos = mean_power(powers) if len(powers) == len(results) else None
    if ir is None and rm is None and vdos is None:
        kinds = ["+".join(n for n in ("infrared", "raman", "power") if getattr(one, n) is not None) for one in results]
        raise PaiNNFastError(
            "the models of the committee have no spectrum in common", where=settings.folder, got=", ".join(kinds),
            fix="take models with the same heads, or record velocities of all (--velocities-every)",
        )  # fmt: skip
    shift = None if first.harmonic is None else fit_shift(first.harmonic, ir, rm)
    ir_peaks = () if ir is None else tuple(infrared_peaks(ir, first.harmonic, shift))
    rm_peaks = () if rm is None else tuple(raman_peaks(rm, first.harmonic, shift))
    return SpectrumResult(settings.folder, ir, rm, first.harmonic, ir_peaks, rm_peaks, vdos, sticks=first.sticks)


def mean_infrared(spectra: Sequence[InfraredSpectrum]) -> InfraredSpectrum:
    """Mean over models, with the errors of sampling and of the model."""
    mean, error, model_error = mean_and_errors([s.intensity for s in spectra], [s.error for s in spectra])
    return replace(spectra[0], intensity=mean, error=error, model_error=model_error, blocks=None, weights=None)


def mean_raman(spectra: Sequence[RamanSpectrum]) -> RamanSpectrum:
    """Mean over models, with the errors of sampling and of the model, those of the activity."""
    mean, error, model_error = mean_and_errors([s.activity for s in spectra], [s.error for s in spectra])
    first = spectra[0]
    factor = stokes_factor(first.wavenumber, first.temperature, first.laser) / 45.0
    return replace(
        first,
        isotropic=np.mean([s.isotropic for s in spectra], axis=0),
        anisotropic=np.mean([s.anisotropic for s in spectra], axis=0),
        activity=mean,
        error=error,
        stokes=factor * mean,
        stokes_error=factor * error,
        model_error=model_error,
        stokes_model_error=factor * model_error,
        blocks=None,
        weights=None,
    )


def mean_power(spectra: Sequence[PowerSpectrum]) -> PowerSpectrum:
    """Mean over models, of each element too, with the errors of sampling and of the model."""
    mean, error, model_error = mean_and_errors([s.density for s in spectra], [s.error for s in spectra])
    elements = {name: np.mean([s.elements[name] for s in spectra], axis=0) for name in spectra[0].elements}
    return replace(spectra[0], density=mean, error=error, elements=elements, model_error=model_error)


def mean_and_errors(
    values: Sequence[np.ndarray], errors: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of M models [K], its standard error by sampling, and the standard deviation between models beyond that.

    Between models the variance is that of the models and of their sampling; what sampling accounts for is taken off.
    """
    sampling = np.mean(np.square(errors), axis=0)
    between = np.var(values, axis=0, ddof=1)
    return np.mean(values, axis=0), np.sqrt(sampling / len(values)), np.sqrt(np.maximum(between - sampling, 0.0))
