"""Settings from TOML and flags."""

import pytest

from painn_fast.errors import PaiNNFastError
from painn_fast.settings import Settings, Temperature, Time, load_settings, read_toml, write_resolved


class Inner(Settings):
    friction: Time = "100 fs"


class Example(Settings):
    name: str
    time_step: Time = "0.5 fs"
    temperature: Temperature | None = None
    inner: Inner = Inner()


@pytest.fixture
def toml(tmp_path):
    def write(text):
        path = tmp_path / "settings.toml"
        path.write_text(text)
        return path

    return write


def test_quantities_become_our_units(toml):
    settings = load_settings(Example, toml('name = "x"\ntime_step = "0.001 ps"\n[inner]\nfriction = "1 ps"\n'))
    assert (settings.time_step, settings.inner.friction, settings.temperature) == (1.0, 1000.0, None)


def test_flags_override_the_file_and_none_does_not(toml):
    path = toml('name = "x"\ntime_step = "1 fs"\n[inner]\nfriction = "2 fs"\n')
    settings = load_settings(Example, path, {"time_step": None, "name": "y", "inner": {"friction": "3 fs"}})
    assert (settings.name, settings.time_step, settings.inner.friction) == ("y", 1.0, 3.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('nme = "x"', r"unknown key 'nme', did you mean 'name'\?.*|missing key 'name'"),
        ('name = "x"\nzzz = 1', "unknown key 'zzz'"),
        ('name = "x"\n[inner]\nfrction = "1 fs"', r"unknown key 'inner.frction', did you mean 'friction'\?"),
        ('name = "x"\ntime_step = 0.5', "'time_step': missing unit of time"),
        ('name = "x"\ntime_step = "1e999 fs"', "'time_step': not finite"),
        ('name = 1\ntemperature = "300 fs"', "'name'.*'temperature': unknown unit"),
        ("name =", "not a TOML file"),
    ],
)
def test_errors_are_one_line_with_the_file(toml, text, message):
    path = toml(text)
    with pytest.raises(PaiNNFastError, match=message) as caught:
        load_settings(Example, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(PaiNNFastError, match=r"cannot read settings.*nothing\.toml"):
        load_settings(Example, tmp_path / "nothing.toml")


def test_resolved_settings_can_be_read_again(tmp_path):
    settings = Example.parse({"name": "x", "time_step": "0.25 fs"})
    path = tmp_path / "resolved.toml"
    write_resolved(settings, path, {"model_sha256": "abc"})
    values = read_toml(path)
    resolved = values.pop("resolved")
    assert resolved["model_sha256"] == "abc"
    assert {"python", "torch", "painn-fast"} <= set(resolved)
    assert Example.parse(values) == settings


def test_settings_do_not_change():
    with pytest.raises(Exception, match="frozen"):
        Example.parse({"name": "x"}).name = "y"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "x", "time_step": "nan fs"}, "'time_step': not a time"),
        ({"name": "x", "tme_step": "1 fs"}, "unknown key 'tme_step', did you mean 'time_step'"),
        ({}, "missing key 'name'"),
        ({"name": "x", "inner": {"friction": "inf fs"}}, "'inner.friction': not a time"),
    ],
)
def test_settings_made_in_python_are_refused_in_the_same_words(values, message):
    with pytest.raises(PaiNNFastError, match=f"wrong settings: {message}.*where: Example"):
        Example(**values)


def test_wrong_settings_within_settings_are_named_by_their_whole_key():
    with pytest.raises(PaiNNFastError, match=r"missing key 'name'; 'inner\.friction'.*where: a file"):
        Example.parse({"inner": {"friction": "-1 fs"}}, where="a file")
