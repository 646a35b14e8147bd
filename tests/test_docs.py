"""The words around the code: what they quote is what runs, and what they link to is there."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import pytest

import airflow_provider_hsml
from airflow_provider_hsml.hopsworks import Gate, Verification
from airflow_provider_hsml.hopsworks.access import EXTRA_KEYS
from airflow_provider_hsml.hopsworks.settings import SETTINGS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
QUOTE = re.compile(r"<!-- quoted: (?P<path>\S+) (?P<marker>\w+) -->\n```python\n(?P<text>.*?)```", re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)(?P<path>[^)#\s]+)")
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)


def marked(path: Path, marker: str) -> str:
    """Give what stands between the markers of an example, without the markers of others and their indentation."""
    text = path.read_text()
    inner = re.search(rf"^( *)# \[START {marker}\]\n(.*?)^ *# \[END {marker}\]", text, re.DOTALL | re.MULTILINE)
    assert inner, f"{path} has no markers START and END of {marker}"
    lines = [line.removeprefix(inner[1]) for line in inner[2].splitlines() if not re.search(r"# \[(START|END) ", line)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_quotes_are_what_runs(page: Path) -> None:
    for quote in QUOTE.finditer(page.read_text()):
        assert quote["text"] == marked(ROOT / quote["path"], quote["marker"])


def test_the_readme_quotes_every_example() -> None:
    quoted = {quote["path"] for quote in QUOTE.finditer((ROOT / "README.md").read_text())}

    assert quoted == {str(path.relative_to(ROOT)) for path in (ROOT / "example_dags").glob("*.py")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.finditer(page.read_text()):
        assert (page.parent / link["path"]).exists(), f"{page.name} links to {link['path']}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_is_python(page: Path) -> None:
    for code in CODE.findall(page.read_text()):
        ast.parse(code)


def test_the_readme_names_all_that_there_is() -> None:
    readme = (ROOT / "README.md").read_text()
    pages = readme + (ROOT / "docs" / "deployments.md").read_text()

    for name in airflow_provider_hsml.__all__:
        assert name in pages, name
    for key in EXTRA_KEYS:
        assert f"`{key}`" in readme, key


def test_the_first_screen_holds_the_commands_and_a_dag() -> None:
    """One sentence, the two commands, and working lines of a DAG within forty lines."""
    first = "\n".join((ROOT / "README.md").read_text().splitlines()[:40])

    assert "make demo" in first
    assert "make test" in first
    assert len(CODE.findall(first)) == 1


def test_the_table_of_settings_is_that_of_the_code() -> None:
    rows = re.findall(
        r"^\| `([a-z_.]+)` \|.*\| ([^|]*) \|$", (ROOT / "docs" / "deployments.md").read_text(), re.MULTILINE
    )
    told = {name: set(re.findall(r"`(\w+)`", wire)) for name, wire in rows}
    shared = ("transformer.resources.", "transformer.scaling.")

    for setting in SETTINGS.values():
        if setting.field.startswith("spec.") and not setting.name.startswith(shared):
            assert told.pop(setting.name) == {path[0] for path in setting.paths}, setting.name
    assert set(told) == {"resources.instances", "inference_logger.partitions", "inference_logger.replicas", "extra"}


@pytest.mark.parametrize("given", [Gate, Verification])
def test_every_field_is_explained(given: type[Gate | Verification]) -> None:
    page = (ROOT / "docs" / "promotion.md").read_text()
    table = page[page.index(f"| field of `{given.__name__}` |") :].partition("\n\n")[0]
    explained = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])}

    assert explained - {given.__name__} == {field.name for field in dataclasses.fields(given)}
