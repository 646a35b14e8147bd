"""
``hsml-doctor`` against the local Model Serving of each line: what it expects, what it reports, and what it leaves.

The model is the doctor's own script, run in this process.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.doctor import cli, trial
from airflow_provider_hsml.doctor.cli import AS_EXPECTED, COULD_NOT_RUN, DIFFERS, main
from airflow_provider_hsml.doctor.known import Known
from airflow_provider_hsml.hooks import HsmlHook
from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.errors import HopsworksError
from airflow_provider_hsml.hopsworks.promotion import leases
from airflow_provider_hsml.hopsworks.promotion.journal import FOLDER
from airflow_provider_hsml.hopsworks.registry.upload import upload_bytes
from airflow_provider_hsml.hopsworks.transport import request
from airflow_provider_hsml.hopsworks.transport.client import Client
from airflow_provider_hsml.local import (
    AccessOptions,
    Administration,
    LocalServing,
    Looks,
    RequestFault,
    Speeds,
    StartFault,
)
from airflow_provider_hsml.testing import short_waits
from tests.support.secrecy import Search

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_hsml.local import ModelFiles

pytestmark = pytest.mark.hopsworks

LINES = ("5.2", "4.6", "3.7")
PROJECT = "moonbase"
DIFFERENCES = {
    "route-absent": "501/120004",  # The local server names the routes that it does not have, with a status of its own.
    "model-monitoring": "501/120004",  # It has no monitoring.
}
"""The answers of the local Model Serving that differ from those of Hopsworks: docs/guides/doctor.md has them, too."""
SPEEDS = Speeds(starting=Looks(8), stale=Looks(3), updating=Looks(12))
"""Counted in looks at the deployment: on a busy machine, no status passes unseen."""
FILES_KEY, JOBS_KEY = "no.scope-of-files", "only.the-jobs-scope"
KEYS = {FILES_KEY: {"PROJECT", "SERVING", "MODELREGISTRY"}, JOBS_KEY: {"PROJECT", "JOB"}}
VERSIONS = {"own-versions", "put-outdated", "rollback", "rolled-back", "rolled-back-answers", "rollback-updating"}
"""The questions about versions of deployments, which 5.2 brought."""


def run_script(model: ModelFiles) -> Callable[[Any], Any]:
    """Load the doctor's script, with the environment variables of its deployment."""
    assert model.script is not None
    scope: dict[str, Any] = {}
    exec(compile(model.script.read_text(), "predictor.py", "exec"), scope)  # noqa: S102 - the doctor's own script
    scope["os"] = SimpleNamespace(environ=model.env)
    predict: Callable[[Any], Any] = scope["Predict"]().predict
    return predict


@pytest.fixture(scope="module", autouse=True)
def pace() -> Iterator[None]:
    """Waits of a local server's length."""
    with short_waits(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "INTERVAL", 0.02)
        patch.setattr(trial, "CHANGE_SECONDS", 10.0)
        yield


@pytest.fixture(scope="module")
def servers() -> Iterator[Callable[[str], LocalServing]]:
    """Starts a server of a line, once."""
    started: dict[str, LocalServing] = {}
    with contextlib.ExitStack() as stack:

        def server(line: str) -> LocalServing:
            if line not in started:
                serving = LocalServing(
                    project=PROJECT,
                    engine=run_script,
                    hopsworks_version=line,
                    speeds=SPEEDS,
                    access=AccessOptions(KEYS),
                )
                started[line] = stack.enter_context(serving)
            return started[line]

        yield server


@pytest.fixture
def serving(servers: Callable[[str], LocalServing], monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalServing]:
    """A server of the newest line, as the default connection."""
    serving = servers("5.2")
    monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", serving.connection)
    monkeypatch.setattr(request, "ATTEMPTS", 1)
    serving.requests.clear()
    yield serving
    serving.reset(everything=True)


@dataclass(frozen=True)
class Run:
    """A run of the command."""

    code: int
    text: str
    said: str
    report: dict[str, Any]

    def of(self, verdict: str) -> dict[str, str]:
        """Return the answers with this verdict, by the check's id."""
        return {one["id"]: one["answer"] for one in self.report["checks"] if one["verdict"] == verdict}


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Run]:
    """Runs the command."""
    return lambda *arguments: run_in(tmp_path, *arguments)


def run_in(folder: Path, *arguments: str) -> Run:
    path, text, said = folder / "report.json", io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(said):
        code = main([*arguments, "--json", str(path)])
    content = path.read_text() if path.exists() else ""
    return Run(code, text.getvalue(), said.getvalue(), json.loads(content) if content else {})


def left(serving: LocalServing) -> dict[str, Any]:
    """Return what there is in a project, other than empty folders."""
    project = serving.world.project(serving.project_id)
    return {
        "deployments": [row["name"] for _, row in project.deployments.stored.all()],
        "models": [row["id"] for row in project.registry.find().get("items", [])],
        "files": sorted(
            str(path.relative_to(serving.root))
            for path in serving.root.rglob("*")
            if path.is_file() and ("lease-" in path.name or "hsmldoctor" in str(path.relative_to(serving.root)))
        ),
    }


NOTHING: dict[str, Any] = {"deployments": [], "models": [], "files": []}


@pytest.fixture(scope="module", params=LINES)
def line(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def whole(line: str, servers: Callable[[str], LocalServing], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with ``--write``, for each line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_HSML_DEFAULT", servers(line).connection)
        return run_in(tmp_path_factory.mktemp("report"), "--write")


class TestEachLine:
    def test_nothing_differs_but_what_is_documented(self, line: str, whole: Run) -> None:
        documented = DIFFERENCES if line == "5.2" else {"route-absent": DIFFERENCES["route-absent"]}

        assert whole.of("differs") == documented
        assert whole.of("no answer") == {}
        assert whole.code == DIFFERS

    def test_everything_is_asked(self, line: str, whole: Run) -> None:
        never = {one["id"] for one in whole.report["checks"] if one["section"] == "Never asked"}
        not_asked = set(whole.of("not asked")) - never - {"stop"}  # Where STOP is accepted while Updating.

        assert not_asked == (set() if line == "5.2" else VERSIONS)

    def test_says_which_hopsworks_it_is(self, line: str, whole: Run) -> None:
        sdk = {"5.2": "5.1 to 5.2", "4.6": "4.6", "3.7": "hsml 3.x"}[line]

        assert whole.report["hopsworks"] == {"version": f"{line}.0", "sdk_line": sdk}
        assert whole.text.startswith(f"Hopsworks {line}.0, compared with SDK {sdk}\n")

    def test_shows_how_the_status_moves(self, whole: Run) -> None:
        def statuses(event: str) -> list[str]:
            states = [one["state"].partition(",")[0] for one in whole.report["timeline"] if one["event"] == event]
            return [one for number, one in enumerate(states) if states[number - 1 : number] != [one]]

        assert statuses("start") == ["Starting", "Running"]
        assert statuses("update")[-2:] == ["Updating", "Running"]
        assert statuses("start to fail") == ["Starting", "Failed"]
        assert [one["seconds"] for one in whole.report["timeline"]] == sorted(
            one["seconds"] for one in whole.report["timeline"]
        )

    def test_leaves_nothing(self, line: str, whole: Run, servers: Callable[[str], LocalServing]) -> None:
        assert whole.report["remarks"] == []
        assert left(servers(line)) == NOTHING

    def test_names_neither_key_nor_host_nor_project_nor_user(
        self, line: str, whole: Run, servers: Callable[[str], LocalServing]
    ) -> None:
        search = Search()
        search.add("text", whole.text)
        search.add("json", json.dumps(whole.report, ensure_ascii=False))
        key = servers(line).api_key

        for secret in (key, key.rpartition(".")[2], PROJECT, "local000", "127.0.0.1", "hopsworks.local"):
            assert search.places_of(secret) == set(), secret
        assert search.places_of("Failed to run") == {"text", "json"}


class TestPage:
    PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "doctor.md").read_text()

    def test_shows_what_the_command_prints(self, line: str, whole: Run) -> None:
        shown = re.findall(r"^  (?:ok|DIFFERS) +(\S+): (.*)$", self.PAGE, re.MULTILINE)
        answers = {one["id"]: one["answer"] for one in whole.report["checks"]}

        assert len(shown) > 8
        assert line != "5.2" or dict(shown) == {name: answers[name] for name, _ in shown}

    def test_says_what_differs_on_the_local_server(self) -> None:
        assert dict(re.findall(r"^\| `([a-z-]+)` \| (\d+/\d+) \|", self.PAGE, re.MULTILINE)) == DIFFERENCES

    def test_has_each_argument(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(["--help"])

        for argument in set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}:
            assert argument in self.PAGE


class TestReading:
    def test_changes_nothing(self, serving: LocalServing, run: Callable[..., Run]) -> None:
        found = run()

        # A POST asks for a prediction of a deployment that does not exist.
        posts = {(one.method, one.path.rpartition("/")[2]) for one in serving.requests if one.method != "GET"}
        assert posts == {("POST", "hsmldoctornosuchname:predict"), ("POST", "hsmldoctornosuchname")}
        assert left(serving) == NOTHING
        assert found.of("differs") == {"route-absent": "501/120004"}
        assert found.of("not asked")["started"] == "it needs --write"

    def test_all_as_expected_is_0(self, serving: LocalServing, run: Callable[..., Run]) -> None:
        serving.faults.add(
            RequestFault(path=f"/project/{serving.project_id}/hsmldoctornosuchname", status=404, body="no", times=None)
        )

        assert run().code == AS_EXPECTED

    def test_the_reports_agree(self, serving: LocalServing, run: Callable[..., Run]) -> None:
        found = run()

        assert len(found.report["checks"]) == sum(found.report["counts"].values())
        for one in found.report["checks"]:
            assert f"{one['id']}: {one['answer']}" in found.text

    @pytest.mark.parametrize(
        ("fault", "check", "answer"),
        [
            (RequestFault(path="**/models/*_1", status=404, body={"errorCode": 9}), "model-absent", "404/9"),
            (RequestFault(path="**/models/*_1", status=404, body=""), "model-absent", "404 with an empty body"),
            (RequestFault(path="**/models/*_1", status=200, body=[]), "model-absent", "200"),
            (
                RequestFault(path="**/inference/endpoints", status=200, body=[], times=None),
                "endpoints",
                "a bare list: none",
            ),
            (
                RequestFault(path="/variables/kube_serving_max_num_instances", status=200, body={"successMessage": []}),
                "variable-kube-serving-max-num-instances",
                "a list",
            ),
            (
                RequestFault(path="**/versions", status=200, body=[{"software": "hopsworks"}], times=1),
                "software-versions",
                "a bare list without hopsworks",
            ),
        ],
    )
    def test_a_difference_is_reported(
        self, serving: LocalServing, run: Callable[..., Run], fault: RequestFault, check: str, answer: str
    ) -> None:
        serving.faults.add(fault)

        found = run()

        assert found.of("differs")[check] == answer
        assert f"DIFFERS    {check}: " in found.text
        assert found.code == DIFFERS

    @pytest.mark.parametrize("status", [302, 502, 503])
    def test_no_answer_is_not_a_difference(self, serving: LocalServing, run: Callable[..., Run], status: int) -> None:
        serving.faults.add(RequestFault(path="**/modelregistries", status=status, body="<html>", times=None))

        found = run()

        assert set(found.of("no answer")) == {"scope-modelregistry", "registries"}
        assert found.code == DIFFERS

    def test_a_failure_names_no_model_and_quotes_nothing(
        self, serving: LocalServing, run: Callable[..., Run], tmp_path: Path
    ) -> None:
        (tmp_path / "model.pkl").write_bytes(b"theirs")
        HsmlHook().register_model(model_name="secret_churn", model_path=tmp_path / "model.pkl", framework="PYTHON")
        serving.faults.add(RequestFault(path="**/models/*/tags", status=502, body="<p>of gateway-7", times=None))
        refusal = {"errorCode": 9, "errorMsg": "secret_churn_1 and secret_churn"}
        serving.faults.add(RequestFault(path="**/jobs", status=200, body={"secret_churn": refusal}, times=None))

        found = run()

        assert found.of("no answer") == {"model-tags": "UnexpectedResponseError (HTTP 502)"}
        for name in ("secret_churn", "gateway-7"):
            assert name not in found.text + json.dumps(found.report)

    def test_what_an_answer_quotes_is_not_in_the_report(self, serving: LocalServing, run: Callable[..., Run]) -> None:
        search, text = Search(), f"key {serving.api_key} of {PROJECT} at 127.0.0.1 \x1b[31m"
        refusal = {"errorCode": 9, "errorMsg": text, "usrMsg": text, text: text}
        serving.faults.add(RequestFault(path="**/serving*", status=418, body=refusal, times=None))
        serving.faults.add(
            RequestFault(path="**/jobs", status=200, body={text: [text]}, headers={"x-text": "yes"}, times=None)
        )

        found = run()

        search.add("text", found.text + found.said)
        search.add("json", json.dumps(found.report, ensure_ascii=False))
        for secret in (serving.api_key, PROJECT, "127.0.0.1"):
            assert search.places_of(secret) == set(), secret
        assert "\x1b" not in found.text
        assert found.of("differs")["jobs"] == r"key *** of <project> at <host> \x1b[31m"

    @pytest.mark.parametrize("arguments", [(), ("--write",)])
    @pytest.mark.parametrize(
        "body",
        [
            *([], "text", 1, None, [1, None], {"items": 1}, {"errorCode": "x"}, {"errorCode": True}),
            {"count": "x", "items": [{"id": {}, "name": [], "ports": 7, "metrics": [], "condition": []}]},
            [{"id": 1, "name": "x", "featurestoreName": 2, "project": 3, "type": {}, "version": None, "hosts": {}}],
        ],
        ids=str,
    )
    def test_any_answer_is_read(
        self, serving: LocalServing, run: Callable[..., Run], body: Any, arguments: tuple[str, ...]
    ) -> None:
        path = f"/project/{serving.project_id}/**"
        serving.faults.add(RequestFault(path=path, status=200, body=json.dumps(body), times=None))

        found = run(*arguments)

        assert found.code == (COULD_NOT_RUN if arguments else DIFFERS)
        assert len(found.of("differs")) > 20
        assert "Traceback" not in found.said

    def test_a_key_with_fewer_scopes(
        self, serving: LocalServing, run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", json.dumps(serving.connection_fields(FILES_KEY)))

        found = run()

        assert found.of("as expected")["scope-job"] == "not allowed (403/320004)"
        assert found.of("as expected")["scope-dataset_view"] == "not allowed (403/320004)"
        assert found.of("not asked")["job-absent"] == "the API key lacks the scope (403/320004)"
        assert FILES_KEY not in found.text

    def test_says_what_a_killed_doctor_has_left(self, serving: LocalServing, run: Callable[..., Run]) -> None:
        kill_at(run, is_start)

        (remark,) = run().report["remarks"]

        assert "--write deletes it after ten minutes, if the lease of a doctor is there" in remark
        assert left(serving)["deployments"]

    def test_a_look_for_leftovers_that_fails_ends_nothing(self, serving: LocalServing, run: Callable[..., Run]) -> None:
        serving.faults.add(RequestFault(path="**/serving?name=hsmldoctordoctor*", status=502, body="<p>", times=None))

        found = run()

        (remark,) = found.report["remarks"]
        assert remark.endswith("could not be looked for: UnexpectedResponseError (HTTP 502).")
        assert found.of("not asked")["started"] == "it needs --write"
        assert found.code == DIFFERS


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--conn-id", "nosuchconnection"], "connection 'nosuchconnection': Airflow has no such connection"),
            (["--project", "nosuchproject"], "find project 'nosuchproject'"),
            (["--project", "a/b"], "expected"),
        ],
    )
    def test_is_one_of_our_errors(
        self, serving: LocalServing, run: Callable[..., Run], arguments: list[str], said: str
    ) -> None:
        found = run(*arguments)

        assert found.code == COULD_NOT_RUN
        assert found.text == ""
        assert said in found.said
        assert "Traceback" not in found.said

    @pytest.mark.parametrize("key", ["wrong.key-of-nobody", JOBS_KEY, ""])
    def test_a_key_that_is_refused(
        self, serving: LocalServing, run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, key: str
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", json.dumps(serving.connection_fields(key)))

        found = run()

        assert found.code == (DIFFERS if key == JOBS_KEY else COULD_NOT_RUN)
        assert not key or key not in found.said + found.text

    def test_a_report_that_cannot_be_written(
        self, serving: LocalServing, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        level = logging.getLogger("airflow_provider_hsml").level

        assert main(["--json", str(tmp_path / "nosuchfolder" / "report.json")]) == COULD_NOT_RUN

        assert logging.getLogger("airflow_provider_hsml").level == level, "it is the process's, and others log as well"
        assert "No such file or directory" in capsys.readouterr().err
        assert list(serving.requests) == []

    def test_a_report_that_can_no_longer_be_written_is_printed(
        self, serving: LocalServing, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["--json", "/dev/full"]) == COULD_NOT_RUN

        printed = capsys.readouterr()
        assert "hsml-doctor: /dev/full: No space left on device.\nGive a file" in printed.err
        assert printed.out.startswith("Hopsworks 5.2.0")

    def test_another_error_of_the_system_is_not_that_of_the_report(
        self, serving: LocalServing, run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: Any, **__: Any) -> None:
            raise FileNotFoundError(2, "No usable temporary directory found")

        monkeypatch.setattr(tempfile, "TemporaryDirectory", full)

        found = run("--write")

        assert found.code == COULD_NOT_RUN
        assert found.said == "hsml-doctor: FileNotFoundError: [Errno 2] No usable temporary directory found\n"
        assert found.report["checks"]
        assert left(serving) == NOTHING


class Killed(BaseException):
    """The process has ended: nothing runs after it."""


@contextlib.contextmanager
def stopped_at(is_last: Callable[[Any], bool], how: type[BaseException], *, for_good: bool) -> Iterator[None]:
    """Let a request raise; for good, every later one as well."""
    send = Client.send
    stopped: list[Any] = []

    def mortal(self: Client, call: Any) -> Any:
        if (stopped and for_good) or (not stopped and is_last(call)):
            stopped.append(call)
            raise how
        return send(self, call)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Client, "send", mortal)
        yield


def kill_at(run: Callable[..., Run], is_last: Callable[[Any], bool]) -> None:
    """Run the doctor, which ends at a request."""
    with stopped_at(is_last, Killed, for_good=True), pytest.raises(Killed):
        run("--write")


def is_start(call: Any) -> bool:
    """Whether a request is a START."""
    return bool(call.query == (("action", "START"),))


def new_trial() -> trial.Trial:
    """A doctor's model and deployment, before anything is made."""
    hook = HsmlHook()
    return trial.Trial(hook, Known(hook.client.project), hook.client.send)


def cleaned(of: trial.Trial) -> list[str]:
    """Let a doctor delete what it has made, and return what it says."""
    leftovers: list[str] = []
    of.clean(leftovers)
    return leftovers


MOMENTS = {
    "register": lambda call: call.method == "PUT" and "/models/" in call.path,
    "create": lambda call: call.method == "PUT" and call.path.endswith("/serving"),
    "start": is_start,
    "update": lambda call: call.method == "PUT" and call.path.endswith("/serving") and call.query,
    "delete": lambda call: call.method == "DELETE" and "/serving/" in call.path,
    "delete-model": lambda call: call.method == "DELETE" and "/models/" in call.path and call.repeatable,
}
"""Requests of a doctor, at which it is stopped."""


def later(patch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the next doctor begin some seconds later."""
    patch.setattr(trial, "steady", lambda: lambda: time.time() + seconds)


class TestWriting:
    @pytest.mark.parametrize(
        ("fault", "step"),
        [
            (RequestFault("PUT", "/project/*/serving", status=400, body={"errorCode": 240026}), "PUT serving"),
            (RequestFault("PUT", "/project/*/serving", status=200, body=[]), "cannot be read"),
            (RequestFault(path="**/serving/*?action=START", status=502, times=None), "HTTP 502"),
            (
                RequestFault("GET", "/project/*/serving/*", status=200, body={"condition": []}, times=None),
                "cannot be read",
            ),
            (RequestFault("POST", "**/rollback", drop="before", times=None), "no: NoResponseError"),
            (StartFault("*", times=None), "the deployment did not serve"),
        ],
    )
    def test_everything_is_deleted_after_a_failure(
        self, serving: LocalServing, run: Callable[..., Run], fault: Any, step: str
    ) -> None:
        serving.faults.add(fault)

        found = run("--write")

        assert step in found.of("differs")["write-run"]
        assert found.code == DIFFERS
        assert left(serving) == NOTHING
        assert found.of("not asked")["delete"] == "the trial did not come so far"

    @pytest.mark.parametrize("moment", [*MOMENTS])
    def test_everything_is_deleted_after_an_interrupt(
        self, serving: LocalServing, run: Callable[..., Run], moment: str
    ) -> None:
        with stopped_at(MOMENTS[moment], KeyboardInterrupt, for_good=False):
            found = run("--write")

        assert found.code == COULD_NOT_RUN
        assert "interrupted" in found.said
        assert found.report["checks"]
        if moment == "delete-model":  # There it is the deletion itself that is interrupted.
            (remark,) = found.report["remarks"]
            assert remark.startswith("Interrupted, so these may be left: model hsmldoctor, script Resources/")
            assert "folder Logs/Serving/hsmldoctordoctor" in remark
            assert ", lease. Run hsml-doctor --write again after ten minutes" in remark
        elif moment == "create":
            (remark,) = found.report["remarks"]
            assert "may still be created, so its lease is kept" in remark
        else:
            assert found.report["remarks"] == []
            assert left(serving) == NOTHING

    @pytest.mark.parametrize("moment", [*MOMENTS])
    def test_the_next_doctor_deletes_what_a_killed_one_has_left(
        self, serving: LocalServing, run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, moment: str
    ) -> None:
        kill_at(run, MOMENTS[moment])
        assert left(serving) != NOTHING

        early = run("--write")

        assert early.code == COULD_NOT_RUN
        assert "is in use by" in early.said

        later(monkeypatch, 700.0)

        assert run("--write").of("differs") == DIFFERENCES
        assert left(serving) == NOTHING

    @pytest.mark.parametrize("ends", [signal.SIGTERM, signal.SIGHUP])
    def test_everything_is_deleted_when_its_process_is_ended(self, serving: LocalServing, ends: signal.Signals) -> None:
        code = (
            "import signal, sys\n"
            "signal.signal(signal.SIGHUP, signal.SIG_DFL)  # It is ignored in what nohup has started.\n"
            "from airflow_provider_hsml.doctor.cli import main; sys.exit(main())"
        )
        command = [sys.executable, "-c", code, "--write"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            deadline = time.monotonic() + 60
            while not serving.requests.where("POST", f"/project/{serving.project_id}/serving/"):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.send_signal(ends)
            text, said = process.communicate(timeout=60)

        assert process.returncode == COULD_NOT_RUN
        assert "Hopsworks 5.2.0, compared with SDK 5.1 to 5.2\n" in text
        assert "interrupted" in said
        assert left(serving) == NOTHING

    @pytest.mark.parametrize(("status", "body"), [(504, "<html>"), (500, {"errorCode": 240002})])
    def test_a_deployment_that_may_still_be_created_keeps_its_lease(
        self, serving: LocalServing, run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, status: int, body: Any
    ) -> None:
        serving.faults.add(RequestFault("PUT", "/project/*/serving", status=status, body=body))

        found = run("--write")

        (remark,) = found.report["remarks"]
        assert "may still be created, so its lease is kept. Run hsml-doctor --write again" in remark
        assert found.code == DIFFERS
        assert left(serving) != NOTHING

        later(monkeypatch, 700.0)

        assert run("--write").of("differs") == DIFFERENCES
        assert left(serving) == NOTHING

    def test_a_signal_that_is_ignored_interrupts_nothing(self) -> None:
        """As SIGHUP is below nohup."""
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with cli._interrupted_by_signals():
                assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
                assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGHUP, before)

    def test_a_deployment_that_cannot_be_deleted_is_said(
        self, serving: LocalServing, run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: Any, **__: Any) -> None:
            message = "Deployment: refused."
            raise HopsworksError(message)

        serving.faults.add(RequestFault("DELETE", "/project/*/serving/*", status=403, body={"errorCode": 150068}))
        monkeypatch.setattr(HsmlHook, "delete_deployment", refuse)

        # What was asked before that is as expected.
        route = f"/project/{serving.project_id}/hsmldoctornosuchname"
        serving.faults.add(RequestFault(path=route, status=404, body="no", times=None))
        serving.faults.add(RequestFault(path="**/featuremonitoring/**", status=404, body="no", times=None))

        found = run("--write")

        (remark,) = found.report["remarks"]
        assert remark.startswith("Not deleted: deployment hsmldoctordoctor")
        assert ", model hsmldoctor, script Resources/" in remark
        assert ", lease: HopsworksError. Run hsml-doctor --write again after ten minutes" in remark
        assert found.code == DIFFERS
        assert any("lease-" in file for file in left(serving)["files"])

    def test_a_model_of_somebody_else_is_kept(
        self, serving: LocalServing, run: Callable[..., Run], tmp_path: Path
    ) -> None:
        (tmp_path / "model.pkl").write_bytes(b"theirs")
        HsmlHook().register_model(model_name="hsmldoctor", model_path=tmp_path / "model.pkl", framework="PYTHON")

        found = run("--write")

        assert found.code == COULD_NOT_RUN
        assert "no hsml-doctor has made version 1." in found.said
        assert left(serving)["models"] == ["hsmldoctor_1"]

    @pytest.mark.parametrize("path", ["theirs.bin", "1/theirs.bin", "1/Files/model.pkl"])
    def test_files_of_somebody_else_are_kept(self, serving: LocalServing, run: Callable[..., Run], path: str) -> None:
        hook = HsmlHook()
        parts = f"Models/hsmldoctor/{path}".split("/")
        for depth in range(2, len(parts)):
            hook.client.send(api.make_folder(hook.client.project, "/".join(parts[:depth])))
        hook.run(upload_bytes(hook.client.project, "/".join(parts), b"theirs"))

        found = run("--write")

        assert found.code == COULD_NOT_RUN
        assert f"no hsml-doctor has made Models/hsmldoctor/{path.partition('/')[0]}." in found.said
        assert [file.endswith(path) for file in left(serving)["files"]] == [True]

    def test_a_doctor_whose_lease_has_expired_deletes_nothing_of_the_next_one(
        self, serving: LocalServing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slow = new_trial()
        slow.prepare()
        later(monkeypatch, 700.0)
        quick = new_trial()
        quick.prepare()
        before = left(serving)

        assert cleaned(slow) == []

        assert len(before["models"]) == 3
        assert left(serving) == before
        assert cleaned(quick) == []
        assert left(serving) == NOTHING

    def test_of_two_doctors_that_begin_at_once_one_withdraws(
        self, serving: LocalServing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = new_trial(), new_trial()
        first.prepare()
        before = left(serving)
        read = leases.read_leases
        listed: list[Any] = []

        async def nothing_at_first(*arguments: Any) -> Any:
            listed.append(arguments)
            return [] if len(listed) == 1 else await read(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(leases, "read_leases", nothing_at_first)
            with pytest.raises(HopsworksError, match="is in use by"):
                second.prepare()

        assert cleaned(second) == []
        assert left(serving) == before
        assert cleaned(first) == []
        assert left(serving) == NOTHING

    def test_a_deployment_of_somebody_else_is_kept(self, serving: LocalServing, run: Callable[..., Run]) -> None:
        kill_at(run, is_start)
        hook = HsmlHook()
        for folder in hook.client.send(api.list_folder(hook.client.project, FOLDER)).items:  # type: ignore[union-attr]
            hook.client.send(api.delete_path(hook.client.project, f"{FOLDER}/{folder.name}"))

        found = run("--write")

        assert found.code == COULD_NOT_RUN
        assert "no lease" in found.said
        assert left(serving)["deployments"]

    def test_needs_the_scopes_of_files(
        self, serving: LocalServing, run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", json.dumps(serving.connection_fields(FILES_KEY)))

        found = run("--write")

        assert found.code == COULD_NOT_RUN
        assert "--write needs an API key with the scopes DATASET_VIEW" in found.said

    def test_without_kserve(self, run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
        administration = Administration({"kube_kserve_installed": "false"})
        with LocalServing(
            project=PROJECT, engine=run_script, administration=administration, speeds=SPEEDS, hopsworks_version="3.7"
        ) as serving:
            monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", serving.connection)

            found = run("--write")

            assert found.of("as expected")["write-run"] == "yes"
            assert left(serving) == NOTHING
