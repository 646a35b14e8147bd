"""
MkDocs hooks for `make docs`: add the pages and example DAGs that lie outside of this folder to the site.

Their links are written for readers of the repository. They are rewritten for the site; a broken link fails the build.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "SECURITY.md": "SECURITY.md",
}
MARKER = re.compile(r"^ *# \[(START|END) \w+\]\n", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)(?P<path>[\w./-]+)")


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages of the repository, and one page for each example DAG."""
    for path, name in PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / path).read_text()))
    for example in (ROOT / "example_dags").glob("*.py"):
        shown = f"# {example.stem}\n\n```python\n{MARKER.sub('', example.read_text())}```\n"
        files.append(File.generated(config, f"example_dags/{example.stem}.md", content=shown))


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Rewrite the links of a page to the paths of the site."""
    here = page.file.src_uri
    if here.startswith("example_dags/"):
        return markdown
    source = next((path for path, name in PAGES.items() if name == here), f"docs/{here}")

    def lead(link: re.Match[str]) -> str:
        target = _on_the_site(posixpath.normpath(posixpath.join(posixpath.dirname(source), link["path"])))
        return f"]({posixpath.relpath(target, posixpath.dirname(here) or '.')}"

    return LINK.sub(lead, markdown)


def _on_the_site(path: str) -> str:
    """Return the path of a file of the repository on the site."""
    if path.startswith("example_dags/"):
        return f"{path.removesuffix('.py')}.md"
    return PAGES.get(path, path.removeprefix("docs/"))
