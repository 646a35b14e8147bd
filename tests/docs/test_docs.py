"""The words around the code: what they quote is what runs, and what they link to is there."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import textwrap
from pathlib import Path
from typing import Any

import pytest
from airflow.cli.cli_parser import get_parser

import airflow_provider_hsml
from airflow_provider_hsml import operators, sensors
from airflow_provider_hsml.hooks import HsmlHook
from airflow_provider_hsml.hooks.promotion_driver import PromotionDriverMixin
from airflow_provider_hsml.hopsworks import (
    Batcher,
    DeploymentSpec,
    Gate,
    InferenceLogger,
    Resources,
    Scaling,
    TransformerSpec,
    Verification,
)
from airflow_provider_hsml.hopsworks.domain.access import EXTRA_KEYS
from airflow_provider_hsml.hopsworks.domain.measurement import MeasuredGate
from airflow_provider_hsml.hopsworks.domain.settings import SETTINGS
from airflow_provider_hsml.operators.base import HsmlOperator, WaitingOperator
from airflow_provider_hsml.operators.promotion import _PromotingOperator
from airflow_provider_hsml.provider_info import CONNECTION_FIELDS
from airflow_provider_hsml.sensors.base import HsmlSensor
from airflow_provider_hsml.triggers import ModelVersionTrigger
from airflow_provider_hsml.triggers.base import HsmlTrigger

ROOT = Path(__file__).parents[2]
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


def test_the_page_of_examples_quotes_each_of_them() -> None:
    quoted = {quote["path"] for quote in QUOTE.finditer((ROOT / "docs" / "guides" / "examples.md").read_text())}

    assert quoted == {str(path.relative_to(ROOT)) for path in (ROOT / "example_dags").glob("*.py")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.finditer(page.read_text()):
        assert (page.parent / link["path"]).exists(), f"{page.name} links to {link['path']}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_is_python(page: Path) -> None:
    for code in CODE.findall(page.read_text()):
        ast.parse(code)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_those_of_airflow(page: Path) -> None:
    """Each line that calls ``airflow`` is a whole command, with the arguments that Airflow's own parser takes."""
    parser = get_parser()
    text = page.read_text().replace("\\\n", "").replace(",\n", ",")
    for command in re.findall(r"^(?: {4})?airflow (\w.*)$", text, re.MULTILINE):
        assert parser.parse_args(shlex.split(command, comments=True)).func


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.name)
def test_lines_and_cells_are_short(page: Path) -> None:
    """A line of a table is as long as its cells; of a link, its text counts and not its address."""
    for line in page.read_text().splitlines():
        if line.startswith("|"):
            for cell in re.split(r"(?<!\\)\|", re.sub(r"\]\([^)]*\)", "]", line)):
                assert len(cell.strip()) <= 240, cell
        else:
            assert len(line) <= 120 or re.search(r"\]\(https:\S+$", line), line


def test_all_that_there_is_is_named() -> None:
    pages = "".join(page.read_text() for page in PAGES)

    for name in airflow_provider_hsml.__all__:
        assert re.search(rf"\b{name}\b", pages), name
    for key in EXTRA_KEYS:
        assert f"`{key}`" in CONNECTION, key


def test_the_readme_is_short_and_names_the_commands_and_every_operator() -> None:
    readme = (ROOT / "README.md").read_text()

    assert len(readme.splitlines()) <= 130
    for command in ("pip install airflow-provider-hsml ", "make demo", "make test"):
        assert f"\n    {command}" in readme
    for kind in OPERATORS:
        assert f"`{kind.__name__}`" in readme


def test_the_table_of_settings_is_that_of_the_code() -> None:
    page = (ROOT / "docs" / "reference" / "deployments.md").read_text()
    rows = re.findall(r"^\| `([a-z_.]+)` \|.*\| ([^|]*) \|$", page, re.MULTILINE)
    told = {name: set(re.findall(r"`(\w+)`", wire)) for name, wire in rows}
    shared = ("transformer.resources.", "transformer.scaling.")

    for setting in SETTINGS.values():
        if setting.field.startswith("spec.") and not setting.name.startswith(shared):
            assert told.pop(setting.name) == {path[0] for path in setting.paths}, setting.name
    assert set(told) == {"resources.instances", "inference_logger.partitions", "inference_logger.replicas", "extra"}


CONNECTION = (ROOT / "docs" / "reference" / "connection.md").read_text()


def test_the_table_of_the_connection_is_that_of_the_form() -> None:
    table = CONNECTION[CONNECTION.index("| field | label |") :].partition("\n\n")[0]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in table.splitlines()[2:]]
    told = {cells[0].removeprefix("extra ").strip("`"): cells for cells in rows}

    assert list(told) == ["host", "port", "password", *CONNECTION_FIELDS]
    for name, field in CONNECTION_FIELDS.items():
        _, label, _, default = told[name]
        assert label == field["label"]
        if "default" in field["schema"]:
            assert default.strip("`") == str(field["schema"]["default"]).lower()


def messages_of_the_code() -> str:
    """Return the provider's code with the texts that go over several lines joined."""
    folder = ROOT / "airflow_provider_hsml"
    paths = [path for path in folder.rglob("*.py") if folder / "local" not in path.parents]
    return re.sub(r'"\s+f?"', "", "".join(path.read_text() for path in paths))


def test_what_the_test_button_is_said_to_say_it_says() -> None:
    """What stands in code in the table is in the code that says it."""
    table = CONNECTION[CONNECTION.index("| it says |") :].partition("\n\n")[0]
    said = [text for row in table.splitlines()[2:] for text in re.findall(r"`([^`]+)`", row.split("|")[1])]
    code = messages_of_the_code()

    assert len(said) > 15
    for text in said:
        assert text.removeprefix("errorCode ") in code, text


def test_each_message_of_the_troubleshooting_page_is_one_of_the_code() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    rows = re.findall(r"^\| (`.+`) \| [^|]+ \| [^|]+ \|$", page, re.MULTILINE)
    said = [text for row in rows for text in re.findall(r"`([^`]+)`", row)]
    code = messages_of_the_code()

    assert len(said) >= 25
    for text in said:
        assert text in code, text


def fields_without_docstring(kind: type) -> list[str]:
    """Return the fields of a dataclass that have no text below them: the reference is made of these texts."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef))
    return [
        node.target.id
        for node, after in zip(body, [*body[1:], None], strict=True)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        if not (isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant))
    ]


VALUES = [Gate, Verification, DeploymentSpec, Resources, Scaling, TransformerSpec, InferenceLogger, Batcher]


@pytest.mark.parametrize("kind", [MeasuredGate, *VALUES])
def test_every_field_is_explained(kind: type) -> None:
    assert not fields_without_docstring(kind)


def test_the_reference_is_made_of_every_value_and_of_every_part_of_the_hook() -> None:
    pages = "".join((ROOT / "docs" / "reference" / f"{name}.md").read_text() for name in ("values", "hook"))
    generated = set(re.findall(r"^::: airflow_provider_hsml\.([\w.]+)$", pages, re.MULTILINE))

    parts = [kind for kind in HsmlHook.__mro__ if kind.__module__.startswith("airflow_provider_hsml.hooks.")]
    for kind in (*VALUES, *parts):
        if kind is not PromotionDriverMixin:
            assert f"{kind.__module__}.{kind.__name__}".removeprefix("airflow_provider_hsml.") in generated


SECTIONS = {
    HsmlOperator: "Every operator",
    WaitingOperator: "Waiting",
    _PromotingOperator: "Deploying",
    HsmlSensor: "Every sensor",
}
"""Where docs/reference/operators.md has the arguments that several operators have in common."""
OPERATORS = [getattr(module, name) for module in (operators, sensors) for name in module.__all__]


def section(name: str) -> str:
    """Give a section of docs/reference/operators.md."""
    text = (ROOT / "docs" / "reference" / "operators.md").read_text()
    found = re.search(rf"^##+ {name}\n(.*?)(?=^##|\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"docs/reference/operators.md has no section {name!r}"
    return found[1]


def told(name: str) -> dict[str, tuple[str, bool]]:
    """Give the arguments that a section has in its table: the default, and whether it is templated."""
    rows = re.findall(r"^\| `(\w+)` \|.*\| (?:`(.*)`|required) \| (yes )?\|$", section(name), re.MULTILINE)
    return {argument: (default, bool(templated)) for argument, default, templated in rows}


def own_arguments(kind: type) -> dict[str, str]:
    """Give the arguments of a class's own, with their defaults as they are written."""
    parameters = inspect.signature(vars(kind)["__init__"]).parameters.values()
    return {
        one.name: "" if one.default is one.empty else repr(one.default).replace("'", '"')
        for one in parameters
        if one.kind is one.KEYWORD_ONLY
    }


class TestOperatorsPage:
    @pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.__name__)
    def test_has_every_argument_as_in_the_code(self, operator: Any) -> None:
        with_log_tail: set[str] = set()
        for kind in operator.__mro__:
            if kind.__module__.startswith("airflow_provider_hsml.") and "__init__" in vars(kind):
                page = told(SECTIONS.get(kind, kind.__name__))
                with_log_tail |= set(page)
                assert {name: default for name, (default, _) in page.items()} == own_arguments(kind)
                for name, (_, is_templated) in page.items():
                    assert is_templated == (name in operator.template_fields), name
        assert set(operator.template_fields) <= with_log_tail

    def test_has_those_of_the_trigger(self) -> None:
        assert {name: default for name, (default, _) in told("ModelVersionTrigger").items()} == {
            **own_arguments(HsmlTrigger),
            **own_arguments(ModelVersionTrigger),
        }

    @pytest.mark.parametrize("kind", [*OPERATORS, ModelVersionTrigger], ids=lambda kind: kind.__name__)
    def test_says_what_it_returns_how_it_fails_and_quotes_an_example_of_it(self, kind: type) -> None:
        text = section(kind.__name__)
        quoted = "".join(quote["text"] for quote in QUOTE.finditer(text))

        assert "**Returns** " in text
        assert "**Errors**: " in text
        assert f"{kind.__name__}(" in quoted or f"{kind.__name__}.partial(" in quoted


def test_the_site_has_every_page() -> None:
    """What ``make docs`` would say, before somebody asks for it."""
    text = (ROOT / "mkdocs.yml").read_text()
    shown = set(re.findall(r"^ *- (?:.*: )?(\S+\.md)$", text, re.MULTILINE))
    examples = {f"example_dags/{path.stem}.md" for path in (ROOT / "example_dags").glob("*.py")}

    docs = {str(page.relative_to(ROOT / "docs")) for page in PAGES if page.is_relative_to(ROOT / "docs")}

    assert shown == {"index.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"} | docs | examples
