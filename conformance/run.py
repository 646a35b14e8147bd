"""
Run Hopsworks' official SDKs, unmodified, against the local Model Serving, and print the result of every step.

``make conformance`` creates their environments (``.venv-hopsworks``, ``.venv-hsml``, ...) and runs
``python -m conformance.run``. For each SDK it starts ``hsml-local serve`` with the matching Hopsworks version. The exit
code is 1 if a step failed. ``--docs`` writes the table into docs/background/local-server.md, as the record
of the last run.

``--cluster`` runs the steps against a real Hopsworks cluster instead, set by the variables HOPSWORKS_HOST,
HOPSWORKS_PORT, HOPSWORKS_PROJECT and HOPSWORKS_API_KEY. There they create models, files, jobs and deployments with
``conformance`` in their names, and delete them at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conformance.client import STEPS_OF
from conformance.request_schemas import VIEW
from conformance.steps import STEPS, Release, Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CHECKOUT = Path(__file__).parents[1]
PAGE = CHECKOUT / "docs" / "background" / "local-server.md"
BEGIN, END = "<!-- Made by `make conformance ARGS=--docs`. -->", "<!-- End of what was made. -->"
LONGEST_SECONDS = 900


@dataclass(frozen=True, slots=True)
class Subject:
    """An SDK to run, and the server that it is run against."""

    sdk: str
    """The name of its environment, and of its file in constraints/."""
    package: str
    version: str
    hopsworks: str
    """The version of Hopsworks that the server emulates."""

    @property
    def title(self) -> str:
        return f"{self.package} {self.version}"

    @property
    def release(self) -> Release:
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)

    @property
    def python(self) -> Path:
        return CHECKOUT / f".venv-{self.sdk}" / "bin" / "python"


SUBJECTS = (
    Subject("hopsworks", "hopsworks", "5.2.1", "5.2"),
    Subject("hopsworks-5.1.2", "hopsworks", "5.1.2", "5.2"),
    Subject("hopsworks-4.6.8", "hopsworks", "4.6.8", "4.6"),
    Subject("hsml", "hsml", "3.7.2", "3.7"),
)


def main() -> int:
    """Run the SDKs and print their tables."""
    parser = argparse.ArgumentParser(prog="make conformance ARGS=", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--sdk", choices=[each.sdk for each in SUBJECTS], help="only this one")
    parser.add_argument("--cluster", action="store_true", help="run against the cluster that HOPSWORKS_HOST names")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/background/local-server.md")
    options = parser.parse_args()
    if options.docs and (options.sdk or options.cluster):
        parser.error("--docs needs a run of all SDKs against the local Model Serving")
    assert STEPS_OF  # noqa: S101 - importing them has filled STEPS
    results: dict[str, list[dict[str, Any]]] = {}
    chosen = [subject for subject in SUBJECTS if options.sdk in (None, subject.sdk)]
    # The SDKs spend most of their time waiting. Each has a local server of its own, but there is only one cluster.
    with ThreadPoolExecutor(1 if options.cluster else len(chosen)) as pool:
        for subject, of_one in zip(chosen, pool.map(partial(_run, is_cluster=options.cluster), chosen), strict=True):
            results[subject.sdk] = of_one
    failed = [result for of_one in results.values() for result in of_one if result["outcome"] == "FAILED"]
    missing = sum(len(STEPS) - len(of_one) for of_one in results.values())
    if options.docs and not missing:
        write_table(PAGE, results)
    counts = [f"{sum(r['outcome'] == o for s in results.values() for r in s)} {o}" for o in ("ok", "not possible")]
    print(f"\nconformance: {', '.join(counts)}, {len(failed)} FAILED, {missing} not run")
    return 1 if failed or missing else 0


def _run(subject: Subject, *, is_cluster: bool) -> list[dict[str, Any]]:
    """Run all steps with an SDK, and print each result as soon as it is known."""
    with contextlib.ExitStack() as stack:
        if is_cluster:
            where = {name: value for name, value in os.environ.items() if name.startswith("HOPSWORKS_")}
            log = Path(tempfile.mkdtemp(prefix="conformance-")) / "sdk.log"
        else:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="conformance-")))
            log = CHECKOUT / ".conformance" / f"{subject.sdk}.log"
            log.parent.mkdir(exist_ok=True)
            where = stack.enter_context(_local_serving(subject, root, log.with_name(f"{subject.sdk}-server.log")))
        print(f"== {subject.title}, against {where.get('HOPSWORKS_HOST')}; its output is in {log}", flush=True)
        output = stack.enter_context(log.open("w"))
        client = subprocess.Popen(
            [str(subject.python), "-m", "conformance.client", subject.package, *([] if is_cluster else ["--local"])],
            cwd=CHECKOUT,
            env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "NO_PROXY": "*", **where},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
        )
        watch = threading.Timer(LONGEST_SECONDS, client.kill)
        watch.start()
        try:
            return [_printed(subject, line) for line in client.stdout or ()]
        finally:
            client.kill()
            client.wait()
            watch.cancel()


@contextlib.contextmanager
def _local_serving(subject: Subject, root: Path, log: Path) -> Iterator[dict[str, str]]:
    """Run ``hsml-local serve``, and yield its address as the environment variables that the SDKs read."""
    command = Path(sys.executable).with_name("hsml-local")
    views = root.with_suffix(".views.json")
    views.write_text(json.dumps([VIEW]))
    with log.open("w") as output:
        server = subprocess.Popen(
            [
                *(command, "serve", "--port", "0", "--root", root, "--feature-views", views),
                *("--hopsworks-version", subject.hopsworks),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
        )
    assert server.stdout is not None  # noqa: S101 - opened with PIPE
    try:
        line = server.stdout.readline()
        if not line:
            raise SystemExit(f"hsml-local serve did not start:\n{log.read_text()}")
        ready = json.loads(line)
        host, _, port = ready["url"].removeprefix("https://").partition(":")
        yield {
            "HOPSWORKS_HOST": host,
            "HOPSWORKS_PORT": port,
            "HOPSWORKS_PROJECT": ready["project"],
            "HOPSWORKS_API_KEY": Path(ready["api_key_file"]).read_text().strip(),
        }
    finally:
        server.terminate()
        server.wait()
        views.unlink()


def _printed(subject: Subject, line: str) -> dict[str, Any]:
    """Print the result of a step and return it."""
    result: dict[str, Any] = json.loads(line)
    each = next(each for each in STEPS if each.name == result["step"])
    outcome = result["outcome"]
    shown = f"{outcome} ({result['reason'][:600]})" if result["reason"] else outcome
    print(f"{subject.title:15}  {each.subject:15} {each.does:85} {result['seconds']:6.1f} s  {shown}", flush=True)
    return result


# --- The table in the docs --------------------------------------------------------------------------------------------


def table(results: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """Return the lines of the table for these results."""
    lines = [
        f"| | what the SDK does | {' | '.join(each.title for each in SUBJECTS)} |",
        f"| --- | --- | {' | '.join('---' for _ in SUBJECTS)} |",
    ]
    by_step = {(sdk, result["step"]): result for sdk, of_one in results.items() for result in of_one}
    for each in STEPS:
        cells = [cell(by_step[subject.sdk, each.name]) for subject in SUBJECTS]
        lines.append(row(each, cells))
    return lines


def row(each: Step, cells: list[str]) -> str:
    """Return one line of the table."""
    return f"| {each.subject} | {each.does} | {' | '.join(cells)} |"


def cell(result: Mapping[str, Any]) -> str:
    """Return the text of a result in the table."""
    if result["outcome"] == "not possible":
        return f"not possible: {result['reason']}"
    return str(result["outcome"])


def write_table(page: Path, results: Mapping[str, list[dict[str, Any]]]) -> None:
    """Replace the table between its two markers."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    heading = f"As of the run of {dt.datetime.now(dt.UTC).date()}:"
    page.write_text("\n".join([f"{before}{BEGIN}", "", heading, "", *table(results), "", f"{END}{after}"]))


if __name__ == "__main__":
    raise SystemExit(main())
