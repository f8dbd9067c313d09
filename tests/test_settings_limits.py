"""No number in any settings may be absurd: every numeric field of every class is tried."""

import inspect
import typing

import pytest
from pydantic import BeforeValidator

from painn_fast.errors import PaiNNFastError
from painn_fast.md import settings as md_settings
from painn_fast.nn import config
from painn_fast.settings import Settings
from painn_fast.spectra import settings as spectra_settings
from painn_fast.train import settings as train_settings
from painn_fast.units import KINDS

MODULES = (config, md_settings, spectra_settings, train_settings)  # not bench.results: records, not wishes
NEEDED = {
    "ScalarHead": {"name": "gap", "unit": "eV"},
    "DataFile": {"file": "data.npz"},
    "TrainSettings": {"data": [{"file": "data.npz"}]},
}
ABSURD = {"nan": "nan", "inf": "inf", "-inf": "-inf", "-1": "-1", "1e30": "1e30", "10^12": "1000000000000"}
ACCEPTED = {
    ("RepresentationConfig", "gaussian_start", "-1"): "Gaussians may begin below zero distance",
    **{
        (name, "seed", "10^12"): "any number below 2^63 is a seed"
        for name in ("MDSettings", "SpectrumSettings", "SplitSizes", "TrainSettings")
    },
}


def settings_classes():
    """All of them, with those that they are made of."""
    found = {
        entry.__name__: entry
        for module in MODULES
        for entry in vars(module).values()
        if inspect.isclass(entry) and issubclass(entry, Settings) and entry is not Settings
    }
    return {name: entry for name, entry in found.items() if not name.startswith("_")}


def leaves(annotation, metadata=()):
    """The numbers in an annotation: (type, unit or None, how a value is wrapped)."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    kinds = [
        inspect.getclosurevars(one.func).nonlocals.get("kind") for one in metadata if isinstance(one, BeforeValidator)
    ]
    if kinds and kinds[0]:
        return [(float, next(iter(KINDS[kinds[0]])), lambda value: value)]
    if origin is typing.Annotated:
        return leaves(arguments[0], annotation.__metadata__)
    if annotation in (int, float):
        return [(annotation, None, lambda value: value)]
    if origin is tuple:
        return [(kind, unit, lambda value, w=wrap: [w(value)]) for kind, unit, wrap in leaves(arguments[0])]
    if origin is dict:
        return [(kind, unit, lambda value, w=wrap: {"energy": w(value)}) for kind, unit, wrap in leaves(arguments[1])]
    return [leaf for argument in arguments for leaf in (leaves(argument) if origin is not typing.Literal else [])]


def cases():
    for name, cls in settings_classes().items():
        for field, about in cls.model_fields.items():
            for kind, unit, wrap in leaves(about.annotation, about.metadata):
                for absurd, text in ABSURD.items():
                    if unit is not None:
                        value = f"{text} {unit}"
                    elif kind is int and absurd in ("-1", "1e30", "10^12"):
                        value = int(float(text))
                    else:
                        value = float(text)
                    yield pytest.param(cls, field, absurd, wrap(value), id=f"{name}.{field}={absurd}{unit or ''}")


CASES = list(cases())


def test_the_fields_that_matter_are_among_them():
    tried = {(case.values[0].__name__, case.values[1]) for case in CASES}
    assert {
        ("RepresentationConfig", "epsilon"),
        ("RepresentationConfig", "cutoff"),
        ("EnergyHead", "hidden"),
        ("PotentialConfig", "elements"),
        ("MDSettings", "time_step"),
        ("MDSettings", "seed"),
        ("MDSettings", "positions_every"),
        ("SpectrumSettings", "highest"),
        ("TrainSettings", "loss"),
        ("TrainSettings", "max_time"),
        ("SplitSizes", "train"),
    } <= tried
    assert len(tried) > 60


@pytest.mark.parametrize(("cls", "field", "absurd", "value"), CASES)
def test_an_absurd_number_is_refused_with_its_key(cls, field, absurd, value):
    values = {**NEEDED.get(cls.__name__, {}), field: value}
    if (cls.__name__, field, absurd) in ACCEPTED:
        cls.parse(values)
        return
    with pytest.raises(PaiNNFastError, match=field) as caught:
        cls.parse(values)
    assert len(str(caught.value)) < 600


SENSIBLE = [
    (config.RepresentationConfig, {"epsilon": 1e-8}),
    (config.RepresentationConfig, {"epsilon": 1e-2, "cutoff": 20.0, "n_features": 1024, "n_layers": 12, "n_rbf": 300}),
    (config.RepresentationConfig, {"cutoff": 0.5}),  # nm
    (config.ElectronicConfig, {"n_residual": 0}),
    (config.EnergyHead, {"hidden": []}),
    (md_settings.MDSettings, {"beads": 256, "trajectories": 100, "ensemble": "pile-l"}),
    (md_settings.MDSettings, {"temperature": "1 K", "time_step": "0.01 fs", "duration": "1 ns"}),
    (md_settings.MDSettings, {"temperature": "5000 K", "checkpoint": "0 s", "max_time": "720 h"}),
    (spectra_settings.SpectrumSettings, {"laser": "1064 nm", "highest": "200 cm-1"}),
    (train_settings.TrainSettings, {"gradient_clip": 1e10, "weight_decay": 0, "batch_size": 4096, "max_epochs": 10**6}),
    (train_settings.TrainSettings, {"loss": {"energy": 0, "forces": 1e6}, "learning_rate": 1e-2}),
]


@pytest.mark.parametrize(("cls", "values"), SENSIBLE)
def test_what_is_sensible_is_allowed(cls, values):
    cls.parse({**NEEDED.get(cls.__name__, {}), **values})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"duration": "1e10 fs", "time_step": "1e-3 fs"}, "equilibration and duration are 1e[+]13 steps of 0.001 fs"),
        ({"beads": 4096, "trajectories": 10**6, "ensemble": "rpmd"}, "too many for one run"),
        ({"stream": "1e9 fs", "dipole_every": "1 fs"}, "stream of 1e[+]09 fs has more than"),
        ({"beads": 10**500}, "'beads': expected 4096 or less"),
    ],
)
def test_what_is_absurd_together_is_refused(changes, message):
    with pytest.raises(PaiNNFastError, match=message):
        md_settings.MDSettings.parse(changes)
