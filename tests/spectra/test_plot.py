import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from painn_fast import PaiNNFastError
from painn_fast.spectra import Analysis, SpectrumSettings, draw, fit_shift, infrared, infrared_peaks, raman, raman_peaks
from painn_fast.spectra.captions import subtitle
from painn_fast.spectra.panels import APART, LABELS, Curve, can_draw, lines, main_peaks, spread
from painn_fast.spectra.peaks import Peak


@pytest.fixture(scope="module")
def spectra(ethanol_modes, normal_coordinates):
    """Infrared and Raman of the harmonic modes of ethanol, thermal."""
    rng = np.random.default_rng(0)
    q = normal_coordinates(0.96 * ethanol_modes.wavenumber, 4, 2.0 * np.arange(2000), 300.0, rng)
    dipole = q @ (np.sqrt(ethanol_modes.intensity / 974.88)[:, None] * np.eye(3)[np.arange(21) % 3])
    alpha = np.einsum("stk,k,ij->stij", q, np.sqrt(ethanol_modes.activity / 45), np.eye(3))
    ir, rm = infrared(dipole, 2.0, 300.0, Analysis(depth=1000.0)), raman(alpha, 2.0, 300.0, Analysis(depth=1000.0))
    shift = fit_shift(ethanol_modes, ir, rm)
    return ir, rm, (infrared_peaks(ir, ethanol_modes, shift), raman_peaks(rm, ethanol_modes, shift))


def test_picture_is_written_with_everything_in_it(spectra, ethanol_modes, tmp_path):
    ir, rm, peaks = spectra
    paths = [tmp_path / "spectrum.png", tmp_path / "spectrum.svg"]
    draw(paths, ir, rm, ethanol_modes, peaks, title="ethanol", subtitle="T-RPMD, 16 beads, 300 K")
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    text = paths[1].read_text()
    ET.fromstring(text)
    for part in (
        "ethanol",
        "T-RPMD, 16 beads, 300 K",
        "harmonic (axis on the right)",
        "± standard error",
        "O-H stretch",
    ):
        assert part in text, part
    assert sorted(tmp_path.iterdir()) == paths


def test_svg_is_the_same_every_time(spectra, tmp_path):
    ir, rm, peaks = spectra
    for name in ("a.svg", "b.svg"):
        draw([tmp_path / name], ir, rm, None, peaks)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize("which", ["infrared", "raman"])
def test_one_spectrum_alone(spectra, ethanol_modes, tmp_path, which):
    ir, rm, _ = spectra
    draw([tmp_path / "one.png"], ir if which == "infrared" else None, rm if which == "raman" else None, ethanol_modes)
    assert (tmp_path / "one.png").stat().st_size > 10_000


def test_drawing_leaves_the_callers_matplotlib_alone(spectra, tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    draw([tmp_path / "a.png"], spectra[0], None, None)
    assert dict(matplotlib.rcParams) == before


def test_labels_keep_apart_and_near_their_peaks(rng):
    for _ in range(200):
        wanted = np.sort(rng.uniform(0, 4000, size=rng.integers(1, LABELS + 1)))
        apart = APART * 4000
        places = spread(wanted, apart, apart, 4000 - apart)
        assert (np.diff(places) >= apart - 1e-9).all()
        assert apart - 1e-9 <= places[0]
        assert places[-1] <= 4000 - apart + 1e-9
    alone = np.array([500.0, 1500.0, 3000.0])
    assert spread(alone, 76.0, 76.0, 3924.0) == pytest.approx(alone)
    assert spread(np.array([1000.0, 1000.0]), 76.0, 76.0, 3924.0) == pytest.approx([962.0, 1038.0])


def test_one_label_for_neighbours_of_one_name():
    def peak(position, height, name):
        return Peak(position, height, 0.0, 1.0, 1.0, position - 1, position + 1, name)

    found = main_peaks(
        [peak(60, 9, "rotation"), peak(1000, 2, "a"), peak(2900, 3, "b"), peak(2950, 5, "b"), peak(3700, 1, "c")]
    )
    assert [(p.position, p.name) for p in found] == [(1000, "a"), (2950, "b"), (3700, "c")]


def test_without_matplotlib_there_is_a_clear_error(spectra, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert not can_draw()
    with pytest.raises(PaiNNFastError, match=r"no matplotlib.*pip install matplotlib"):
        draw([tmp_path / "a.png"], spectra[0], None, None)
    assert not list(tmp_path.iterdir())


def test_nothing_to_draw(tmp_path):
    with pytest.raises(PaiNNFastError, match="nothing to draw"):
        draw([tmp_path / "a.png"], None, None, None)


def panels_of(spectra, ethanol_modes, monkeypatch, tmp_path, **options):
    """Panels of a picture."""
    plot, kept = sys.modules["painn_fast.spectra.plot"], []
    finish = plot.save
    monkeypatch.setattr(plot, "save", lambda *given: kept.append(given[:2]) or finish(*given))
    ir, rm, peaks = spectra
    draw([tmp_path / "a.png"], ir, rm, ethanol_modes, peaks, title="ethanol", subtitle="a\nb\nc\nd", **options)
    return kept[0]


def test_names_take_a_fifth_of_a_panel_at_most(spectra, ethanol_modes, monkeypatch, tmp_path):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure, panels = panels_of(spectra, ethanol_modes, monkeypatch, tmp_path)
    FigureCanvasAgg(figure).draw()
    for panel in panels:
        box = panel.get_window_extent()
        names = [text for text in panel.texts if text.get_rotation() == 90]
        assert names
        boxes = [text.get_window_extent() for text in names]
        assert max(one.y1 for one in boxes) <= box.y1 + 1
        assert max(one.y1 for one in boxes) - min(one.y0 for one in boxes) <= 0.2 * box.height + 1
        lefts, rights = zip(*sorted((one.x0, one.x1) for one in boxes), strict=True)
        assert all(right <= left for right, left in zip(rights, lefts[1:], strict=False)), "names overlap"


@pytest.mark.parametrize("reverse", [False, True])
def test_the_axis_goes_either_way(spectra, ethanol_modes, monkeypatch, tmp_path, reverse):
    _, panels = panels_of(spectra, ethanol_modes, monkeypatch, tmp_path, reverse=reverse)
    assert all(panel.get_xlim() == ((4000.0, 0.0) if reverse else (0.0, 4000.0)) for panel in panels)


def test_what_leaves_the_frame_is_written(spectra, ethanol_modes, tmp_path):
    ir, _, _ = spectra
    tall = replace(ir, intensity=np.where(ir.wavenumber < 60, 20 * ir.intensity.max(), ir.intensity))
    draw([tmp_path / "a.svg"], tall, None, ethanol_modes)
    assert "beyond the frame: below 60" in (tmp_path / "a.svg").read_text().replace("59", "60")
    dipole = np.cos(np.arange(2000) / 5.0)[None, :, None] * np.eye(3)[:1]
    short = infrared(dipole, 2.0, 300.0, Analysis(depth=1000.0, highest=3500.0))
    draw([tmp_path / "b.svg"], short, None, ethanol_modes)
    assert "1 harmonic lines beyond the frame" in (tmp_path / "b.svg").read_text()


def test_of_several_curves_the_one_that_leaves_the_frame_is_named():
    from matplotlib.figure import Figure

    nu = np.arange(0.0, 4000.0, 10.0)
    low = np.exp(-(((nu - 2000.0) / 50.0) ** 2))
    curves = [Curve("low", nu, low, 0 * nu), Curve("tall", nu, np.where(nu < 55, 9.0, low), 0 * nu)]
    panel = Figure().subplots()
    lines(panel, curves, [], 4000.0)
    assert [text.get_text() for text in panel.texts] == ["beyond the frame: tall below 50 cm$^{-1}$, highest 9"]


def test_a_second_maximum_of_one_height_has_its_name_too():
    def peak(position, height):
        return Peak(position, height, 0.0, 1.0, 1.0, position - 1, position + 1, "b")

    assert [p.position for p in main_peaks([peak(2900, 4.8), peak(2950, 5), peak(2990, 4.0)])] == [2900, 2950]


def test_the_default_resolution_is_15_wavenumbers_at_most():
    assert SpectrumSettings(model="ethanol").analysis.resolution <= 15.0
    assert SpectrumSettings(model="ethanol", duration="20 ps").depth == 3000.0


def test_the_default_depth_fits_a_short_duration():
    assert SpectrumSettings(model="ethanol", duration="2 ps").depth == 1500.0
    assert SpectrumSettings(model="ethanol", duration="2 ps", depth="1 ps").depth == 1000.0
    with pytest.raises(PaiNNFastError, match="duration"):
        SpectrumSettings(model="ethanol", duration="two")


def test_the_caption_has_the_test_error_of_the_model(spectra):
    about = dict.fromkeys(("temperature", "sampling", "window", "frames"), "")
    about["MAE, test"] = "energy 1 eV  forces 2 eV/Å"
    text = subtitle(SimpleNamespace(raman=None), SpectrumSettings(model="ethanol"), about)
    assert "errors of the model, test: energy 1 eV, forces 2 eV/Å" in text
