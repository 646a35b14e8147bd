"""``make release`` and ``make licences``, and the files that a public repository has beside the sources."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from airflow_provider_hsml import operators, sensors, triggers
from airflow_provider_hsml.hopsworks.domain.journal_entry import EntryState, JournalEntry, ServedVersion
from airflow_provider_hsml.links import DeploymentLink, ExecutionLink, ModelVersionLink, ReportLink
from airflow_provider_hsml.provider_info import get_provider_info
from release import build, first_run, licences

ROOT = Path(__file__).parents[2]
TODAY = dt.date(2026, 12, 1)
DAG = """
```python
from datetime import datetime

from airflow.sdk import dag, task

from airflow_provider_hsml import DeployBestModelOperator, RegisterModelOperator


@dag(schedule=None, start_date=datetime(2026, 1, 1))
def retrain_iris():
    @task
    def train():
        import pathlib

        import joblib
        from sklearn.datasets import load_iris
        from sklearn.linear_model import LogisticRegression

        folder = pathlib.Path("trained").resolve()
        folder.mkdir(exist_ok=True)
        joblib.dump(LogisticRegression(max_iter=500).fit(*load_iris(return_X_y=True)), folder / "model.joblib")
        return str(folder)

    register = RegisterModelOperator(
        task_id="register", model_name="iris", model_path=train(), framework="SKLEARN", metrics={"accuracy": 0.97},
        input_example=[[5.1, 3.5, 1.4, 0.2]],
    )
    register >> DeployBestModelOperator(task_id="deploy", model_name="iris", metric="accuracy", direction="max")


retrain_iris()
```
"""


def git(root: Path, *arguments: str) -> None:
    who = ("-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository that is ready for the release of 1.2.0."""
    (tmp_path / "airflow_provider_hsml").mkdir()
    (tmp_path / "airflow_provider_hsml" / "__init__.py").write_text('"""A package."""\n\n__version__ = "1.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.0 (2026-11-30)\n\n- News.\n\n## 1.1.0 (2026-10-01)\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "Version 1.2.0")
    git(tmp_path, "tag", "v1.2.0")
    return tmp_path


def changelog(root: Path, heading: str) -> None:
    """Write another newest entry, and move the tag to the commit that has it."""
    path = root / "CHANGELOG.md"
    path.write_text(path.read_text().replace("## 1.2.0 (2026-11-30)", heading))
    git(root, "commit", "--quiet", "-am", "Changelog")
    git(root, "tag", "--force", "v1.2.0")


class TestAgreement:
    def test_gives_the_version(self, checkout: Path) -> None:
        assert build.check_agreement(checkout, TODAY) == "1.2.0"

    @pytest.mark.parametrize(
        ("heading", "expected"),
        [
            ("## Unreleased", "begins with 'Unreleased'"),
            ("## 1.2.0", "begins with '1.2.0', and the version is 1.2.0"),
            ("## 1.3.0 (2026-11-30)", "begins with '1.3.0 (2026-11-30)'"),
            ("## 1.2.0 (2026-12-02)", "dates 1.2.0 2026-12-02: no day up to today"),
            ("## 1.2.0 (2026-02-30)", "dates 1.2.0 2026-02-30: no day up to today"),
        ],
    )
    def test_needs_a_dated_entry_of_the_version_on_top(self, checkout: Path, heading: str, expected: str) -> None:
        changelog(checkout, heading)

        with pytest.raises(build.RefusedError, match=re.escape(expected)) as refused:
            build.check_agreement(checkout, TODAY)

        assert str(refused.value).endswith("\nLet it begin with '## 1.2.0 (2026-12-01)'.")

    def test_needs_the_tag_on_this_very_commit(self, checkout: Path) -> None:
        (checkout / "more").write_text("")
        git(checkout, "add", ".")
        git(checkout, "commit", "--quiet", "-m", "More")

        with pytest.raises(
            build.RefusedError, match=r"has no tag, .* 1\.2\.0\.\nTag it: git tag -a v1\.2\.0 -m v1\.2\.0"
        ):
            build.check_agreement(checkout, TODAY)

    def test_names_another_tag(self, checkout: Path) -> None:
        git(checkout, "tag", "--delete", "v1.2.0")
        git(checkout, "tag", "v1.1.9")

        with pytest.raises(build.RefusedError, match=r"has v1\.1\.9, and the version is 1\.2\.0"):
            build.check_agreement(checkout, TODAY)

    @pytest.mark.parametrize("name", ["CHANGELOG.md", "new.py"])
    def test_needs_all_to_be_committed(self, checkout: Path, name: str) -> None:
        git(checkout, "config", "status.showUntrackedFiles", "no")
        with (checkout / name).open("a") as file:
            file.write("\n")

        with pytest.raises(build.RefusedError, match=rf"has changes:\n.* {re.escape(name)}\nCommit them"):
            build.check_agreement(checkout, TODAY)

    @pytest.mark.parametrize("version", ["1.2", "1.2.0.dev1", "1.2.0+local", ""])
    def test_needs_a_version_of_a_release(self, checkout: Path, version: str) -> None:
        (checkout / "airflow_provider_hsml" / "__init__.py").write_text(f'__version__ = "{version}"\n')

        with pytest.raises(build.RefusedError, match=rf"The version '{re.escape(version)}' is not one of a release"):
            build.check_agreement(checkout, TODAY)

    def test_names_all_problems_at_once(self, checkout: Path) -> None:
        changelog(checkout, "## Unreleased")
        git(checkout, "tag", "--delete", "v1.2.0")
        (checkout / "new").write_text("")

        with pytest.raises(build.RefusedError) as refused:
            build.check_agreement(checkout, TODAY)

        assert re.findall(r"Commit them|Let it begin|Tag it", str(refused.value)) == [
            "Commit them",
            "Let it begin",
            "Tag it",
        ]


class TestBuild:
    PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "airflow-provider-hsml"
version = "1.2.0"
[tool.hatch.build.targets.sdist]
only-include = ["airflow_provider_hsml"%s]
[tool.hatch.build.targets.wheel]
packages = ["airflow_provider_hsml"]
"""

    def test_holds_what_is_committed_and_nothing_else(self, checkout: Path, tmp_path_factory: Any) -> None:
        """Git hides a file that the user's own rules ignore, such as one with a key."""
        self.project(checkout, ', "CHANGELOG.md"')
        (checkout / ".git" / "info" / "exclude").write_text(".env\n")
        (checkout / "airflow_provider_hsml" / ".env").write_text("KEY=secret")

        sdist, wheel = build.build(checkout, tmp_path_factory.mktemp("dist"))

        with tarfile.open(sdist) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        assert names == {"airflow_provider_hsml/__init__.py", "CHANGELOG.md", "PKG-INFO", "pyproject.toml"}
        with zipfile.ZipFile(wheel) as packed:
            assert not [name for name in packed.namelist() if ".env" in name]

    def test_misses_nothing(self, checkout: Path, tmp_path_factory: Any) -> None:
        self.project(checkout, "")

        with pytest.raises(build.RefusedError, match=r"Only in one of commit and sdist: CHANGELOG\.md\.\nName"):
            build.build(checkout, tmp_path_factory.mktemp("dist"))

    def project(self, root: Path, more: str) -> None:
        (root / "pyproject.toml").write_text(self.PROJECT % more)
        git(root, "add", ".")
        git(root, "commit", "--quiet", "-m", "Project")


def test_links_that_lead_nowhere_on_the_package_page_are_found() -> None:
    readme = """
[a](docs/a.md#b) [![b](b.png)](https://example.com/b) <img src="c.png" alt="c"> [d](#d) [e](mailto:e@example.com)

```text
[f](f.md)
```
"""

    assert build.relative_links(readme) == ["docs/a.md#b", "b.png", "c.png"]


@pytest.mark.parametrize(("blocks", "count"), [("", 0), (DAG * 2, 2)])
def test_the_readme_has_one_dag(blocks: str, count: int) -> None:
    with pytest.raises(ValueError, match=rf"expected one block of Python, the first DAG; got {count}\.\nMove"):
        first_run.dag_of(f"# Title\n{blocks}\n```\nno Python\n```\n")


@pytest.mark.slow
def test_a_release(tmp_path: Path) -> None:
    """Build one from a clone with a tag: both files install into fresh environments, where the README's DAG runs."""
    pytest.importorskip("twine", reason="`make release` installs it")
    root = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, root], check=True)
    version = build.version_of(root)
    readme, changes = root / "README.md", root / "CHANGELOG.md"
    if "def retrain_iris" not in readme.read_text():
        readme.write_text(f"# A stand-in\n{DAG}")
    newest = build.HEADING.findall(changes.read_text())[0]
    changes.write_text(changes.read_text().replace(f"## {newest}", f"## {version} (2026-01-01)", 1))
    git(root, "commit", "--quiet", "--allow-empty", "-am", "Release")
    git(root, "tag", f"v{version}", "--force")

    released = subprocess.run(
        [sys.executable, root / "release" / "build.py"],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert released.returncode == 0, released.stdout + released.stderr
    assert released.stdout.count("1 passed") == 2
    hashes = {
        name: value
        for value, name in (line.split("  ") for line in released.stdout.partition("== sha256\n")[2].splitlines())
    }
    assert sorted(hashes) == [
        f"dist/airflow_provider_hsml-{version}-py3-none-any.whl",
        f"dist/airflow_provider_hsml-{version}.tar.gz",
    ]
    for name, value in hashes.items():
        assert hashlib.sha256((root / name).read_bytes()).hexdigest() == value


class TestLicences:
    def test_every_package_that_is_asked_for_states_one(self) -> None:
        found = licences.licences(licences.asked())
        direct = {re.split(r"[<>=\[]", line)[0] for line in licences.asked()}

        assert direct <= set(found)
        assert {name for name in direct if found[name][1] == licences.NOT_STATED} == set()

    def test_none_is_strong_copyleft(self) -> None:
        """Except where another licence is offered as well, as docs/background/releasing.md says."""
        found = licences.licences(licences.asked())

        assert {name for name, (_, licence) in found.items() if "GPL" in licence and "LGPL" not in licence} <= {
            "text-unidecode"
        }


class TestPublicFiles:
    def test_the_registry_file_lists_what_there_is(self) -> None:
        given = yaml.safe_load((ROOT / ".airflow-registry.yaml").read_text())
        info = get_provider_info()

        assert (given["package-name"], given["display-name"]) == (info["package-name"], info["name"])
        assert given["description"] == info["description"]
        for kind, names in (
            ("operators", operators.__all__),
            ("sensors", sensors.__all__),
            ("hooks", ["HsmlHook"]),
            ("triggers", ["ModelVersionTrigger"]),
        ):
            assert [one["module"] for one in given[kind]] == [f"airflow_provider_hsml.{kind}.{name}" for name in names]
            assert all(one["description"].endswith(".") for one in given[kind])

    def test_pre_commit_runs_the_checks_of_make_lint(self) -> None:
        hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
        rule = (ROOT / "Makefile").read_text().partition("\nlint: ")[2].partition("\n\n")[0]
        commands = [line.strip().replace("$(python)", ".venv/bin/python") for line in rule.splitlines()[1:]]

        assert [repo["repo"] for repo in hooks] == ["local"]
        assert [hook["entry"] for hook in hooks[0]["hooks"]] == commands
        assert {hook["language"] for hook in hooks[0]["hooks"]} == {"system"}

    def test_the_public_ci_runs_ours(self) -> None:
        jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]

        assert [step["run"] for step in jobs["check"]["steps"] if "run" in step] == ["bash .ci/run"]

    @pytest.mark.parametrize("name", ["bug", "feature"])
    def test_a_form_has_what_github_asks_for(self, name: str) -> None:
        form: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text())
        fields = [field for field in form["body"] if field["type"] != "markdown"]

        assert form["name"]
        assert form["description"]
        assert {field["type"] for field in fields} <= {"input", "textarea", "dropdown"}
        assert len({field["id"] for field in fields}) == len(fields)
        for field in fields:
            assert field["attributes"]["label"]
            assert all(isinstance(option, str) for option in field["attributes"].get("options", []))

    def test_an_issue_may_be_blank(self) -> None:
        """One that asks for a private channel has nothing to fill into a form, nor has a report of hsml-doctor."""
        config = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml").read_text())

        assert "open an issue that asks for a private channel and says nothing else" in (
            " ".join((ROOT / "SECURITY.md").read_text().split())
        )
        assert config["blank_issues_enabled"] is True

    def test_a_report_asks_for_versions_and_the_promotion_record(self) -> None:
        form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text())
        required = {field["id"] for field in form["body"] if field.get("validations", {}).get("required")}

        assert required >= {"provider", "airflow", "hopsworks", "record"}


class TestCompatibilityPage:
    page = (ROOT / "docs" / "reference" / "compatibility.md").read_text()

    def test_names_what_is_stored(self) -> None:
        row = next(line for line in self.page.splitlines() if line.startswith("| trigger class paths"))
        links = {link.xcom_key for link in (DeploymentLink(), ModelVersionLink(), ExecutionLink(), ReportLink())}

        assert set(re.findall(r"`(\w+Trigger)`", row)) == set(triggers.__all__)
        assert set(re.findall(r"`(hsml_\w+)`", self.page)) == links

    def test_names_the_states_of_the_journal(self) -> None:
        listed = " ".join(self.page.partition("The states are")[2].partition("\n- ")[0].split()).partition(". ")[0]

        assert re.findall(r"`(\w+)`", listed)[: len(EntryState)] == [state.value for state in EntryState]

    def test_an_older_version_reads_an_entry_with_keys_of_a_newer_one(self) -> None:
        entry = JournalEntry(
            "id", EntryState.VERIFIED, "run", 1.0, ServedVersion("p", "churn", 2), {}, None, touches_env_vars=False
        )

        written = json.loads(json.dumps(entry.to_json()))

        assert JournalEntry.from_json(written | {"of_a_newer_version": {"a": 1}}) == entry
        with pytest.raises(ValueError, match="of_a_newer_version"):
            JournalEntry.from_json(written | {"state": "of_a_newer_version"})
