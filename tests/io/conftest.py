"""Units of SchNetPack's files, which take those of the heads that they have."""

import pytest

import painn_fast as pf
from painn_fast.errors import SuperfluousUnits


@pytest.fixture
def needed():
    """Those of `units` that a file needs."""

    def needed_units(path, units, **options):
        try:
            pf.load(path, **units, **options)
        except SuperfluousUnits as error:
            return {name: unit for name, unit in units.items() if name.removesuffix("_unit") not in error.names}
        return units

    return needed_units
