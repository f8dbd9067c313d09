"""`pytest.warns` for warnings of ours, under which others keep their filters: some of ASE's are ignored by module."""

import re
import warnings
from contextlib import contextmanager


@contextmanager
def warns(match):
    """One warning, whose text the pattern `match` is in."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", category=UserWarning)
        yield
    (text,) = [str(warning.message) for warning in caught]
    assert re.search(match, text), text
