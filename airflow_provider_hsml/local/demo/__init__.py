"""
``hsml-local demo``, the program behind ``make demo``: four real nights from training to a live model.

A night is one run of the DAG, as its daily schedule would start it. In a checkout of the project, Airflow runs
``example_dags/retrain_and_deploy.py`` against a local Model Serving, which answers predictions all the time:

1. Weak candidates: the deployment is created.
2. Better candidates: the deployment is updated, while a prober sends requests.
3. Worse candidates: the version in production is kept.
4. A candidate with a better metric, whose saved file answers differently than in training: it fails its preflight in a
   temporary deployment, and answers none of the prober's requests.

All files are below ``.demo/`` in the checkout, and are created again by each run. The environment of the model server
is kept in the user's cache folder; the demo ends with how to remove both.

Airflow, the server and the builder of its environment run as processes in sessions of their own, so that Ctrl-C reaches
only the demo, which ends them in order. The facts about a night are read from the server. The promotion record comes
from a line of JSON that the DAG prints: in its last task, or in the callback of a promotion that failed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .leftovers import leftovers
from .nights import (
    NIGHTS,
    DemoFailedError,
    Outcome,
    check_night,
    check_prober,
    read_result,
    read_task,
    rejected_answers,
    table,
)
from .processes import (
    END_SERVER_SECONDS,
    DemoInterruptedError,
    Interrupts,
    Lock,
    Program,
    Voice,
    empty,
    end_kept_server,
    ready_line,
)
from .server import Prober, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from .nights import Night

DAG = "retrain_and_deploy"
_CHECKOUT = Path(__file__).resolve().parents[3]
_NEEDED = ("airflow", "filelock", "joblib", "sklearn", "starlette", "trustme", "uvicorn")
_END_SECONDS = 2.0
_PREPARE_SECONDS = 900.0
_MIGRATE_SECONDS = 180.0
_SERVE_SECONDS = 60.0
_NIGHT_SECONDS = 300.0
_SERVE_LOG = "serve.log"
# A log message of the provider in a line of Airflow's log: "<time> [info     ] <text> [<logger>] loc=...".
_MESSAGE = re.compile(
    r"\] (?P<text>(?!Uploading ).+?) +\[(?:airflow\.task\.operators\.)?airflow_provider_hsml\.[\w.]+\]"
)
_INTRODUCTION = f"""\
The demo plays four nights of the DAG {DAG}. A night is one run of the DAG, as its daily schedule would
start it: it trains three candidates, registers them as versions of the model 'digits', and deploys the best one if it
beats the version in production. Here the nights follow each other at once, and take about a minute each.
"""
_NOT_INHERITED = re.compile(r"(AIRFLOW|HOPSWORKS|HSML)_.*|REST_ENDPOINT|SECRETS_DIR|PYTHONDONTWRITEBYTECODE|PYTHONPATH")


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the demo.

    :param argv: its arguments; None for those of the process
    :return: the exit code
    """
    parser = argparse.ArgumentParser(prog="hsml-local demo", description="Four nights of a real DAG on this machine.")
    parser.add_argument("--keep", action="store_true", help="leave the local Model Serving running")
    options = parser.parse_args(argv)
    demo = _CHECKOUT / ".demo"
    try:
        _check_checkout()
        with Interrupts() as interrupts, Lock(demo), ExitStack() as ends, interrupts.heeded():
            _Demo(demo, interrupts, ends, keep=options.keep).run()
    except (DemoFailedError, DemoInterruptedError) as error:
        print(f"DEMO FAILED: {error}", flush=True)
        return 1
    return 0


def _check_checkout() -> None:
    if not (_CHECKOUT / "example_dags" / f"{DAG}.py").is_file():
        raise DemoFailedError(
            "the demo needs a checkout of the project with its example_dags.\nClone the repository and run make demo."
        )
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise DemoFailedError(
            f"{sys.executable} cannot import {', '.join(missing)}.\nRun make demo, which installs all requirements.",
        )


class _Demo:
    """
    One run of the demo.

    :param folder: the folder of all its files
    :param ends: receives the clean-up actions for the end
    :param keep: whether to leave the server running
    """

    def __init__(self, folder: Path, interrupts: Interrupts, ends: ExitStack, *, keep: bool) -> None:
        self._folder = folder
        self._interrupts = interrupts
        self._ends = ends
        self._keep = keep
        self._voice = Voice()
        self._env = _environment(folder / "airflow")

    def run(self) -> None:
        """
        Run the four nights, and check and print their results.

        :raises DemoFailedError: at the first result that differs from the expected one
        """
        self._ends.enter_context(self._voice)
        say = self._voice.say
        print(_INTRODUCTION)
        say(f"All files are below {self._folder}")
        end_kept_server(self._folder, say)
        empty(self._folder)
        say("Creating Airflow's database (SQLite) and the model server's environment")
        self._voice.doing = "building the model server's environment (a minute or two the first time)"
        migrating = self._start("migrate", [sys.executable, "-m", "airflow", "db", "migrate"])
        self._finish(
            self._start("prepare", [sys.executable, "-m", "airflow_provider_hsml.local.cli", "prepare"]),
            _PREPARE_SECONDS,
            say,
        )
        server = self._serve()
        self._voice.doing = "creating Airflow's database"
        self._finish(migrating, _MIGRATE_SECONDS)
        outcomes: list[Outcome] = []
        prober: Prober | None = None
        for night in NIGHTS:
            outcomes.append(self._night(night, server, outcomes, prober))
            if prober is None:
                with self._naming_logs(_SERVE_LOG):
                    prober = Prober(server, {"instances": server.input_example(outcomes[0].version)})
                self._ends.callback(prober.end)
                prober.start()
                say("From now on a prober requests a prediction from the deployment about ten times a second")
        assert prober is not None  # noqa: S101 - there are nights
        prober.end()
        with self._naming_logs(_SERVE_LOG):
            check_prober(prober.answered, prober.failures, outcomes)
        print()
        print(table(outcomes))
        print()
        print(prober.report([outcome.rejected for outcome in outcomes if outcome.rejected is not None]))
        if self._keep:
            print(self._next_steps(server))
        print(f"\n{leftovers(self._folder)}\n")
        print(f"DEMO OK: four nights in {self._voice.seconds:.0f} s", flush=True)

    def _night(self, night: Night, server: Server, earlier: Sequence[Outcome], prober: Prober | None) -> Outcome:
        say = self._voice.say
        say(f"Night {night.number}, {night.kind}: airflow dags test {DAG} {night.date}")
        self._voice.doing = "starting Airflow"
        before = prober.answered.copy() if prober else Counter()
        begin = time.monotonic()
        command = [sys.executable, "-m", "airflow", "dags", "test", DAG, night.date]
        if night.conf:
            command += ["--conf", json.dumps(night.conf)]
        results: list[Mapping[str, Any]] = []

        def hear(line: str) -> None:
            if task := read_task(line):
                self._voice.doing = f"running {task}"
                say(f"  {task}")
            if message := _MESSAGE.search(line):
                say(f"    {message['text']}")
            if (result := read_result(line)) is not None:
                results.append(result)

        program = self._start(f"night-{night.number}", command)
        self._finish(program, _NIGHT_SECONDS, hear, is_to_fail=night.is_to_fail)
        if not results:
            raise DemoFailedError(f"night {night.number}: the DAG printed no promotion record.\nSee {program.log}.")
        known = {candidate.version for outcome in earlier for candidate in outcome.candidates}
        with self._naming_logs(program.log.name, _SERVE_LOG):
            outcome = Outcome(
                night=night,
                promotion=results[-1]["promotion"],
                served_accuracy=results[-1].get("served_accuracy"),
                candidates=[candidate for candidate in server.candidates() if candidate.version not in known],
                deployments=server.deployments(),
                answered_by=(answered_by := server.answering_version({"instances": server.input_example(1)})),
                is_as_recorded=server.is_as_recorded(answered_by),
                seconds=time.monotonic() - begin,
            )
            check_night(outcome, earlier)
        accuracy = outcome.served_accuracy
        how = "as before" if accuracy is None else f"with accuracy {accuracy:.3f} on held-out images"
        say(f"Night {night.number}: {night.outcome}; version {outcome.version} answers, {how}")
        if prober is not None and outcome.rejected is not None:
            say(f"Night {night.number}: {rejected_answers(outcome.rejected, prober.answered - before)}")
        return outcome

    @contextmanager
    def _naming_logs(self, *names: str) -> Iterator[None]:
        """Add the paths of logs to a failure."""
        try:
            yield
        except DemoFailedError as error:
            logs = " and ".join(str(self._folder / name) for name in names)
            raise DemoFailedError(f"{error}\nSee {logs}.") from error

    def _serve(self) -> Server:
        """Start the local Model Serving and wait until it is ready."""
        self._voice.say("Starting the local Model Serving")
        self._voice.doing = "starting the local Model Serving"
        root = self._folder / "serving"
        command = [sys.executable, "-m", "airflow_provider_hsml.local.cli", "serve", "--root", str(root), "--port", "0"]
        process = self._start("serve", command, apart=self._folder / "serve.out", kept=self._keep)
        deadline = time.monotonic() + _SERVE_SECONDS
        while (ready := ready_line(self._folder)) is None:
            if process.popen.poll() is not None or time.monotonic() > deadline:
                raise DemoFailedError(f"the local Model Serving did not start.\nSee {process.log}.")
            time.sleep(0.05)
        server = Server(ready)
        self._env["AIRFLOW_CONN_HSML_DEFAULT"] = server.connection()
        self._voice.say(
            f"The local Model Serving is ready, with project {ready['project']!r}. Watch it in its console:"
        )
        print(f"\n    {server.console}\n")
        print("Your browser will warn about the certificate: the server signed it itself.\n", flush=True)
        return server

    def _start(self, name: str, command: list[str], *, apart: Path | None = None, kept: bool = False) -> Program:
        """
        Start a process in a session of its own, to be ended with the demo.

        :param name: the name of its log
        :param apart: a file for its standard output; None if ``_finish`` reads it
        :param kept: whether it keeps running after a successful demo
        """
        with self._interrupts.held():
            with (self._folder / f"{name}.log").open("wb") as log, ExitStack() as files:
                popen = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE if apart is None else files.enter_context(apart.open("wb")),
                    stderr=log if apart else subprocess.STDOUT,
                    env=self._env,
                    cwd=self._folder,
                    start_new_session=True,
                )
            log_path = self._folder / f"{name}.log"
            # A run of Airflow can be cut off; the server needs time to end its model servers.
            program = Program(name, popen, log_path, _END_SECONDS if apart is None else END_SERVER_SECONDS)

            def end(kind: type[BaseException] | None, _error: object, _traceback: object) -> None:
                if kind is not None or not kept:
                    program.end()

            self._ends.push(end)
        return program

    def _finish(
        self,
        program: Program,
        seconds: float,
        hear: Callable[[str], None] | None = None,
        *,
        is_to_fail: bool = False,
    ) -> None:
        """
        Read the output of a process until it ends.

        :param seconds: time limit, after which the process is ended
        :param hear: called with each line
        :param is_to_fail: whether the process is expected to fail
        """
        timer = threading.Timer(seconds, program.end)
        timer.daemon = True
        timer.start()
        begin = time.monotonic()
        try:
            last = program.read(hear or (lambda _line: None))
            code = program.popen.wait()
        finally:
            timer.cancel()
        if code == 0 and is_to_fail:
            raise DemoFailedError(f"{program.name} succeeded, but was expected to fail.\nSee {program.log}.")
        if code == int(is_to_fail):
            return
        if time.monotonic() - begin >= seconds:
            raise DemoFailedError(f"{program.name} took longer than {seconds:.0f} s.\nSee {program.log}.")
        for line in last:
            print(f"    {line}")
        raise DemoFailedError(f"{program.name} ended with exit code {code}.\nSee {program.log}.")

    def _next_steps(self, server: Server) -> str:
        python = Path(sys.executable)
        _, _, export = (self._folder / "serve.out").read_text().partition("\n")
        return f"""
The local Model Serving keeps running (process {server.pid}), with the results of the nights. Its console:

    {server.console}

Try:

export AIRFLOW_HOME={self._folder / "airflow"} AIRFLOW__CORE__LOAD_EXAMPLES=False \
AIRFLOW__CORE__DAGS_FOLDER={_CHECKOUT / "example_dags"}
{export.strip()}
{python.with_name("airflow")} dags test {DAG} 2026-11-05
{python.with_name("airflow")} dags test start_predict_stop
curl --cacert {server.ca_bundle} -H "Authorization: ApiKey $(cat {server.key_file})" \
{server.url}{server.path("serving")}

Stop it with: kill {server.pid}"""


def _environment(airflow_home: Path) -> dict[str, str]:
    """Return the environment of the processes, without the user's own settings of Airflow, cluster or proxy."""
    inherited = {name: value for name, value in os.environ.items() if not _NOT_INHERITED.fullmatch(name)}
    return inherited | {
        "AIRFLOW_HOME": str(airflow_home),
        # Where the DAG hands trained models over: a folder here, a bucket where tasks share no files.
        "AIRFLOW_VAR_TRAINED_MODELS": f"file://{airflow_home.parent / 'trained'}",
        "AIRFLOW__CORE__DAGS_FOLDER": str(_CHECKOUT / "example_dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "NO_COLOR": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        # Several threads per process slow training down, because the model server needs the cores as well.
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }
