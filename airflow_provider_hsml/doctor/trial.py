"""
A model and a deployment of the doctor's own, held by a lease as the temporary deployments of promotions are.

The lease is written first and deleted last. So a doctor that is killed leaves a lease, and the next one with
``--write`` deletes what it finds once the lease has expired: the deployment, the versions of the model, the script.
A doctor that finds another lease beside its own withdraws before it deletes anything; one whose own has expired deletes
only what names its lease.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import diff, legacy_artifacts, script_file
from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
from airflow_provider_hsml.hopsworks.domain.settings import Script
from airflow_provider_hsml.hopsworks.domain.side_deployment import side_name
from airflow_provider_hsml.hopsworks.errors import HopsworksError, InvalidInputError
from airflow_provider_hsml.hopsworks.flow import steady
from airflow_provider_hsml.hopsworks.promotion import leases
from airflow_provider_hsml.hopsworks.promotion.side_deployment import SideDeployment, in_use, is_without_scopes
from airflow_provider_hsml.hopsworks.rollout.inputs import Run
from airflow_provider_hsml.hopsworks.rollout.update import Update
from airflow_provider_hsml.hopsworks.untrusted_text import beginning

from .asking import Look, brief, look, send
from .known import VERSIONS
from .own_model import NAME, OwnModel
from .reading import object_of
from .timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.domain.side_deployment import Lease

    from .asking import Reply
    from .known import Known

log = logging.getLogger(__name__)

PURPOSE = "doctor"
"""The purpose of the lease."""
INTERVAL = 1.0
"""Seconds between two looks at the deployment."""
CHANGE_SECONDS = 900.0
"""Seconds for which a change is followed."""
_BAD_VERSION = 2
"""The index of the model version whose script fails."""
SCRIPT = '''"""The model of hsml-doctor: answers its version, or refuses with the status in the first row."""
import os


class Predict(object):
    def __init__(self, *args, **kwargs):
        self.version = os.environ.get("MODEL_VERSION", "0")
        if self.version == "{bad}":
            raise RuntimeError("hsml-doctor: this version fails on purpose")

    def predict(self, inputs):
        rows = inputs.get("instances") if isinstance(inputs, dict) else inputs
        status = int(rows[0][0])
        if status:
            from fastapi import HTTPException

            detail = dict(code="HSML_DOCTOR", message="hsml-doctor: refused on purpose")
            raise HTTPException(status_code=status, detail=detail, headers=dict([("Retry-After", "7")]))
        return [int(self.version) for _ in rows]
'''
_TEXT = "HSML_DOCTOR"
_LATER = "Run hsml-doctor --write again after ten minutes, or delete it yourself."


class Trial:
    """
    The doctor's own model and deployment.

    Call ``prepare`` first and ``clean`` at the end, also after a failure.

    :param hook: a hook on the connection
    :param known: the cluster as far as it is known
    :param ask: sends a request
    """

    def __init__(self, hook: HsmlHook, known: Known, ask: Callable[[Look], Reply]) -> None:
        self.known = known
        self.timeline = Timeline()
        self._hook = hook
        self._ask = ask
        run = Run(known.project, NAME, CHANGE_SECONDS, 5.0, steady())
        self.side = SideDeployment(run, PURPOSE)
        self._run = Run(known.project, self.side.name, CHANGE_SECONDS, 5.0, steady())
        self._lease: Lease | None = None
        self._own = OwnModel(hook)
        self._script = ""
        self.models: list[ModelVersion] = []
        self.body: dict[str, Any] = {}
        """The body that creates the deployment."""
        self.id: int | None = None

    # --- Begin and end ------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """
        Write the lease, delete what an earlier doctor has left, and register the model.

        :raises HopsworksError: another doctor is at work, the key lacks a scope, or something of the name is not ours
        """
        try:
            lease = self._lease = self._hook.run(self.side.claim())
        except HopsworksError as error:
            if not is_without_scopes(error):
                raise
            message = (
                "--write needs an API key with the scopes DATASET_VIEW, DATASET_CREATE and DATASET_DELETE as well.\n"
                "Use such a key, or leave --write out."
            )
            raise InvalidInputError(message) from error
        # Two doctors that list at the same time see no lease, but not both see only their own afterwards.
        for other in self._others():
            raise in_use(other, self._run.clock())
        self._own.check()
        self._own.remove(is_alone=True)
        for _ in range(3):
            self.models.append(self._own.register(lease.id))
            self._hook.run(self.side.renew())
        content = SCRIPT.replace("{bad}", str(self.models[_BAD_VERSION].version)).encode()
        digest = hashlib.sha256(content).hexdigest()[:16]
        self._script = f"{script_file.FOLDER}/hsmldoctor-{digest}.py"
        settings = {"description": lease.description, "script_file": Script(self._script, content)}
        settings = script_file.absolute(self.known.project, settings)
        update = Update(self._run, settings, self.models[0], self._run.clock() + CHANGE_SECONDS)
        self.body = legacy_artifacts.for_creating(self._hook.run(update.prepare_create()))

    def own(self, created: Reply) -> None:
        """
        Take the deployment that a PUT has created into the lease.

        :param created: the answer to the PUT
        """
        deployment = Deployment.from_json(created.data)
        self.id = deployment.id
        found = self._ask(self._look())
        self._hook.run(self.side.complete(Deployment.from_json(found.data)))

    def clean(self, leftovers: list[str]) -> None:
        """
        Delete everything that the trial has made.

        :param leftovers: gets a sentence for each thing that could not be deleted, also if an interrupt ends this
        """
        lease = self._lease
        if lease is None:
            return
        logs = f"Logs/Serving/{self.side.name}"
        steps: dict[str, Callable[[], object]] = {
            f"deployment {self.side.name}": self._delete_deployment,
            f"model {NAME}": lambda: self._own.remove(lease.id, is_alone=not self._others()),
            f"script {self._script}".strip(): lambda: self._delete(self._script),
            f"folder {logs}": lambda: self._delete(logs),
            "lease": lambda: self._end_lease(leftovers),
        }
        while steps:
            what, step = next(iter(steps.items()))
            try:
                step()
            except HopsworksError as error:
                # With a deployment, its lease stays: by that it is known to be the doctor's.
                rest = list(steps) if step == self._delete_deployment else [what]
                leftovers.append(f"Not deleted: {', '.join(rest)}: {brief(error)}. {_LATER}")
                if len(rest) > 1:
                    return
            except BaseException:
                leftovers.append(f"Interrupted, so these may be left: {', '.join(steps)}. {_LATER}")
                raise
            del steps[what]

    def _end_lease(self, leftovers: list[str]) -> None:
        if not self._hook.run(self.side.remove()):
            leftovers.append(f"Deployment {self.side.name} may still be created, so its lease is kept. {_LATER}")

    def _delete_deployment(self) -> None:
        found = self._hook.client.send(api.get_deployment(self.known.project, self.side.name))
        if found is not None and self._lease is not None and (found.id == self.id or self._lease.holds(found)):
            self._hook.delete_deployment(found.name, force=True, poll_interval=INTERVAL)

    def _others(self) -> list[Lease]:
        """Return the leases of other doctors that are at work."""
        now, own = self._run.clock(), self._lease and self._lease.id
        found = self._hook.run(leases.read_leases(self.known.project, NAME))
        return [one for one in found if one.purpose == PURPOSE and one.id != own and not one.is_expired(now)]

    def _delete(self, path: str) -> None:
        """Delete a file or folder if there is one, unless another doctor uses it: both have the same path."""
        if path and not self._others() and self._hook.client.send(api.path_exists(self.known.project, path)):
            self._hook.client.send(api.delete_path(self.known.project, path))

    # --- Requests -----------------------------------------------------------------------------------------------------

    def _look(self) -> Look:
        return look("project", self.known.project.id, "serving", self.id or 0)

    def get(self, answers: str = "") -> Reply:
        """
        Read the deployment, and note its state if it has changed.

        :param answers: how it has answered predictions just now, for the note
        """
        reply = self._ask(self._look())
        state = _state(reply) + (f"; predictions: {answers}" if answers else "")
        self.timeline.add(state)
        return reply

    def row(self) -> dict[str, Any]:
        """Return the deployment resource; an empty one if it cannot be read."""
        return dict(object_of(self.get()))

    def change(self, event: str, method: str, *segments: str | int, **more: Any) -> Reply:
        """
        Send a change of the deployment once, and read the deployment right after it.

        :param event: a word for the change
        :param segments: of the path below ``serving``
        :param more: ``body`` and ``query``
        """
        reply = self._ask(send(method, "project", self.known.project.id, "serving", *segments, **more))
        if reply.is_success:
            self.timeline.event = event
        return reply

    def command(self, action: str) -> Reply:
        """Send START or STOP."""
        return self.change(action.lower(), "POST", self.id or 0, query={"action": action})

    def update(self, number: int, event: str) -> Reply:
        """
        Send the update to another version of the model, as a new version of the deployment where they are kept.

        :param number: the index of the version
        :param event: a word for the change
        """
        raw = self.row()
        body = diff.update_body(raw, diff.model_settings(self.models[number]))
        body = legacy_artifacts.for_changing(raw, body, {"model_version"})
        query = {"newVersion": "true"} if self.known.features.get(VERSIONS) else None
        return self.change(event, "PUT", body=body, query=query)

    def predict(self, row: int = 0) -> Reply:
        """
        Ask for a prediction through Hopsworks.

        :param row: the value of the one row: 0, or the status with which the model refuses
        """
        target = f"{self.side.name}:predict"
        body = {"instances": [[row]]}
        return self._ask(send("POST", "project", self.known.project.id, "inference", "models", target, body=body))

    def answered(self, reply: Reply) -> str:
        """Return which version a prediction is from, or the outcome."""
        rows = object_of(reply).get("predictions")
        answered = rows[0] if isinstance(rows, list) and rows else None
        names = zip(self.models, ("first", "second", "third"), strict=False)
        if reply.is_success:
            name = next((name for model, name in names if model.version == answered), "wrong")
            return f"200 from the {name} version"
        return reply.outcome

    @staticmethod
    def kept(reply: Reply) -> str:
        """Return what is kept of a refusal of the model."""
        text = f"{reply.said} {reply.text}"
        kept = "with the model's text" if _TEXT in text else "without the model's text"
        outcome = reply.status if reply.code is None else reply.outcome
        return f"{outcome} {kept}, {'with' if 'retry-after' in reply.headers else 'without'} retry-after"

    def until(
        self, is_done: Callable[[Mapping[str, Any], str], bool], *, asks: bool = False, seconds: float | None = None
    ) -> bool:
        """
        Look at the deployment until something holds, and note each change of its state.

        :param is_done: gets the deployment resource and how predictions are answered
        :param asks: whether to ask for a prediction each time
        :param seconds: how long to look at most; None for ``CHANGE_SECONDS``
        :return: whether it holds
        """
        end = time.monotonic() + (CHANGE_SECONDS if seconds is None else seconds)
        while True:
            with contextlib.suppress(_Passing):
                answers = self._tried(lambda: self.answered(self.predict())) if asks else ""
                reply = self._tried(lambda: self.get(answers))  # noqa: B023 - called at once
                if is_done(object_of(reply), answers):
                    return True
            if time.monotonic() >= end:
                return False
            self._hook.run(self.side.renew())
            time.sleep(INTERVAL)

    @staticmethod
    def _tried(step: Callable[[], Any]) -> Any:
        try:
            return step()
        except HopsworksError as error:
            if not error.transient:
                raise
            log.warning("%s; looking again", error)
            raise _Passing from error


def leftovers(known: Known, ask: Callable[[Look], Reply]) -> list[str]:
    """
    Return a sentence if an earlier doctor has left its deployment behind, or if that could not be found out.

    :param ask: sends a request
    """
    name = side_name(NAME, PURPOSE)
    try:
        reply = ask(look("project", known.project.id, "serving", query={"name": name}))
    except HopsworksError as error:
        return [f"Deployment {name}, which an earlier doctor may have left, could not be looked for: {brief(error)}."]
    if not reply.is_success:
        return []
    whose = f"Deployment {name} is of a doctor that runs or was killed, by its name"
    return [f"{whose}: --write deletes it after ten minutes, if the lease of a doctor is there."]


class _Passing(Exception):
    """A read has failed for a moment."""


def _state(reply: Reply) -> str:
    if not reply.is_success or not isinstance(reply.data, dict):
        return reply.outcome
    row, condition = reply.data, reply.data.get("condition")
    parts = [str(row.get("status"))]
    if isinstance(condition, dict):
        reason = beginning(str(condition.get("reason")))
        parts.append(f"condition {condition.get('type')} {condition.get('status')}: {reason}")
    parts += [f"{name} {row[key]}" for key, name in _SHOWN.items() if row.get(key) is not None]
    return ", ".join(parts)


_SHOWN = {
    "revision": "revision",
    "version": "version",
    "modelVersion": "model version",
    "artifactVersion": "artifact",
    "availableInstances": "available instances",
}
