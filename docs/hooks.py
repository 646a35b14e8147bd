"""
MkDocs hooks for `make docs`: add the pages and example DAGs that lie outside of this folder to the site.

Their links are written for readers of the repository. They are rewritten for the site; a broken link fails the build.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}
MARKER = re.compile(r"^ *# \[(START|END) \w+\]\n", re.MULTILINE)
LINK = re.compile(r"\]\((?:\.\./|docs/)?(?P<path>[\w./-]+)")


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages of the repository, and one page for each example DAG."""
    for path, name in PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / path).read_text()))
    for example in (ROOT / "example_dags").glob("*.py"):
        shown = f"# {example.stem}\n\n```python\n{MARKER.sub('', example.read_text())}```\n"
        files.append(File.generated(config, f"example_dags/{example.stem}.md", content=shown))


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Rewrite the links of a page to the paths of the site."""
    return markdown if page.file.src_uri.startswith("example_dags/") else LINK.sub(_on_the_site, markdown)


def _on_the_site(link: re.Match[str]) -> str:
    path = link["path"]
    if path.startswith("example_dags/"):
        path = f"{path.removesuffix('.py')}.md"
    return f"]({PAGES.get(path, path)}"
