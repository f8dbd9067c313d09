"""Settings from TOML and flags."""

import re

import pytest

from painn_fast.errors import PaiNNFastError
from painn_fast.md import MDSettings
from painn_fast.settings import Settings, Temperature, Time, load_settings, read_toml, write_resolved
from painn_fast.train import TrainSettings


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
def test_mistakes_are_reported_in_one_line_with_the_file(toml, text, message):
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


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"beads": 0}, "'beads': expected 1 or more, got 0;"),
        ({"seed": "x"}, "'seed': expected a whole number or a list, got 'x';"),
        ({"seed": [1, "x"]}, "'seed.1': expected a whole number, got 'x';"),
        ({"model": ["a"] * 1000}, "'model': expected a text, got ['a', 'a', "),
        ({"remove_rotation": "never"}, "'remove_rotation': expected true or false, got 'never';"),
        ({"remove_com_motion": "rotation"}, "'remove_com_motion': expected a list, got 'rotation';"),
        ({"dtype": "float8"}, "'dtype': expected 'float32' or 'float64', got 'float8';"),
        ({"model": "a", "members": ["b", "c"]}, "wrong settings: either model or members;"),
        ({"time_step": "1"}, "missing unit of time; got: '1'; expected: fs | ps | ns | as; fix: write \"1 fs\";"),
    ],
)
def test_wrong_settings_are_described_in_words(values, text):
    with pytest.raises(PaiNNFastError) as caught:
        MDSettings.parse(values, where="flags")
    assert text in str(caught.value)
    assert len(str(caught.value)) < 200
    assert not re.search(r"Input should|constrained|tuple\[|type=", str(caught.value))


@pytest.mark.parametrize(
    ("heads", "text"),
    [
        ([{"type": "energy", "unit": "eV"}], "unknown key 'heads.0.unit';"),
        ([{"type": "scalar", "name": "gap", "unti": "eV"}], "unknown key 'heads.0.unti', did you mean 'unit'?"),
        ([{"type": "enery"}], "'heads.0': expected a type of 'energy', 'dipole', "),
        ([{}], "'heads.0': expected a key 'type', got {};"),
        ([{"type": "scalar", "name": 3, "unit": "eV"}], "'heads.0.name': expected a text, got 3;"),
    ],
)
def test_wrong_heads_are_described_by_the_keys_that_they_have(heads, text):
    with pytest.raises(PaiNNFastError) as caught:
        TrainSettings.parse({"data": [{"file": "x.npz"}], "heads": heads})
    assert text in str(caught.value)


def test_where_names_what_the_settings_came_from(toml):
    path = toml('name = "x"\ntime_step = 1')
    for source, flags, where in (
        (path, {"name": None}, str(path)),
        (path, {"name": "y"}, f"{path} and flags"),
        (None, {"time_step": "1"}, "flags"),
    ):
        with pytest.raises(PaiNNFastError) as caught:
            load_settings(Example, source, flags)
        assert caught.value.where == where


def test_wrong_settings_within_settings_are_named_by_their_whole_key():
    with pytest.raises(PaiNNFastError, match=r"missing key 'name'; 'inner\.friction'.*where: a file"):
        Example.parse({"inner": {"friction": "-1 fs"}}, where="a file")


@pytest.mark.parametrize("values", [{"early_stop": True}, {"batch_size": True}, {"loss": {"energy": True}}])
def test_true_is_no_number(values):
    (name,) = values
    with pytest.raises(PaiNNFastError, match=f"'{name}': expected a number, got .*True"):
        TrainSettings.parse({"data": [{"file": "a.npz"}]} | values)
    assert TrainSettings.parse({"data": [{"file": "a.npz"}], "tensorboard": True, "early_stop": 1}).tensorboard


@pytest.mark.parametrize("name", ["", "../up", "a/b", "a\\b", ".hidden", "..", "checkpoint"])
def test_a_model_has_the_name_of_a_file(name):
    with pytest.raises(PaiNNFastError, match="'name'"):
        TrainSettings.parse({"data": [{"file": "a.npz"}], "name": name})
    assert TrainSettings.parse({"data": [{"file": "a.npz"}], "name": "ä b-2.1"}).name == "ä b-2.1"
