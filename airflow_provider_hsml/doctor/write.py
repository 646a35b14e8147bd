"""The steps with the doctor's own model and deployment, in the order of a deployment's life, and their findings."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.errors import HopsworksError

from . import reading
from .asking import Look, brief, look, look_at, send
from .check import Finding, Verdict
from .checks import OF_ONE
from .examine import examine
from .known import VERSIONS
from .questions import NEEDS_VERSIONS, QUESTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .asking import Reply
    from .known import Known
    from .trial import Trial

log = logging.getLogger(__name__)

_BUSY = (240002, 240004)
"""The codes of changes that are refused while another one is in progress."""
_SERVES = ("Running", "Idle")
_IN_A_ROW = 5
"""Predictions of the same version after which the old one counts as gone."""
_SOON = 20.0
"""Seconds to wait for a status that may pass unseen."""


class _StepError(Exception):
    """The rest of the steps cannot be taken; the text is the reason."""


class Steps:
    """
    Takes the steps, and collects the findings.

    :param trial: the doctor's own model and deployment, prepared
    :param known: the cluster as far as it is known
    :param ask: sends a request
    """

    def __init__(self, trial: Trial, known: Known, ask: Callable[[Look], Reply]) -> None:
        self._trial = trial
        self._known = known
        self._ask = ask
        self._found: dict[str, Finding] = {}
        self._of_one: list[Finding] = []

    @property
    def findings(self) -> Iterator[Finding]:
        """The findings so far, with those questions that were not asked."""
        yield from self._of_one or not_asked_of_one("the trial did not come so far")
        has_versions = self._known.features.get(VERSIONS, False)
        for name, question in QUESTIONS.items():
            lacks = name in NEEDS_VERSIONS and not has_versions
            reason = "this Hopsworks keeps no versions of deployments" if lacks else "the trial did not come so far"
            yield self._found.get(name) or question.finding(reason, Verdict.NOT_ASKED, self._known.line)

    def run(self) -> None:
        """Take all steps; a failure ends them, and is a finding."""
        answer = "yes"
        try:
            for step in (self._create, self._start, self._use, self._update, self._versions, self._stop, self._fail):
                step()
            self._delete()
        except _StepError as error:
            answer = f"no: {error}"
        except HopsworksError as error:
            answer = f"no: {brief(error)}"
        except Exception as error:  # noqa: BLE001 - whatever an answer makes a reader raise; its text may hold a value
            answer = f"no: an answer cannot be read ({type(error).__name__})"
        self._note("write-run", answer)

    def _note(self, name: str, answer: str) -> None:
        self._found[name] = QUESTIONS[name].judge(answer, self._known.line)

    def _not_asked(self, name: str, reason: str) -> None:
        self._found[name] = QUESTIONS[name].finding(reason, Verdict.NOT_ASKED, self._known.line)

    def _need(self, holds: bool, what: str) -> None:  # noqa: FBT001 - reads as a sentence
        if not holds:
            raise _StepError(what)

    # --- The steps ----------------------------------------------------------------------------------------------------

    def _create(self) -> None:
        trial, project = self._trial, self._known.project
        again = send("POST", "project", project.id, "dataset", f"Models/{trial.models[0].name}", query=_FOLDER)
        self._note("folder-again", self._ask(again).outcome)
        trial.side.is_in_doubt = True
        created = trial.change("create", "PUT", body=trial.body)
        trial.side.is_in_doubt = created.status >= 500
        self._note("create", created.outcome)
        self._note("create-status", reading.kind(created, "status"))
        self._need(created.is_success, f"PUT serving was refused ({created.outcome}): {created.said}")
        trial.own(created)
        is_created = trial.until(lambda row, _: row.get("status") == "Created")
        self._note("created", trial.timeline.statuses("create"))
        self._need(is_created, "the deployment did not become Created")
        self._note("created-revision", reading.kind(trial.get(), "revision"))
        self._note("create-again", trial.change("create", "PUT", body=trial.body).outcome)
        self._note("predict-created", trial.predict().outcome)
        self._note("stop-created", trial.command("STOP").outcome)

    def _start(self) -> None:
        trial = self._trial
        trial.until(lambda row, _: row.get("status") in ("Created", "Stopped"), seconds=_SOON)
        started = trial.command("START")
        self._note("start", started.outcome)
        self._need(started.is_success, f"START was refused ({started.outcome}): {started.said}")
        self._note("start-again", trial.command("START").outcome)
        if trial.until(lambda row, _: row.get("status") == "Starting", seconds=_SOON / 10):
            raw = trial.row()
            self._note("put-starting", trial.change("start", "PUT", body=raw).outcome)
        else:
            self._not_asked("put-starting", "Starting was not seen")
        is_live = self._until_answered("first", "start")
        self._note("started-revision", reading.kind(trial.get(), "revision"))
        self._need(is_live, "the deployment did not serve")

    def _until_answered(self, version: str, event: str) -> bool:
        """Wait until a version answers and the status is a final one, and note both ways."""
        expected = f"200 from the {version} version"
        names = {"start": "started", "update": "updated", "rollback": "rolled-back"}
        last: list[str] = []

        def is_settled(row: Mapping[str, Any], answer: str) -> bool:
            last.append(answer)
            # While the old instances go, both versions answer in turns.
            is_live = row.get("status") in _SERVES and last[-_IN_A_ROW:] == [expected] * _IN_A_ROW
            return is_live or row.get("status") == "Failed"

        is_settled_in_time = self._trial.until(is_settled, asks=True)
        self._note(names[event], self._trial.timeline.statuses(event))
        self._note(f"{names[event]}-answers", self._trial.timeline.predictions(event))
        return is_settled_in_time and last[-1] == expected

    def _use(self) -> None:
        trial = self._trial
        self._note("proxy-prediction", trial.answered(trial.predict()))
        for status in (413, 429, 503):
            self._note(f"proxy-{status}", trial.kept(trial.predict(status)))
        for name, row in (("prediction", 0), ("413", 413), ("429", 429)):
            self._ask_ingress(f"ingress-{name}", row)
        logs = self._ask(look("project", self._known.project.id, "serving", trial.id or 0, "logs", query=_TAIL))
        self._note("logs", reading.logs(logs, self._known))
        self._known.deployment = trial.row()
        self._known.model = {"id": trial.models[0].id}
        self._of_one = list(examine(OF_ONE, self._known, self._ask))

    def _ask_ingress(self, name: str, row: int) -> None:
        known, deployment = self._known, self._known.deployment or self._trial.row()
        if known.ingress is None:
            self._not_asked(name, known.no_ingress)
            return
        service = self._trial.side.name
        spaces = [space for space in (deployment.get("projectNamespace"), known.project.name) if space]
        host = f"{service}.{(spaces or ['local'])[0].replace('_', '-')}.{known.domain or 'local'}".lower()
        tail = ("v1", "models", f"{service}:predict")
        body = {"instances": [[row]]}
        ways = [look_at(known.ingress, "v1", space, service, *tail, body=body) for space in dict.fromkeys(spaces)]
        reply = self._ask(look_at(known.ingress, *tail, host=host, body=body))
        for call in ways:
            if reply.outcome == "404 with an empty body":
                reply = self._ask(call)
        self._note(name, self._trial.answered(reply) if row == 0 else self._trial.kept(reply))

    def _update(self) -> None:
        trial = self._trial
        before = trial.row()
        unchanged = trial.change("unchanged", "PUT", body=before)
        trial.until(lambda row, _: row.get("status") in _SERVES)
        after = trial.row()
        self._note("put-unchanged", f"{unchanged.outcome}, {_revised(before, after)}")
        described = trial.change("describe", "PUT", body={**after, "description": f"{after.get('description')}."})
        before, after = after, trial.row()
        self._note("put-description", f"{described.outcome}, {_revised(before, after)}")
        updated = self._patiently(lambda: trial.update(1, "update"))
        self._note("update", updated.outcome)
        self._need(updated.is_success, f"the update was refused ({updated.outcome}): {updated.said}")
        is_live = self._until_answered("second", "update")
        stale = [
            one.state for one in trial.timeline.moments if one.event == "update" and "the first version" in one.state
        ]
        self._note("updated-stale", "yes" if any(state.startswith(_SERVES) for state in stale) else "no")
        self._note("updated-revision", _revised(after, trial.row()))
        self._need(is_live, "the second version did not answer")

    def _versions(self) -> None:
        trial = self._trial
        if self._known.features.get(VERSIONS):
            versions = look("project", self._known.project.id, "serving", trial.id or 0, "versions")
            self._note("own-versions", reading.deployment_versions(self._ask(versions), self._known))
            raw = trial.row()
            old = int(raw["version"]) - 1
            self._note("put-outdated", trial.change("outdated", "PUT", body={**raw, "version": old}).outcome)
            rollback = trial.change("rollback", "POST", trial.id or 0, "rollback", body={"version": old})
            self._note("rollback", rollback.outcome)
            if rollback.is_success:
                self._need(self._until_answered("first", "rollback"), "the first version did not answer again")
                self._patiently(lambda: trial.update(1, "update again"))
                back = {"version": old}
                self._when_updating(
                    "rollback-updating",
                    lambda: trial.change("rollback again", "POST", trial.id or 0, "rollback", body=back),
                )
                trial.until(lambda row, _: row.get("status") in (*_SERVES, "Failed"))
        number = 0 if trial.row().get("modelVersion") == trial.models[1].version else 1
        self._patiently(lambda: trial.update(number, "update and stop"))
        self._when_updating("stop-updating", lambda: trial.command("STOP"))
        trial.until(lambda row, _: row.get("status") in (*_SERVES, "Failed", "Stopped"))

    def _patiently(self, change: Callable[[], Reply]) -> Reply:
        """Send a change again while the deployment is busy with the one before, which its status may not show."""
        replies = [change()]
        if replies[0].code in _BUSY:

            def is_taken(_row: Mapping[str, Any], _answer: str) -> bool:
                replies.append(change())
                return replies[-1].code not in _BUSY

            self._trial.until(is_taken)
        return replies[-1]

    def _when_updating(self, name: str, change: Callable[[], Reply]) -> None:
        if self._trial.until(lambda row, _: row.get("status") == "Updating", seconds=_SOON):
            self._note(name, change().outcome)
        else:
            self._not_asked(name, "Updating was not seen")

    def _stop(self) -> None:
        trial = self._trial
        if trial.row().get("status") != "Stopped":
            self._note("stop", trial.command("STOP").outcome)
        else:
            self._not_asked("stop", "it was stopped while Updating")
        is_down = trial.until(lambda row, _: row.get("status") == "Stopped")
        self._note("stopped", trial.timeline.statuses("stop"))
        self._need(is_down, "the deployment did not stop")
        logs = look("project", self._known.project.id, "serving", trial.id or 0, "logs", query=_TAIL)
        self._note("logs-stopped", reading.logs(self._ask(logs), self._known))
        self._note("predict-stopped", trial.predict().outcome)
        self._note("model-in-use", self._delete_model(trial.row().get("modelVersion")).outcome)
        self._note("stop-again", trial.command("STOP").outcome)
        trial.until(lambda row, _: row.get("status") == "Stopped", seconds=_SOON)

    def _fail(self) -> None:
        trial = self._trial
        updated = self._patiently(lambda: trial.update(2, "update to fail"))
        self._need(updated.is_success, f"the update was refused ({updated.outcome}): {updated.said}")
        trial.until(lambda row, _: row.get("status") in ("Stopped", "Created"))
        started = trial.command("START")
        self._need(started.is_success, f"START was refused ({started.outcome}): {started.said}")
        trial.timeline.event = "start to fail"
        trial.until(lambda row, _: row.get("status") in (*_SERVES, "Failed"))
        self._note("failed", trial.timeline.statuses("start to fail"))
        condition: Mapping[str, Any] = trial.row().get("condition") or {}
        text = f"{condition.get('type')} {condition.get('status')}: {condition.get('reason')}"
        self._note("failed-condition", text if condition else "null")
        self._note("start-failed", trial.command("START").outcome)
        trial.until(lambda row, _: row.get("status") in (*_SERVES, "Failed"), seconds=_SOON)
        self._note("stop-failed", trial.command("STOP").outcome)
        trial.until(lambda row, _: row.get("status") == "Stopped")

    def _delete(self) -> None:
        trial = self._trial
        self._note("delete", trial.change("delete", "DELETE", trial.id or 0).outcome)
        trial.until(lambda row, _: "errorCode" in row)
        self._note("deleted", trial.get().outcome)
        self._note("model-delete-absent", self._delete_model(max(one.version for one in trial.models) + 1).outcome)

    def _delete_model(self, version: object) -> Reply:
        project, name = self._known.project, self._trial.models[0].name
        model = f"{name}_{version}"
        return self._ask(send("DELETE", "project", project.id, "modelregistries", project.id, "models", model))


_FOLDER = {"action": "create", "type": "DATASET"}
_TAIL = {"component": "predictor", "tail": "5"}


def _revised(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    return "no new revision" if after.get("revision") == before.get("revision") else "a new revision"


def not_asked(known: Known, reason: str) -> Iterator[Finding]:
    """
    Return the findings of a run without a trial.

    :param reason: why there was none
    """
    for question in QUESTIONS.values():
        yield question.finding(reason, Verdict.NOT_ASKED, known.line)


def not_asked_of_one(reason: str) -> Iterator[Finding]:
    """
    Return the findings of the checks of one model and one deployment where there is neither.

    :param reason: why
    """
    for check in OF_ONE:
        yield check.finding(reason, Verdict.NOT_ASKED, (0, 0))
