"""Settings of a run: TOML in, validated with units, resolved TOML out.

A quantity is a string with its unit ("0.5 fs"); inside it is a float in our own unit. Unknown keys are errors with a
suggestion. Flags of the command line override the file.
"""

from __future__ import annotations

import math
import platform
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar, get_args

import tomli_w
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from painn_fast.errors import PaiNNFastError, reading
from painn_fast.runtime.atomic import atomic_write
from painn_fast.runtime.packages import installed
from painn_fast.settings_errors import describe
from painn_fast.units import KINDS, format_quantity, parse_quantity

LARGEST_SIZE = 10**9
"""Of a set, and of whatever is counted in it."""
Size = Annotated[int, Field(ge=1, le=LARGEST_SIZE)]
"""A number of things: structures, epochs, ..."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]
LARGEST = 2**20
"""Bytes of a file of settings."""


def _checked(value: Any, kind: str, low: float, high: float, name: str | None) -> float:
    """A quantity in our own unit, from `low` to `high`."""
    try:
        number = parse_quantity(str(value).strip(), kind)
    except PaiNNFastError as error:
        raise ValueError(str(error)) from error
    if not math.isfinite(number):
        raise ValueError(f"not finite: {value!r}")
    unit = next(iter(KINDS[kind]))
    if number <= 0 < low or number < 0 == low:
        raise ValueError(f"{name} {'must be positive' if low else 'cannot be negative'}, got {number:g} {unit}")
    if not low <= number <= high:
        raise ValueError(f"{name} must be from {low:g} to {high:g} {unit}, got {number:g} {unit}")
    return number


def _quantity(kind: str, low: float, high: float) -> Any:
    """One quantity, in our own unit from `low` to `high`."""

    def validate(value: Any, info: ValidationInfo) -> float:
        return _checked(value, kind, low, high, info.field_name)

    return Annotated[
        float,
        BeforeValidator(validate),
        PlainSerializer(lambda value: format_quantity(value, kind), return_type=str),
    ]


def _quantities(kind: str, low: float, high: float) -> Any:
    """One quantity, or several: a list, or one string with commas."""

    def validate(value: Any, info: ValidationInfo) -> float | tuple[float, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, (list, tuple)):
            return _checked(value, kind, low, high, info.field_name)
        numbers = tuple(_checked(part, kind, low, high, info.field_name) for part in parts)
        return numbers[0] if len(numbers) == 1 else numbers

    def write(value: float | tuple[float, ...]) -> str | list[str]:
        if isinstance(value, tuple):
            return [format_quantity(one, kind) for one in value]
        return format_quantity(value, kind)

    return Annotated[float | tuple[float, ...], BeforeValidator(validate), PlainSerializer(write)]


STEP, TEMPERATURE = (1e-6, 100.0), (1e-3, 1e5)
LONGEST = 1e11
"""fs, 0.1 ms: years of computing."""
Time = _quantity("time", 0.0, LONGEST)
"""fs, 0 or more."""
Interval = _quantity("time", STEP[0], LONGEST)
"""fs, more than 0."""
TimeStep = _quantity("time", *STEP)
"""fs."""
TimeSteps = _quantities("time", *STEP)
"""fs, one or several."""
Temperature = _quantity("temperature", *TEMPERATURE)
"""K."""
Temperatures = _quantities("temperature", *TEMPERATURE)
"""K, one or several."""
Force = _quantity("force", 1e-9, 1e6)
"""eV/Å."""
Wavenumber = _quantity("wavenumber", 1e-3, 1e6)
"""cm⁻¹."""
Wavelength = _quantity("wavelength", 1.0, 1e7)
"""nm."""
Duration = _quantity("duration", 0.0, 1e10)
"""Wall-clock seconds, 0 or more."""


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys refused, quantities with units, numbers finite and within limits."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, protected_namespaces=()
    )  # `model_units` is a name of ours: older versions of pydantic warn of it

    def __init__(self, **values: Any) -> None:
        """Validate `values`; raises PaiNNFastError as `parse` does."""
        with _as_our_error(type(self), type(self).__name__):
            super().__init__(**values)

    @model_validator(mode="before")
    @classmethod
    def _truth_values_are_no_numbers(cls, values: Any) -> Any:
        """Refuse true and false for a number, which pydantic takes for 1 and 0."""
        for name, value in values.items() if isinstance(values, dict) else ():
            inner = value.values() if isinstance(value, dict) else value
            entries = list(inner) if isinstance(value, dict | list | tuple) else [value]
            if name in cls.model_fields and any(isinstance(entry, bool) for entry in entries):
                kinds = list(_kinds(cls.model_fields[name].annotation))
                if bool not in kinds and (int in kinds or float in kinds):
                    raise ValueError(f"'{name}': expected a number, got {value}")
        return values

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # settings within settings validate as pydantic does

    @classmethod
    def parse(cls, values: dict[str, Any], where: str = "settings") -> Self:
        """Validate `values`; every problem in one line.

        Raises:
            PaiNNFastError: naming the key, what was got and, for an unknown key, the nearest known one.
        """
        with _as_our_error(cls, where):
            return cls.model_validate(values)


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types of an annotation and of what it contains."""
    yield annotation
    for part in get_args(annotation):
        yield from _kinds(part)


S = TypeVar("S", bound=Settings)


@contextmanager
def _as_our_error(cls: type[BaseModel], where: str) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        raise PaiNNFastError(f"wrong settings: {describe(cls, error)}", where=where) from None
    except (RecursionError, OverflowError) as error:
        raise PaiNNFastError("wrong settings", where=where, got=str(error)) from None


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        if value is None:
            continue
        inner = result.get(key)
        result[key] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return result


def read_toml(path: str | Path) -> dict[str, Any]:
    """Contents of a TOML file.

    Raises:
        PaiNNFastError: if it cannot be read or is not TOML.
    """
    with reading("cannot read settings", path):
        size = Path(path).stat().st_size
        if size > LARGEST:
            raise PaiNNFastError("too large a file of settings", where=path, got=f"{size} bytes", expected=LARGEST)
        content = Path(path).read_bytes()
    try:
        return tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # also of a number with thousands of digits
        raise PaiNNFastError("not a TOML file", where=path, got=str(error)) from None


def load_settings(cls: type[S], path: str | Path | None, overrides: dict[str, Any] | None = None) -> S:
    """Settings from a TOML file (or defaults) with `overrides` on top; overrides that are None are left out.

    The file may be one that `write_resolved` wrote; what it holds beside settings is ignored.
    """
    values = read_toml(path) if path is not None else {}
    values.pop("resolved", None)
    where = [] if path is None else [str(path)]
    if not where or any(value is not None for value in (overrides or {}).values()):
        where.append("flags")
    return cls.parse(merged(values, overrides or {}), where=" and ".join(where))


def versions() -> dict[str, str]:
    """Versions of what decides the numbers of a run."""
    packages = {name: installed(name) or "not installed" for name in ("painn-fast", "torch", "numpy", "ase", "numba")}
    return {"python": platform.python_version(), "platform": platform.platform(), **packages}


def write_resolved(settings: Settings, path: str | Path, extra: dict[str, Any] | None = None) -> None:
    """Write what a run really used: every key with its unit, versions, and `extra`, such as the SHA-256 of a model."""
    values = settings.model_dump(mode="json", exclude_none=True)
    document = {**values, "resolved": {**versions(), **(extra or {})}}
    with atomic_write(path) as temporary:
        temporary.write_bytes(tomli_w.dumps(document).encode())
