"""
Print the licence of each package that the provider and its extras bring, from the metadata of what is installed.

Run it with ``make licences``. Most of the packages are Airflow's own. A package without a statement is shown as
``not stated``: its project says more.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from importlib.metadata import PackageMetadata

ROOT = Path(__file__).parents[1]
NOT_STATED = "not stated"
_LONGEST = 60
"""A longer field ``License`` is the text of one."""


def asked(root: Path = ROOT) -> list[str]:
    """Return the requirements of the project and of all its extras."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    return [*project["dependencies"], *(line for lines in extras for line in lines)]


def licences(requirements: Iterable[str]) -> dict[str, tuple[str, str]]:
    """
    Return version and licence of the packages that requirements bring here, by name.

    :param requirements: such as ``uvicorn[standard]>=0.30``; their own requirements are followed
    :raises PackageNotFoundError: a package that is asked for is not installed
    """
    found: dict[str, tuple[str, str]] = {}
    seen: set[tuple[str, str]] = set()
    open_ones = [Requirement(line) for line in requirements]
    named = {canonicalize_name(one.name) for one in open_ones}
    while open_ones:
        one = open_ones.pop()
        name = canonicalize_name(one.name)
        try:
            metadata = distribution(name).metadata
        except PackageNotFoundError:
            if name in named:
                raise
            continue  # Optional on this platform: its markers hold, but nothing here has asked for it.
        found[name] = (metadata["Version"], stated(metadata))
        for extra in ("", *one.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                open_ones += _required(metadata, extra)
    return found


def stated(metadata: PackageMetadata) -> str:
    """Return the licence that a package's metadata states: as an expression, by its classifiers, or as a short text."""
    if "License-Expression" in metadata:
        return metadata["License-Expression"]
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in metadata.get_all("Classifier", [])
        if line.startswith("License ::") and line.count("::") > 1
    ]
    if classifiers:
        return ", ".join(sorted(classifiers))
    text = " ".join(metadata.get_all("License", [""])[0].split())
    return text if text and text != "UNKNOWN" and len(text) <= _LONGEST else NOT_STATED


def _required(metadata: PackageMetadata, extra: str) -> Iterator[Requirement]:
    for line in metadata.get_all("Requires-Dist", []):
        one = Requirement(line)
        is_of_extra = one.marker is not None and "extra" in str(one.marker)
        if is_of_extra == bool(extra) and (one.marker is None or one.marker.evaluate({"extra": extra})):
            yield one


def main() -> None:
    """Print a table of all packages, those that the project names itself marked with a star, and a count."""
    direct = {canonicalize_name(re.split(r"[<>=\[]", line)[0]) for line in asked()}
    found = licences(asked())
    for name in sorted(found):
        version, licence = found[name]
        print(f"{'*' if name in direct else ' '} {name:<45} {version:<14} {licence}")
    print()
    for licence, count in Counter(licence for _, licence in found.values()).most_common():
        print(f"{count:>4}  {licence}")
    print(f"{len(found):>4}  packages; * is asked for by airflow-provider-hsml itself, the others by those")


if __name__ == "__main__":
    main()
