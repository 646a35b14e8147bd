"""
Build a release and prove it: ``make release``, on the commit that is tagged with its version.

In this order: the tag, the version and the dated changelog entry agree; the sdist is built from the commit, and the
wheel from the sdist; twine accepts their metadata; each is installed into a fresh environment, where the DAG of
README.md runs. Only then are the files in ``dist/``. Nothing is uploaded: docs/background/releasing.md
says what is left to do.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONSTRAINTS = "constraints/airflow-3.3.2.txt"
HEADING = re.compile(r"^## (.*)$", re.MULTILINE)
DATED = re.compile(r"(?P<version>\S+) \((?P<date>\d{4}-\d{2}-\d{2})\)")
VERSION = re.compile(r'^__version__ = "([^"]*)"$', re.MULTILINE)
LINK = re.compile(r"(?:\]\(|(?:href|src)=.)([^)\s\"']+)")
WHOLE = re.compile(r"[a-z]+:|#")
RELEASED = re.compile(r"\d+\.\d+\.\d+(rc\d+)?")
_OURS = ("AIRFLOW", "HOPSWORKS", "HSML", "PYTEST", "PYTHON", "VIRTUAL_ENV")
"""Variables that would lead a fresh environment back to this one, or to somebody's cluster."""


class RefusedError(Exception):
    """The release cannot be built from this commit; the message says what to do."""


def run(*command: str | Path, cwd: Path, quiet: bool = False, **environment: str) -> str:
    """
    Run a command, and return its output if it is quiet.

    :raises RefusedError: it failed
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=kept | environment,
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT if quiet else None,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stdout.strip() if quiet else "see above"
        message = f"{' '.join(map(str, command))} exited {done.returncode}: {said}"
        raise RefusedError(message)
    return done.stdout or ""


def version_of(root: Path) -> str:
    """Return the version that the package has in a checkout."""
    found = VERSION.search((root / "airflow_provider_hsml" / "__init__.py").read_text())
    if found is None:
        message = 'airflow_provider_hsml/__init__.py has no line __version__ = "...".\nWrite the version there.'
        raise RefusedError(message)
    return found[1]


def check_agreement(root: Path, today: dt.date) -> str:
    """
    Return the version that tag, package and changelog agree on.

    :raises RefusedError: they do not, or there are changes that are not committed; all problems are named at once
    """
    version = version_of(root)
    tag = f"v{version}"
    problems = []
    if not RELEASED.fullmatch(version):
        problems.append(
            f"The version {version!r} is not one of a release.\n"
            "Write one such as 1.2.0 or 1.2.0rc1 into airflow_provider_hsml/__init__.py."
        )
    if changes := run("git", "status", "--porcelain", "--untracked-files=normal", cwd=root, quiet=True):
        problems.append(
            f"The work tree has changes:\n{changes.rstrip()}\nCommit them: a release is built from a commit."
        )
    problems += _problems_of_changelog(root, version, today)
    if tag not in (tags := run("git", "tag", "--points-at", "HEAD", cwd=root, quiet=True).split()):
        here = f"has {', '.join(tags)}" if tags else "has no tag"
        problems.append(f"The commit {here}, and the version is {version}.\nTag it: git tag -a {tag} -m {tag}")
    if problems:
        raise RefusedError("\n\n".join(problems))
    return version


def _problems_of_changelog(root: Path, version: str, today: dt.date) -> list[str]:
    newest = next(iter(HEADING.findall((root / "CHANGELOG.md").read_text())), "nothing")
    expected = f"## {version} ({today.isoformat()})"
    dated = DATED.fullmatch(newest)
    if dated is None or dated["version"] != version:
        return [f"CHANGELOG.md begins with {newest!r}, and the version is {version}.\nLet it begin with {expected!r}."]
    try:
        is_past = dt.date.fromisoformat(dated["date"]) <= today
    except ValueError:
        is_past = False
    if not is_past:
        return [f"CHANGELOG.md dates {version} {dated['date']}: no day up to today.\nLet it begin with {expected!r}."]
    return []


def build(root: Path, folder: Path) -> list[Path]:
    """
    Build the sdist from the commit of a checkout and the wheel from the sdist, into a folder; return both.

    The work tree has no part in it: git may hide files that lie there, such as one with a key. Times in both are those
    of the commit, so that the same commit gives the same hashes.

    :raises RefusedError: the sdist has other files than the commit
    """
    epoch = run("git", "log", "-1", "--format=%ct", cwd=root, quiet=True).strip()
    hatchling = (sys.executable, "-m", "hatchling", "build", "--directory", folder, "--target")
    with tempfile.TemporaryDirectory() as name:
        commit = Path(name).resolve()
        run("git", "archive", "--output", commit / "commit.tar", "--prefix", "commit/", "HEAD", cwd=root, quiet=True)
        sources = _unpack(commit / "commit.tar", commit)
        run(*hatchling, "sdist", cwd=sources, quiet=True, SOURCE_DATE_EPOCH=epoch)
        (sdist,) = folder.glob("*.tar.gz")
        sources = _unpack(sdist, commit / "sdist")
        found = {str(path.relative_to(sources)) for path in sources.rglob("*") if not path.is_dir()}
        committed = run("git", "ls-tree", "-r", "-z", "--name-only", "HEAD", cwd=root, quiet=True)
        if different := (found - {"PKG-INFO"}).symmetric_difference(filter(None, committed.split("\0"))):
            message = (
                f"Only in one of commit and sdist: {', '.join(sorted(different))}.\n"
                "Name all files of the commit in only-include, in pyproject.toml."
            )
            raise RefusedError(message)
        run(*hatchling, "wheel", cwd=sources, quiet=True, SOURCE_DATE_EPOCH=epoch)
    (wheel,) = folder.glob("*.whl")
    return [sdist, wheel]


def _unpack(archive: Path, folder: Path) -> Path:
    """Unpack an archive with one folder in it, and return that folder."""
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
    return unpacked


def relative_links(readme: str) -> list[str]:
    """Return the targets of links and pictures that are no whole addresses: the package's page has no base for them."""
    prose = re.sub(r"^```.*?^```", "", readme, flags=re.DOTALL | re.MULTILINE)
    return [target for target in LINK.findall(prose) if not WHOLE.match(target)]


def prove(artefact: Path, root: Path) -> None:
    """Install a file into a fresh environment, and run the DAG of README there."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        python = folder / "environment" / "bin" / "python"
        uv = (sys.executable, "-m", "uv")
        run(*uv, "venv", "--quiet", "--python", sys.executable, folder / "environment", cwd=folder)
        asked = (f"airflow-provider-hsml[local,examples] @ {artefact.as_uri()}", "pytest")
        install = (*uv, "pip", "install", "--quiet", "--python", python)
        run(*install, "-c", root / CONSTRAINTS, *asked, cwd=folder)
        (folder / "project").mkdir()
        script = (python, root / "release" / "first_run.py", root / "README.md", folder / "project")
        run(*script, cwd=folder, TMPDIR=str(folder))


def main(root: Path = ROOT) -> None:
    """Build, check and prove a release, and print the hashes of its files."""
    version = check_agreement(root, dt.datetime.now(tz=dt.UTC).date())
    print(f"== airflow-provider-hsml {version}: tag, version and changelog agree")
    with tempfile.TemporaryDirectory() as name:
        made = build(root, Path(name).resolve())
        run(sys.executable, "-m", "twine", "check", "--strict", *made, cwd=root)
        for artefact in made:
            print(f"== the DAG of README.md, with {artefact.name} in a fresh environment", flush=True)
            prove(artefact, root)
        dist = root / "dist"
        dist.mkdir(exist_ok=True)
        final = [Path(shutil.copy(artefact, dist)) for artefact in made]
    urls = tomllib.loads((root / "pyproject.toml").read_text())["project"].get("urls", {})
    if "Source" not in urls:
        print("== project.urls names no Source: fill it in before you publish, as docs/background/releasing.md says")
    if links := relative_links((root / "README.md").read_text()):
        print(f"== README.md has links that lead nowhere on the package's page: {', '.join(links)}")
    print("== sha256")
    for artefact in final:
        print(f"{hashlib.sha256(artefact.read_bytes()).hexdigest()}  dist/{artefact.name}")


if __name__ == "__main__":
    try:
        main()
    except RefusedError as error:
        sys.exit(f"RELEASE REFUSED\n\n{error}")
