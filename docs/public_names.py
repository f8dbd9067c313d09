"""A hook of MkDocs: a public name without an entry on the page of its package is a warning."""

from __future__ import annotations

import ast
import logging
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page

log = logging.getLogger("mkdocs.plugins.public_names")


def exported(module: str, root: Path) -> list[str]:
    """`__all__` of a module, from its source."""
    base = root.joinpath(*module.split("."))
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(ast.unparse(target) == "__all__" for target in node.targets):
            return list(ast.literal_eval(node.value))
    return []


def on_page_content(html: str, *, page: Page, config: MkDocsConfig, **_: Any) -> None:
    """Compare anchors with `__all__` of the modules that the page documents."""
    root = Path(config.config_file_path).parent
    for module in re.findall(r"^::: (\S+)$", page.markdown or "", flags=re.MULTILINE):
        for name in exported(module, root):
            if f'id="{module}.{name}"' not in html:
                log.warning("%s: no entry for %s.%s", page.file.src_uri, module, name)
