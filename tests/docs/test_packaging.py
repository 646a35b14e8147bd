"""What is shipped: the wheel, the sdist, and what installing the wheel does to somebody's Airflow."""

from __future__ import annotations

import configparser
import email
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import airflow_provider_hsml

if TYPE_CHECKING:
    from email.message import Message

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
AIRFLOWS = ["3.4.0b2", "3.3.2", "3.2.2", "3.1.8", "3.0.6", "2.11.2"]
CONSTRAINT = re.compile(r"(?P<name>[a-z0-9.-]+)==(?P<version>[0-9][A-Za-z0-9.+!]*)( ; [^;@/]+)?")


def run(*command: str | Path, **environment: str) -> str:
    """Run a command to its end and return what it printed; what it printed is in the failure as well."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    done = subprocess.run(
        list(map(str, command)), cwd=ROOT, env=clean | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command} exited {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(target: str, folder: Path) -> Path:
    """Build ``wheel`` or ``sdist`` with the backend that is installed here: nothing is downloaded."""
    run(sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", folder)
    (made,) = folder.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def read(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (each for each in archive.namelist() if each.endswith(f".dist-info/{name}"))
        return archive.read(path).decode()


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    return email.message_from_string(read(wheel, "METADATA"))


class TestWheel:
    def test_holds_the_package_and_nothing_else(self, files: set[str]) -> None:
        homes = {name.split("/")[0] for name in files}

        assert homes == {
            "airflow_provider_hsml",
            f"airflow_provider_hsml-{airflow_provider_hsml.__version__}.dist-info",
        }

    def test_holds_every_file_of_the_package(self, files: set[str]) -> None:
        """A page of the local server that an ignore rule drops would be missed only by who installs the wheel."""
        package = ROOT / "airflow_provider_hsml"
        expected = {
            path.relative_to(ROOT).as_posix()
            for path in package.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }

        assert {name for name in files if name.startswith("airflow_provider_hsml/")} == expected

    def test_is_typed(self, files: set[str]) -> None:
        assert "airflow_provider_hsml/py.typed" in files

    def test_carries_its_licence(self, files: set[str]) -> None:
        assert [name for name in files if name.endswith("/licenses/LICENSE")]

    def test_is_discovered_by_airflow_and_has_its_command(self, wheel: Path) -> None:
        entries = configparser.ConfigParser()
        entries.read_string(read(wheel, "entry_points.txt"))

        assert {section: dict(entries[section]) for section in entries.sections()} == {
            "apache_airflow_provider": {"provider_info": "airflow_provider_hsml.provider_info:get_provider_info"},
            "console_scripts": {
                "hsml-doctor": "airflow_provider_hsml.doctor.cli:main",
                "hsml-local": "airflow_provider_hsml.local.cli:main",
            },
        }

    def test_asks_for_what_airflow_has_already(self, metadata: Message) -> None:
        asked = {
            re.split(r"[<>=]", line)[0] for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line
        }

        assert asked == {
            "apache-airflow",
            "apache-airflow-providers-common-compat",
            "requests",
            "tenacity",
        }

    def test_says_what_it_is(self, metadata: Message) -> None:
        assert metadata["Name"] == "airflow-provider-hsml"
        assert metadata["Version"] == airflow_provider_hsml.__version__
        assert metadata["Requires-Python"] == ">=3.11"
        assert metadata["License-Expression"] == "Apache-2.0"
        assert "Framework :: Apache Airflow :: Provider" in metadata.get_all("Classifier", [])


def test_the_sdist_holds_sources_only(tmp_path: Path) -> None:
    """Neither an environment, nor a demo's database, nor a key that lies beside the sources."""
    with tarfile.open(build("sdist", tmp_path)) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    listed = set(PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"])

    assert {name.split("/")[0] for name in names} <= listed | {"PKG-INFO", "pyproject.toml", ".gitignore"}
    assert "airflow_provider_hsml/__init__.py" in names
    assert not [name for name in names if "__pycache__" in name]


def pinned(airflow: str) -> dict[str, str]:
    """Give the versions that a constraints file pins, by name."""
    text = (ROOT / f"constraints/airflow-{airflow}.txt").read_text()
    return {found["name"]: found["version"] for line in text.splitlines() if (found := CONSTRAINT.fullmatch(line))}


def unpinned(asked: list[str], airflow: str) -> set[str]:
    return {re.split(r"[<>=\[]", line)[0] for line in asked} - set(pinned(airflow))


class TestConstraints:
    @pytest.mark.parametrize("airflow", AIRFLOWS)
    def test_pin_by_version_only(self, airflow: str) -> None:
        """No address of a registry or file: the same file serves every mirror."""
        lines = (ROOT / f"constraints/airflow-{airflow}.txt").read_text().splitlines()
        pins = [line for line in lines if not line.startswith("#")]

        assert [line for line in pins if not CONSTRAINT.fullmatch(line)] == []
        assert f"apache-airflow=={airflow}" in pins

    def test_name_all_that_the_project_asks_for(self) -> None:
        """What is not pinned changes under the tests from one day to the next."""
        project = PROJECT["project"]
        asked = [
            *project["dependencies"],
            *(line for each in project["optional-dependencies"].values() for line in each),
        ]
        groups = dict(PROJECT["dependency-groups"])
        form = groups.pop("form")  # Airflow 3.0's alone.
        asked += [line for group in groups.values() for line in group if isinstance(line, str)]

        assert unpinned(asked, "3.3.2") == set()
        assert unpinned(form, "3.0.6") == set()

    @pytest.mark.parametrize("airflow", AIRFLOWS)
    def test_satisfy_the_bounds(self, airflow: str) -> None:
        """A lower bound keeps versions with known advisories out; it must not keep an Airflow line out."""
        project = PROJECT["project"]
        groups = dict(PROJECT["dependency-groups"])
        lines = [
            *project["dependencies"],
            *(line for each in project["optional-dependencies"].values() for line in each),
            *(line for group in groups.values() for line in group if isinstance(line, str)),
        ]
        pins = pinned(airflow)
        asked = [Requirement(line) for line in lines]

        assert {one.name for one in asked if not one.specifier} <= {"types-jsonschema", "types-requests"}
        for one in asked:
            if one.name in pins:
                assert one.specifier.contains(pins[one.name], prereleases=True), f"{one}, {pins[one.name]} is pinned"

    def test_there_are_no_upper_bounds(self) -> None:
        project = PROJECT["project"]
        lines = [
            *project["dependencies"],
            *(line for each in project["optional-dependencies"].values() for line in each),
        ]

        assert {bound.operator for line in lines for bound in Requirement(line).specifier} == {">="}


ADVISORY = re.compile(
    r"^\| Airflow (?P<lines>[\d., ]+) \| (?P<name>[a-z-]+) (?P<pinned>[\d.]+) \| (?P<fixed>[\d.]+) \| .*CVE-",
    re.MULTILINE,
)


def test_the_advisories_are_those_of_the_pinned_versions() -> None:
    """A row of SECURITY.md names the lines that pin a version with the advisory, and all that do."""
    rows = list(ADVISORY.finditer((ROOT / "SECURITY.md").read_text()))

    assert len(rows) > 5
    for row in rows:
        pins = {airflow: pinned(airflow).get(row["name"]) for airflow in AIRFLOWS}
        old = {airflow: pin for airflow, pin in pins.items() if pin and Version(pin) < Version(row["fixed"])}

        assert {".".join(airflow.split(".")[:2]) for airflow in old} == set(row["lines"].split(", ")), row[0]
        assert set(old.values()) == {row["pinned"]}, row[0]


@pytest.mark.slow
@pytest.mark.parametrize("airflow", AIRFLOWS)
def test_installing_it_adds_no_other_package(airflow: str, wheel: Path, tmp_path: Path) -> None:
    """Into an environment with nothing but Airflow; and Airflow lists it then."""
    if sys.version_info >= (3, 13) and airflow in ("2.11.2", "3.0.6"):
        pytest.skip(f"Airflow {airflow} does not run on Python 3.13")
    constraints = ROOT / f"constraints/airflow-{airflow}.txt"
    python = tmp_path / "environment/bin/python"

    def uv(*arguments: str | Path) -> str:
        return run(sys.executable, "-m", "uv", *arguments, "--python", python)

    run(sys.executable, "-m", "uv", "venv", "--quiet", "--python", sys.executable, tmp_path / "environment")
    uv("pip", "install", "--quiet", "-c", constraints, "apache-airflow")
    before = set(uv("pip", "freeze").splitlines())
    uv("pip", "install", "--quiet", "-c", constraints, wheel)
    after = set(uv("pip", "freeze").splitlines())
    providers = run(python, "-m", "airflow", "providers", "list", "--output", "plain", AIRFLOW_HOME=str(tmp_path))

    assert before <= after
    assert [line.split(" @ ")[0] for line in after - before] == ["airflow-provider-hsml"]
    assert re.search(
        rf"^airflow-provider-hsml\s.*{re.escape(airflow_provider_hsml.__version__)}", providers, re.MULTILINE
    )
