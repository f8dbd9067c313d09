"""Spectra of several models: their mean, with the errors of sampling and of the model apart."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import painn_fast as pf
from painn_fast.io import save_model
from painn_fast.io.find import MODELS
from painn_fast.spectra import SpectrumSettings, run_committee
from painn_fast.spectra.committee import _mean, mean_and_errors

SHORT = {
    "model": "ethanol", "method": "classical", "trajectories": 3, "time_step": "1 fs", "equilibration": "0 fs",
    "duration": "80 fs", "depth": "40 fs", "conformers": "one",
}  # fmt: skip


def columns(path):
    with open(path, encoding="utf-8") as file:
        rows = list(csv.reader(line for line in file if not line.startswith("#")))
    return dict(zip(rows[0], np.array(rows[1:], dtype=float).T, strict=True))


def test_errors_of_sampling_and_of_the_model():
    """1,000 frequencies, 8 models that differ by 3, each sampled with an error of 2."""
    rng = np.random.default_rng(0)
    truth = rng.normal(0.0, 3.0, (8, 1000))
    mean, sampling, model = mean_and_errors(truth + rng.normal(0.0, 2.0, truth.shape), np.full(truth.shape, 2.0))
    np.testing.assert_allclose(sampling, 2.0 / np.sqrt(8.0))
    assert np.sqrt(np.mean(model**2)) == pytest.approx(3.0, rel=0.05)
    assert np.std(mean) == pytest.approx(np.sqrt((9.0 + 4.0) / 8.0), rel=0.1)
    alike = mean_and_errors(rng.normal(0.0, 2.0, (8, 1000)), np.full((8, 1000), 2.0))[2]
    assert np.sqrt(np.mean(alike**2)) < 1.2


def test_a_committee_whose_dipoles_differ(tmp_path):
    """The tables hold the mean of the members' own, and the spread between them that sampling does not explain."""
    other = pf.load("ethanol")
    with torch.no_grad():
        for name, weights in other.named_parameters():
            if name.startswith("heads.dipole") and name.endswith("channel_mix.weight"):
                weights.mul_(1.3)
    scaled = tmp_path / "other.safetensors"
    save_model(other, scaled)
    settings = SpectrumSettings(**SHORT, committee=(str(scaled),), output=str(tmp_path / "out"))
    result = run_committee(settings)
    each = [columns(tmp_path / "out" / f"member-{k}" / "infrared.csv") for k in range(2)]
    own = columns(tmp_path / "out" / "infrared.csv")
    name, error = "absorption / (km/mol per cm-1)", "standard error / (km/mol per cm-1)"
    np.testing.assert_allclose(own[name], (each[0][name] + each[1][name]) / 2, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(own[error], np.hypot(each[0][error], each[1][error]) / 2, rtol=1e-6, atol=1e-9)
    between = (each[0][name] - each[1][name]) ** 2 / 2 - (each[0][error] ** 2 + each[1][error] ** 2) / 2
    expected = np.sqrt(np.maximum(between, 0.0))
    assert expected.max() > 0.05 * own[name].max(), "the models must differ by more than their sampling"
    np.testing.assert_allclose(own["model error / (km/mol per cm-1)"], expected, rtol=1e-4, atol=1e-7)
    assert result.raman.stokes_model_error.shape == result.raman.stokes.shape
    picture = (tmp_path / "out" / "spectrum.svg").read_text()
    assert "model error (between models)" in picture
    assert "standard error of sampling" in picture
    assert "mean of 2 models" in picture
    assert "# committee: mean of 2 models: ethanol, other" in (tmp_path / "out" / "infrared.csv").read_text()


def test_a_committee_with_methods_is_refused():
    with pytest.raises(pf.PaiNNFastError, match="a committee is of models that run, by one method"):
        SpectrumSettings(model="ethanol", committee=("a.safetensors",), methods=("classical", "t-rpmd"))


def test_power_spectra_of_a_committee_without_dipoles(tmp_path):
    """Energies 2 % larger: the mean of both tables, of each element too."""
    whole = pf.load("ethanol")
    plain = pf.nn.Potential(whole.config.model_copy(update={"heads": whole.config.heads[:1]}))
    plain.load_state_dict({name: whole.state_dict()[name] for name in plain.state_dict()})
    save_model(plain, tmp_path / "plain.safetensors")
    with torch.no_grad():
        plain.get_parameter("heads.energy.network.2.weight").mul_(1.02)
    save_model(plain, tmp_path / "other.safetensors")
    chosen = {"model": str(tmp_path / "plain.safetensors"), "committee": (str(tmp_path / "other.safetensors"),)}
    start = str(MODELS / "ethanol.xyz")
    output = tmp_path / "out"
    result = run_committee(
        SpectrumSettings(**SHORT | chosen, structure=start, velocities_every="2 fs", output=str(output))
    )
    assert result.infrared is None
    each = [columns(output / f"member-{k}" / "power.csv") for k in range(2)]
    own = columns(output / "power.csv")
    for name in ("power spectrum", "H", "C", "O"):
        title = f"{name} / (modes per cm-1)"
        np.testing.assert_allclose(own[title], (each[0][title] + each[1][title]) / 2, rtol=1e-5, atol=1e-9)
    assert own["model error / (modes per cm-1)"].shape == own["wavenumber / cm-1"].shape
    assert result.power.elements["H"].max() > 0
    assert "power spectrum" in (output / "spectrum.svg").read_text()


def test_models_without_a_spectrum_in_common_are_named(tmp_path):
    with pytest.raises(pf.PaiNNFastError, match=r"no spectrum in common.*got: infrared, raman"):
        _mean(
            SpectrumSettings(model="a", committee=("b",), structure="x", output=str(tmp_path)),
            [SimpleNamespace(infrared=1, raman=None, power=None), SimpleNamespace(infrared=None, raman=1, power=None)],
        )
