"""
``hsml-local demo``, which is what ``make demo`` runs: from training to a live model, three nights of it, for real.

In a checkout of the project: Airflow runs ``example_dags/retrain_and_deploy.py`` against a local Model Serving, whose
model server answers predictions all the while. The first night trains weak candidates, and a deployment is created; the
second one better ones, and the deployment is updated while a prober keeps asking it; the third one worse ones, and what
is in production is kept. Everything is below ``.demo/`` in the checkout, and made anew each time.

Airflow, the server and the builder of its environment are processes of their own, each in a session of its own: Ctrl-C
is for us, and we end them in order. What came of a night is asked of the server; what the task that deploys says of it
comes from the line of JSON that the DAG's last task prints.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import http.client
import importlib.util
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from .engines import VERSION_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType, TracebackType

DAG = "retrain_and_deploy"
DEPLOYMENT = MODEL = "digits"
CANDIDATES = 3
CERTAIN = ("fingerprint", "instances")
"""How a deployment can be verified by more than its status."""

_CHECKOUT = Path(__file__).resolve().parents[2]
_NEEDED = ("airflow", "filelock", "joblib", "sklearn", "starlette", "trustme", "uvicorn")
_SILENCE_SECONDS = 15.0
_END_SECONDS = 2.0
_END_SERVER_SECONDS = 20.0
_PREPARE_SECONDS = 900.0
_MIGRATE_SECONDS = 180.0
_SERVE_SECONDS = 60.0
_NIGHT_SECONDS = 300.0
_BETWEEN_PROBES = 0.1
_PROBE_SECONDS = 10.0
# What the provider logs, in a line of Airflow's: "<time> [info     ] <text> [<logger>] loc=...".
_SAID = re.compile(r"\] (?P<text>(?!Uploading ).+?) +\[(?:airflow\.task\.operators\.)?airflow_provider_hsml\.[\w.]+\]")
_NOT_INHERITED = re.compile(r"(AIRFLOW|HOPSWORKS|HSML)_.*|REST_ENDPOINT|SECRETS_DIR|PYTHONDONTWRITEBYTECODE|PYTHONPATH")


@dataclass(frozen=True, slots=True)
class Night:
    """
    A night, and what is to come of it.

    :param number: which one
    :param conf: the run's parameters, where they are not the DAG's own
    :param kind: how good its candidates are
    :param action: what the deploying task is to do
    :param outcome: the same in words
    """

    number: int
    conf: Mapping[str, Any]
    kind: str
    action: str
    outcome: str

    @property
    def date(self) -> str:
        """The day that it belongs to."""
        return f"2026-11-{self.number:02}"


NIGHTS = (
    Night(1, {"training_images": 30}, "weak candidates", "created", "the deployment is created"),
    Night(2, {}, "better candidates", "updated", "the deployment is updated while it answers"),
    Night(3, {"training_images": 100}, "worse candidates", "kept", "production is kept"),
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version that a night registered."""

    version: int
    algorithm: str
    accuracy: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What came of a night.

    :param promotion: the promotion record, as the deploying task returned it
    :param served_accuracy: of the predictions that the deployment gave on held-out rows
    :param candidates: what was registered
    :param deployments: ids of all deployments there are afterwards
    :param answered_by: the version of the model in the process that answers afterwards
    :param seconds: how long Airflow took
    """

    night: Night
    promotion: Mapping[str, Any]
    served_accuracy: float
    candidates: Sequence[Candidate]
    deployments: Sequence[int]
    answered_by: int
    seconds: float

    @property
    def version(self) -> int:
        """The version that is served, says the record."""
        return int(self.promotion["model_version"])


class DemoFailedError(Exception):
    """The demo did not show what it is there to show; the message says why."""


class _InterruptedError(BaseException):
    """A signal asks us to end."""


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the demo.

    :param argv: its arguments; None: those of the process
    :return: the exit code
    """
    parser = argparse.ArgumentParser(prog="hsml-local demo", description="Three nights of a real DAG on this machine.")
    parser.add_argument("--keep", action="store_true", help="leave the local Model Serving up")
    given = parser.parse_args(argv)
    demo = _CHECKOUT / ".demo"
    try:
        _check_checkout()
        with _Interrupts() as interrupts, _Lock(demo), ExitStack() as ends, interrupts.heeded():
            _Demo(demo, interrupts, ends, keep=given.keep).run()
    except DemoFailedError as error:
        if demo.is_dir():
            print(f"Where to look: {', '.join(str(log) for log in sorted(demo.glob('*.log')))}", flush=True)
        print(f"DEMO FAILED: {error}", flush=True)
        return 1
    except _InterruptedError as error:
        print(f"DEMO FAILED: {error}", flush=True)
        return 1
    return 0


def _check_checkout() -> None:
    if not (_CHECKOUT / "example_dags" / f"{DAG}.py").is_file():
        raise DemoFailedError("it needs a checkout of the project, with its example_dags: clone it and run make demo.")
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise DemoFailedError(
            f"{sys.executable} cannot import {', '.join(missing)}: run make demo, which installs what it needs.",
        )


# --- The demo ---------------------------------------------------------------------------------------------------------


class _Demo:
    """
    One run of the demo.

    :param folder: everything is below it
    :param ends: what is to be undone when it ends
    :param keep: whether to leave the server up
    """

    def __init__(self, folder: Path, interrupts: _Interrupts, ends: ExitStack, *, keep: bool) -> None:
        self._folder = folder
        self._interrupts = interrupts
        self._ends = ends
        self._keep = keep
        self._voice = _Voice()
        self._env = _environment(folder / "airflow")

    def run(self) -> None:
        """
        Run it.

        :raises DemoFailedError: at the first thing that is not as it should be
        """
        self._ends.enter_context(self._voice)
        say = self._voice.say
        say(f"Everything is below {self._folder}")
        _end_kept_server(self._folder, say)
        _empty(self._folder)
        say("Airflow makes its database (SQLite), while the model server's environment is made ready")
        migrating = self._start("migrate", [sys.executable, "-m", "airflow", "db", "migrate"])
        self._finish(
            self._start("prepare", [sys.executable, "-m", "airflow_provider_hsml.local.cli", "prepare"]),
            _PREPARE_SECONDS,
            say,
        )
        server = self._serve()
        self._finish(migrating, _MIGRATE_SECONDS)
        outcomes: list[Outcome] = []
        prober: _Prober | None = None
        for night in NIGHTS:
            outcomes.append(self._night(night, server, outcomes))
            if prober is None:
                prober = _Prober(server, {"instances": server.input_example(outcomes[0].version)})
                self._ends.callback(prober.end)
                prober.start()
                say("From now on a prober asks the deployment for a prediction ten times a second")
        assert prober is not None  # noqa: S101 - there are nights
        prober.end()
        check_prober(prober.answered, prober.failures, outcomes)
        print()
        print(table(outcomes))
        print()
        print(prober.report())
        if self._keep:
            print(self._how_to_look_around(server))
        print(f"DEMO OK: three nights in {self._voice.seconds:.0f} s", flush=True)

    def _night(self, night: Night, server: _Server, earlier: Sequence[Outcome]) -> Outcome:
        say = self._voice.say
        say(f"Night {night.number}, {night.kind}: airflow dags test {DAG} {night.date}")
        begin = time.monotonic()
        command = [sys.executable, "-m", "airflow", "dags", "test", DAG, night.date]
        if night.conf:
            command += ["--conf", json.dumps(night.conf)]
        results: list[Mapping[str, Any]] = []

        def hear(line: str) -> None:
            if said := _SAID.search(line):
                say(f"  {said['text']}")
            if (result := read_result(line)) is not None:
                results.append(result)

        self._finish(self._start(f"night-{night.number}", command), _NIGHT_SECONDS, hear)
        if not results:
            raise DemoFailedError(f"night {night.number}: the DAG's last task said nothing.")
        known = {candidate.version for outcome in earlier for candidate in outcome.candidates}
        outcome = Outcome(
            night=night,
            promotion=results[-1]["promotion"],
            served_accuracy=results[-1]["served_accuracy"],
            candidates=[candidate for candidate in server.candidates() if candidate.version not in known],
            deployments=server.deployments(),
            answered_by=server.answering_version({"instances": server.input_example(1)}),
            seconds=time.monotonic() - begin,
        )
        check_night(outcome, earlier)
        say(
            f"Night {night.number}: {night.outcome}; version {outcome.version} answers, with accuracy "
            f"{outcome.served_accuracy:.3f} on held-out images",
        )
        return outcome

    def _serve(self) -> _Server:
        """Start the local Model Serving, and return when it is ready."""
        self._voice.say("Starting the local Model Serving")
        root = self._folder / "serving"
        command = [sys.executable, "-m", "airflow_provider_hsml.local.cli", "serve", "--root", str(root), "--port", "0"]
        process = self._start("serve", command, apart=self._folder / "serve.out", kept=self._keep)
        deadline = time.monotonic() + _SERVE_SECONDS
        while (ready := _ready_line(self._folder)) is None:
            if process.popen.poll() is not None or time.monotonic() > deadline:
                raise DemoFailedError("the local Model Serving did not start: see serve.log.")
            time.sleep(0.05)
        server = _Server(ready)
        self._env["AIRFLOW_CONN_HSML_DEFAULT"] = server.connection()
        self._voice.say(f"The local Model Serving answers at {ready['url']}, project {ready['project']!r}")
        return server

    def _start(self, name: str, command: list[str], *, apart: Path | None = None, kept: bool = False) -> _Program:
        """
        Start a process in a session of its own, which is ended when the demo ends.

        :param name: of its log
        :param apart: a file for its standard output; None: read by ``_finish``
        :param kept: whether it stays when the demo succeeds
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
            # A run of Airflow may be cut off; the server has model servers to end.
            program = _Program(name, popen, log_path, _END_SECONDS if apart is None else _END_SERVER_SECONDS)

            def end(kind: type[BaseException] | None, _error: object, _traceback: object) -> None:
                if kind is not None or not kept:
                    program.end()

            self._ends.push(end)
        return program

    def _finish(self, program: _Program, seconds: float, hear: Callable[[str], None] | None = None) -> None:
        """
        Read what a process prints until it ends.

        :param seconds: how long it may take
        :param hear: told each line
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
        if code == 0:
            return
        if time.monotonic() - begin >= seconds:
            raise DemoFailedError(f"{program.name} took longer than {seconds:.0f} s: see {program.log.name}.")
        for line in last:
            print(f"    {line}")
        raise DemoFailedError(f"{program.name} ended with exit code {code}: see {program.log.name}.")

    def _how_to_look_around(self, server: _Server) -> str:
        python = Path(sys.executable)
        _, _, export = (self._folder / "serve.out").read_text().partition("\n")
        return f"""
The local Model Serving stays up at {server.url} (process {server.pid}), with all that the nights left. Look around:

export AIRFLOW_HOME={self._folder / "airflow"} AIRFLOW__CORE__LOAD_EXAMPLES=False \
AIRFLOW__CORE__DAGS_FOLDER={_CHECKOUT / "example_dags"}
{export.strip()}
{python.with_name("airflow")} dags test {DAG} 2026-11-04
{python.with_name("airflow")} dags test start_predict_stop
curl --cacert {server.ca_bundle} -H "Authorization: ApiKey $(cat {server.key_file})" \
{server.url}{server.path("serving")}

Stop it with: kill {server.pid}
"""


def _environment(airflow_home: Path) -> dict[str, str]:
    """Give the environment of what we start: nobody's own Airflow, cluster or proxy gets into it."""
    inherited = {name: value for name, value in os.environ.items() if not _NOT_INHERITED.fullmatch(name)}
    return inherited | {
        "AIRFLOW_HOME": str(airflow_home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(_CHECKOUT / "example_dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "NO_COLOR": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        # Several threads a process, on two cores that the model server wants as well, make training slower.
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }


def read_result(line: str) -> Mapping[str, Any] | None:
    """
    Find the DAG's result in a line of its output.

    :param line: what Airflow printed
    """
    start = line.find('{"promotion": ')
    if start < 0:
        return None
    try:
        result, _ = json.JSONDecoder().raw_decode(line, start)
    except ValueError:
        return None
    return result if isinstance(result, dict) and "served_accuracy" in result else None


# --- What is to come of it --------------------------------------------------------------------------------------------


def check_night(outcome: Outcome, earlier: Sequence[Outcome]) -> None:
    """
    Check that a night did what it is there to show.

    :param outcome: the night
    :param earlier: the nights before it
    :raises DemoFailedError: it did not
    """
    promotion, number = outcome.promotion, outcome.night.number

    def expect(fact: object, what: str, wanted: object) -> None:
        if fact != wanted:
            raise DemoFailedError(f"night {number}: {what} is {fact!r}, expected {wanted!r}.")

    best = max((candidate.accuracy for candidate in outcome.candidates), default=None)
    expect(len(outcome.candidates), "the number of versions registered", CANDIDATES)
    expect(promotion["action"], "what the deploying task did", outcome.night.action)
    expect(promotion["verified_by"] in CERTAIN, f"verified_by={promotion['verified_by']!r} in {CERTAIN}", wanted=True)
    expect(outcome.answered_by, "the version in the process that answers", outcome.version)
    expect(outcome.deployments, "the list of deployments", [promotion["deployment_id"]])
    expect(round(outcome.served_accuracy, 6), "the accuracy served", round(promotion["metric_value"], 6))
    if outcome.night.action == "kept":
        expect(outcome.version, "the version kept", earlier[-1].version)
        expect(best is not None and best < outcome.served_accuracy, "that all candidates are worse", wanted=True)
    else:
        expect(best, "the best accuracy of the night", promotion["metric_value"])
        expect(
            outcome.version in [candidate.version for candidate in outcome.candidates],
            "that one of the night's candidates is served",
            wanted=True,
        )
    if earlier:
        expect(outcome.deployments, "the list of deployments", earlier[-1].deployments)


def check_prober(answered: Mapping[int, int], failures: Sequence[str], outcomes: Sequence[Outcome]) -> None:
    """
    Check that requests were answered all the while, by the versions that were served.

    :param answered: version -> how many requests it answered
    :param failures: what was said to those that were not
    :param outcomes: the nights
    :raises DemoFailedError: they were not
    """
    if failures:
        raise DemoFailedError(f"{len(failures)} of the prober's requests failed, the first with: {failures[0]}")
    served = sorted({outcome.version for outcome in outcomes})
    if sorted(answered) != served:
        raise DemoFailedError(f"the prober was answered by versions {sorted(answered)}, expected {served}.")


def table(outcomes: Sequence[Outcome]) -> str:
    """
    Show the nights.

    :param outcomes: the nights
    """
    head = ("night", "candidates, accuracy", "action", "serves", "verified by", "accuracy served", "seconds")
    rows: list[Sequence[str]] = [head]
    for outcome in outcomes:
        facts = (
            outcome.promotion["action"],
            f"version {outcome.version}",
            str(outcome.promotion["verified_by"]),
            f"{outcome.served_accuracy:.3f}",
            f"{outcome.seconds:.0f}",
        )
        for row, candidate in enumerate(outcome.candidates):
            shown = f"version {candidate.version}, {candidate.algorithm}: {candidate.accuracy:.3f}"
            rows.append((str(outcome.night.number), shown, *facts) if row == 0 else ("", shown))
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(len(head))]
    lines = ["  ".join(f"{cell:<{widths[column]}}" for column, cell in enumerate(row)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


# --- The server -------------------------------------------------------------------------------------------------------


class _Server:
    """
    The local Model Serving, as a client that is not the provider sees it.

    :param ready: what it printed when it was ready
    """

    def __init__(self, ready: Mapping[str, Any]) -> None:
        self.url: str = ready["url"]
        self.pid: int = ready["pid"]
        self.ca_bundle: str = ready["ca_bundle"]
        self.key_file: str = ready["api_key_file"]
        self._project: str = ready["project"]
        self._project_id: int = ready["project_id"]
        address = urlsplit(self.url)
        self._host, self._port = str(address.hostname), int(address.port or 443)
        self._tls = ssl.create_default_context(cafile=self.ca_bundle)

    def connection(self) -> str:
        """Give the JSON text of the Airflow connection; it holds the API key."""
        return json.dumps(
            {
                "conn_type": "hsml",
                "host": self._host,
                "port": self._port,
                "password": self._key(),
                "extra": {"project": self._project, "ca_bundle": self.ca_bundle},
            },
        )

    def path(self, below: str) -> str:
        """
        Give the path of something in the project.

        :param below: what comes after the project
        """
        return f"/hopsworks-api/api/project/{self._project_id}/{below}"

    def send(self, method: str, below: str, body: Mapping[str, Any] | None = None) -> tuple[int, str | None, bytes]:
        """
        Send a request.

        :param method: GET or POST
        :param below: the path, below the project
        :param body: sent as JSON
        :return: the status, the version of the model in the process that answered, and the content
        """
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=_PROBE_SECONDS, context=self._tls)
        headers = {"authorization": f"ApiKey {self._key()}", "content-type": "application/json"}
        try:
            connection.request(method, self.path(below), None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.headers.get(VERSION_HEADER), answer.read()
        finally:
            connection.close()

    def read(self, below: str) -> Any:
        """
        Read JSON.

        :param below: the path, below the project
        :raises DemoFailedError: the server refuses
        """
        status, _, content = self.send("GET", below)
        if status != 200:
            raise DemoFailedError(f"the local Model Serving answers {status} to GET {below}: {content[:300]!r}")
        return json.loads(content)

    def candidates(self) -> list[Candidate]:
        """List the versions of the model."""
        listed = self.read(f"modelregistries/{self._project_id}/models?filter_by=name_eq:{MODEL}&expand=metrics")
        return sorted(
            (
                Candidate(row["version"], row["description"].partition(",")[0], row["metrics"]["accuracy"])
                for row in listed.get("items", [])
            ),
            key=lambda candidate: candidate.version,
        )

    def deployments(self) -> list[int]:
        """List the ids of all deployments."""
        return [row["id"] for row in self.read("serving")]

    def input_example(self, version: int) -> Any:
        """
        Read a version's input example.

        :param version: the version
        """
        return self.read(f"dataset/download/with_auth/Models/{MODEL}/{version}/input_example.json")

    def answering_version(self, body: Mapping[str, Any]) -> int:
        """
        Ask for a prediction, and give the version of the model in the process that answers.

        :param body: of the request
        :raises DemoFailedError: it is not answered
        """
        status, version, content = self.send("POST", f"inference/models/{DEPLOYMENT}:predict", body)
        if status != 200 or not version:
            raise DemoFailedError(f"the deployment answers {status} to a prediction: {content[:300]!r}")
        return int(version)

    def _key(self) -> str:
        return Path(self.key_file).read_text().strip()


class _Prober(threading.Thread):
    """
    Keeps asking the deployment for predictions.

    :param server: where it is
    :param body: of the requests
    """

    def __init__(self, server: _Server, body: Mapping[str, Any]) -> None:
        super().__init__(name="prober", daemon=True)
        self.answered: Counter[int] = Counter()
        self.failures: list[str] = []
        self._server = server
        self._body = body
        self._ended = threading.Event()

    def run(self) -> None:
        """Ask until the end."""
        while not self._ended.wait(_BETWEEN_PROBES):
            try:
                self.answered[self._server.answering_version(self._body)] += 1
            except (DemoFailedError, OSError, http.client.HTTPException) as error:
                self.failures.append(f"{type(error).__name__}: {error}")

    def end(self) -> None:
        """End, and return when it has."""
        self._ended.set()
        if self.is_alive():
            self.join()

    def report(self) -> str:
        """Say how it went."""
        versions = ", ".join(f"version {version}: {count}" for version, count in sorted(self.answered.items()))
        asked = self.answered.total() + len(self.failures)
        return f"Prober, during nights 2 and 3: {asked} requests, {len(self.failures)} failed; answered by {versions}"


# --- Processes and folders --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Program:
    """A process that we started, the leader of its session."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    end_seconds: float
    """How long it may take to end in order."""

    def read(self, hear: Callable[[str], None]) -> list[str]:
        """
        Read what it prints into its log, until it closes its output.

        :param hear: told each line
        :return: the last lines that speak of errors
        """
        assert self.popen.stdout is not None  # noqa: S101 - it was asked for
        errors: list[str] = []
        with self.log.open("ab", buffering=0) as log:
            for line in self.popen.stdout:
                log.write(line)
                text = line.decode("utf-8", "replace").rstrip()
                if re.search(r"\[error|Error\b|Exception\b", text):
                    errors = [*errors, text[:300]][-5:]
                hear(text)
        return errors

    def end(self) -> None:
        """End it and all in its session, and return when it has ended."""
        if self.popen.poll() is not None:  # Once it has been waited for, its id may be somebody else's.
            return
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(self.end_seconds)
        self._signal(signal.SIGKILL)
        self.popen.wait()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, number)


class _Lock:
    """
    Keeps a second demo out of the folder.

    :param folder: made where there is none
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Self:
        self._folder.mkdir(exist_ok=True)
        self._file = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise DemoFailedError(f"another demo is at work in {self._folder}: wait for it, or end it.") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._file)


def _empty(folder: Path) -> None:
    """Remove what earlier demos left."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "lock":
            path.unlink()


def _ready_line(folder: Path) -> dict[str, Any] | None:
    """Read what the server printed when it was ready; None when there is nothing yet."""
    with contextlib.suppress(OSError, ValueError):
        first, newline, _ = (folder / "serve.out").read_text().partition("\n")
        ready = json.loads(first) if newline else None
        return ready if isinstance(ready, dict) else None
    return None


def _end_kept_server(folder: Path, say: Callable[[str], None]) -> None:
    """End the server that an earlier demo left up. It holds the lock of its root for as long as it lives."""
    lock = folder / "serving" / "lock"
    if not lock.exists() or _is_free(lock):
        return
    ready = _ready_line(folder)
    if ready is None:
        raise DemoFailedError(f"a local Model Serving has {lock.parent}: end it, and try again.")
    say(f"Ending the local Model Serving that an earlier demo left up (process {ready['pid']})")
    with contextlib.suppress(ProcessLookupError):
        os.kill(ready["pid"], signal.SIGTERM)
    deadline = time.monotonic() + _END_SERVER_SECONDS
    while not _is_free(lock):
        if time.monotonic() > deadline:
            raise DemoFailedError(f"process {ready['pid']} has {lock.parent} and does not end: end it, and try again.")
        time.sleep(0.1)


def _is_free(lock: Path) -> bool:
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


# --- Words and signals ------------------------------------------------------------------------------------------------


class _Voice:
    """Says what is being done, with the seconds so far; and when nothing was said for a while, that it goes on."""

    def __init__(self) -> None:
        self._begin = self._last = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="voice", daemon=True)

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._begin

    def say(self, text: str) -> None:
        """
        Say something.

        :param text: one line
        """
        self._last = time.monotonic()
        print(f"[{self.seconds:4.0f} s] {text}", flush=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _go_on(self) -> None:
        while not self._ended.wait(1.0):
            if time.monotonic() - self._last > _SILENCE_SECONDS:
                self.say("  ...")


class _Interrupts:
    """Turns SIGINT, SIGTERM and SIGHUP into an exception: once, and not while something must not be cut in two."""

    _NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self._came: signal.Signals | None = None
        self._is_held = True

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._arrived) for number in self._NUMBERS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            # Once one came, the process is about to end, and a second Ctrl-C is no reason to end in another way.
            signal.signal(number, handler if self._came is None else signal.SIG_IGN)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold what comes back until the block is left."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        self._raise()

    @contextlib.contextmanager
    def heeded(self) -> Iterator[None]:
        """Raise what comes while the block is run. What comes later, while everything is ended, changes nothing."""
        self._is_held = False
        try:
            yield
        finally:
            self._is_held = True

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        is_first, self._came = self._came is None, signal.Signals(number)
        if is_first and not self._is_held:
            self._raise()

    def _raise(self) -> None:
        if self._came is not None:
            raise _InterruptedError(f"interrupted by {self._came.name}; what it had started has been ended.")


if __name__ == "__main__":
    raise SystemExit(main())
