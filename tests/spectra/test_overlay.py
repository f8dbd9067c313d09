import numpy as np
import pytest

from painn_fast import PaiNNFastError
from painn_fast.spectra import Analysis, draw, infrared, read_overlay, table
from painn_fast.spectra.overlay import read_overlays

ROWS = ["400,1.5", "300,0.5", "500,2", "600,1", "700,0.25"]


@pytest.fixture
def write(tmp_path):
    def make(text, name="gas phase.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return make


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(ROWS),
        "# from a spectrometer\n\nwavenumber,intensity\n" + "\n".join(ROWS),
        "\ufeffcm-1;A\n" + "\n".join(ROWS).replace(",", ";"),
        "\n".join(ROWS).replace(",", "\t") + "\n",
        "x  y\n" + "\n".join(row.replace(",", "   ") for row in ROWS),
        "nu,I,error\n" + "\n".join(f"{row},0.1" for row in ROWS) + "\n800,,\n",
    ],
)
def test_tables_of_two_columns_are_read(write, text):
    overlay = read_overlay(write(text))
    assert overlay.label == "gas phase"
    assert overlay.spectrum == "infrared"
    assert overlay.wavenumber.tolist() == [300, 400, 500, 600, 700]
    assert overlay.intensity.tolist() == [0.5, 1.5, 2, 1, 0.25]


def test_which_panel_it_belongs_to(write):
    plain, named = "\n".join(ROWS), "Raman shift,counts\n" + "\n".join(ROWS)
    assert read_overlay(write(named)).spectrum == "Raman"
    assert read_overlay(write(plain, "my_raman.csv")).spectrum == "Raman"
    assert read_overlay("raman=" + write(plain)).spectrum == "Raman"
    assert read_overlay("infrared=" + write(named)).spectrum == "infrared"
    assert read_overlay(write(plain, "a=b.csv")).label == "a=b"


def test_our_own_tables_can_be_laid_over(tmp_path, rng):
    spectrum = infrared(rng.normal(size=(3, 600, 3)), 2.0, 300.0, Analysis(depth=500.0))
    table.write_infrared(tmp_path / "infrared.csv", spectrum, {"method": "x"})
    overlay = read_overlay(str(tmp_path / "infrared.csv"))
    assert overlay.intensity == pytest.approx(spectrum.intensity, rel=1e-6)


def test_overlay_is_drawn_as_high_as_the_spectrum_and_says_so(write, tmp_path, normal_coordinates, rng):
    q = normal_coordinates([500.0], 2, 2.0 * np.arange(2000), 300.0, rng)
    spectrum = infrared(q * np.array([0.1, 0, 0]), 2.0, 300.0, Analysis(depth=500.0))
    overlay = read_overlay(write("\n".join(ROWS)))
    draw([tmp_path / "a.svg"], spectrum, None, None, overlays=[overlay])
    assert "gas phase (scaled)" in (tmp_path / "a.svg").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"too few points.*gas phase\.csv; got: 0; expected: 5 rows"),
        ("wavenumber,intensity\n400,1\n", "too few points.*got: 1"),
        ("400\n500\n", r"one column in an overlay; where: .*line 1; got: '400'"),
        ("a,b\n400,1\n500,x\n", r"not a number in an overlay; where: .*line 3; got: 'x'"),
        ("400,1\nend,of file\n", r"not a number.*line 2; got: 'end'"),
        ("400,nan\n", r"not a number.*line 1; got: 'nan'"),
        (
            "cm-1;A\n400,5;0,25\n401,0;0,5\n",
            r"not a number.*line 2; got: '400,5'; expected: .* with a point for decimals",
        ),
        ("400,5\t0,25\n401,0\t0,5\n", r"not a number.*line 2; got: '401,0'"),
    ],
)
def test_files_that_are_no_spectrum(write, text, message):
    with pytest.raises(PaiNNFastError, match=message):
        read_overlay(write(text))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(PaiNNFastError, match=r"cannot read an overlay; where: .*none\.csv; got: No such file"):
        read_overlay(str(tmp_path / "none.csv"))
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(PaiNNFastError, match="not text"):
        read_overlay(str(tmp_path / "picture.csv"))


def test_an_overlay_beyond_the_picture(write):
    with pytest.raises(PaiNNFastError, match=r"nothing to show.*from 300 to 700 cm-1.*between 150 and 250 cm-1"):
        read_overlays([write("\n".join(ROWS))], 250.0)
