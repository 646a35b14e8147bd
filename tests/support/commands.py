"""Runs commands of a real Airflow, with a database of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Runs them in one process: it takes a while to start.
_RUN = """
import json, logging, sys
from airflow.__main__ import main
root = logging.getLogger()
level, handlers = root.level, [*root.handlers]
for number, command in enumerate(json.loads(sys.argv[1])):
    print(f"COMMAND={number}", flush=True)
    sys.stdin.readline()
    sys.argv = ["airflow", *command]
    try:
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code
    # "db migrate" leaves Alembic's, where Airflow 2 has set its own up when it was imported.
    if handlers:
        root.level, root.handlers = level, handlers
    print(f"CODE={code}", flush=True)
"""


@dataclass(frozen=True)
class Ran:
    """What came of one command."""

    code: str
    output: str


def environment(home: Path, **more: str) -> dict[str, str]:
    """Give the environment of an Airflow of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    own = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "OMP_NUM_THREADS": "1",
    }
    return kept | own | more


def migrate(home: Path) -> None:
    """Make the database of an Airflow of its own, as ``airflow db migrate`` does: a copy of one for all tests."""
    shared = Path(os.environ["HSML_TEST_SHARED"])
    migrated = shared / "migrated" / "airflow.db"
    with FileLock(shared / "migrated.lock"):
        if not migrated.exists():
            migrating = shared / "migrating"
            (ran,) = run([("db", "migrate")], environment(migrating))
            assert ran.code == "0", ran.output
            migrating.rename(migrated.parent)
    home.mkdir(exist_ok=True)
    shutil.copyfile(migrated, home / "airflow.db")


def run(
    commands: Sequence[Sequence[str]],
    environment: dict[str, str],
    before: Callable[[int], None] = lambda _: None,
) -> list[Ran]:
    """
    Run Airflow's commands one after another.

    :param before: called with the number of each command before it, while Airflow waits
    """
    pipe = subprocess.PIPE
    told = []
    with subprocess.Popen(
        [sys.executable, "-c", _RUN, json.dumps(commands)],
        stdin=pipe,
        stdout=pipe,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        watch = threading.Timer(240, process.kill)
        watch.start()
        try:
            for line in process.stdout:
                told.append(line)
                if number := re.fullmatch(r"COMMAND=(\d+)\n", line):
                    before(int(number[1]))
                    print(file=process.stdin, flush=True)
        except BaseException:
            process.kill()
            raise
        finally:
            watch.cancel()
    assert process.returncode == 0, "".join(told)
    ran = []
    for output in re.split(r"^COMMAND=\d+\n", "".join(told), flags=re.MULTILINE)[1:]:
        said, _, code = output.rpartition("CODE=")
        ran.append(Ran(code.splitlines()[0], said))
    return ran
