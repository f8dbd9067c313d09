"""An extension of griffe: `Example:` in a docstring is a section of doctests.

Google's style allows both words. Griffe knows `Examples:` alone and renders the other as Markdown, `>>>` as quotation.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

TITLE = re.compile(r"^( *)Example:$", re.MULTILINE)


class DoctestSections(Extension):
    """Reads `Example:` as `Examples:`."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Called for each object as it is read from the source."""
        if obj.docstring:
            obj.docstring.value = TITLE.sub(r"\1Examples:", obj.docstring.value)
