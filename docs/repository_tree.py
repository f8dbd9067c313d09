"""A hook of MkDocs: the site has the tree of the repository, so that relative links need no rewriting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PAGES = ("*.md", "docs/**/*.md", "kernels/**/README.md", "bench/**/*.md", "painn_fast/models/*.md")
LINKED = ("CITATION.cff", "docs/*.png", "docs/*.css", "bench/results/**/*.json")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Pages and what they link to, by their paths in the repository, instead of the contents of docs/ alone."""
    root = Path(config.config_file_path).parent
    for file in list(files):
        if Path(file.abs_src_path or "").is_relative_to(config.docs_dir):
            files.remove(file)
    for path in sorted({path for pattern in (*PAGES, *LINKED) for path in root.glob(pattern)}):
        name = path.relative_to(root).as_posix()
        files.append(File(name, str(root), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> None:
    """The first page has no pages beside it to choose from."""
    if page.is_homepage:
        page.meta["hide"] = ["navigation"]
