"""Probe a deployment: find the request to send, send it, and judge which version answered and whether correctly."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.deployment import DeploymentStatus
from airflow_provider_hsml.hopsworks.domain.judge import Attribution, Checks, Judge, Probe, ProbeResult
from airflow_provider_hsml.hopsworks.domain.rollout_tracker import WAKE_AGAIN
from airflow_provider_hsml.hopsworks.domain.verification import AS_MANY_AND_FINITE
from airflow_provider_hsml.hopsworks.errors import (
    SCOPE_MISSING,
    DeadlineExceededError,
    HopsworksError,
    InferenceError,
    InvalidInputError,
    NoResponseError,
    RequestRefusedError,
    SupersededError,
    UnexpectedResponseError,
    UnreachableError,
    VerificationError,
)
from airflow_provider_hsml.hopsworks.flow import LAST_READ, Backoff, Sleep, timed
from airflow_provider_hsml.hopsworks.inference import predict
from airflow_provider_hsml.hopsworks.registry import lookup
from airflow_provider_hsml.hopsworks.registry.version_files import VersionFiles
from airflow_provider_hsml.hopsworks.routes import Routes

from .schema_probe import fit_to_schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.domain.settings import SettingValues
    from airflow_provider_hsml.hopsworks.flow import Clock

log = logging.getLogger(__name__)

PROBES = 5
"""Probes in a row that must succeed after a rollout."""
VLLM_HEALTH = "/v1/models"
"""The health path of vLLM deployments: Hopsworks routes to their OpenAI API."""


@dataclass(slots=True)
class Prober:
    """Probes one deployment and judges its answers. First call ``check`` or ``prepare``, which find the request."""

    project: Project
    name: str
    clock: Clock
    checks: Checks = Checks()  # noqa: RUF009 - it is frozen
    files: VersionFiles = field(default_factory=VersionFiles)
    """The metadata files of model versions, as far as this task has listed them."""
    routes: Routes = field(default_factory=Routes)
    """The optional routes of Hopsworks, as far as this task knows them."""
    judge: Judge = field(init=False)
    _health_path: str | None = None
    is_prepared: bool = False
    """Whether the request to send was looked for."""
    was_unreachable: bool = False
    """Whether the previous version did not answer before the change: the new one is not at fault then."""
    is_dropped: bool = False
    """Whether the probe is not sent, since no version would get to see it."""
    fault: str = ""
    """The fault of the last answer, if that was wrong and may be the previous version's."""

    def __post_init__(self) -> None:
        """Begin without a request, until ``prepare``."""
        self.judge = Judge(self.checks)

    @property
    def can_probe(self) -> bool:
        """Whether there is a request that every instance must be able to answer."""
        return self.judge.probe is not None or self._health_path is not None

    async def check(
        self, live: Deployment | None, desired: SettingValues, model: ModelVersion | None, backoff: Backoff
    ) -> ModelVersion | None:
        """
        Prepare the probe, and refuse impossible checks before anything is changed.

        :param live: the live deployment; None before it is created
        :param desired: the desired settings
        :param model: the new version; None for the serving version
        :param backoff: how often to retry the read of the serving version
        :return: the version to probe, if it was looked up
        :raises InvalidInputError: a check is impossible; the message names it and the reason
        """
        checks = self.checks
        if _protocol(live, desired) == "GRPC":
            message = (
                f"verification: deployment {self.name!r} uses GRPC, which needs a GRPC client.\nLeave verification out."
            )
            raise InvalidInputError(message)
        if checks.health_path is not None and self.project.ingress is None:
            message = (
                "verification.health_path: such a path is requested at the ingress, but the connection does not use "
                "the ingress.\nPut inference_route: istio into its extra."
            )
            raise InvalidInputError(message)
        model = await self.prepare(live, desired, model, backoff)
        probe = self.judge.probe
        is_unmet = {
            "instances": checks.body is not None and probe is None,
            "expect": checks.expect is not None and probe is None,
            "version_path": checks.version_path is not None and (not self.can_probe or self.judge.version is None),
            "max_latency_ms": checks.max_latency_ms is not None and not self.can_probe,
        }
        if unmet := [name for name, is_impossible in is_unmet.items() if is_impossible]:
            message = f"verification.{unmet[0]}: {self._why_not_probed(live, model)}"
            raise InvalidInputError(message)
        if checks.expect is not None and checks.expect.holds is None and (probe is None or probe.predictions is None):
            raise _cannot_be_equal(self.judge.checks)
        if not self.can_probe:
            log.info("Deployment %r will not be probed: %s", self.name, self._why_not_probed(live, model))
        return model

    def _why_not_probed(self, live: Deployment | None, model: ModelVersion | None) -> str:
        if _server(live, model) == "VLLM":
            reason = "vLLM is probed with OpenAI's API, at the ingress"
        elif self.judge.version is None:
            reason = "a script without a model is probed at the ingress, with the path in 'health_path'"
        else:
            return (
                "there is no example request for this model version. Pass 'instances', or register the version with "
                "an input example."
            )
        return reason + (", but the connection does not use the ingress." if self.project.ingress is None else ".")

    async def prepare(
        self,
        live: Deployment | None,
        desired: SettingValues,
        model: ModelVersion | None,
        backoff: Backoff,
        *,
        is_optional: bool = False,
    ) -> ModelVersion | None:
        """
        Find the request with which to probe the new version, once.

        :param live: the live deployment; None before it is created
        :param desired: the desired settings
        :param model: the new version; None for the serving version
        :param backoff: how often to retry the read of the serving version
        :param is_optional: whether an example or a request schema that cannot be read counts as no example
        :return: the version to probe, if it was looked up
        """
        if self.is_prepared or _protocol(live, desired) != "REST":
            return model
        if model is None and live is not None and _server(live, model) != "VLLM":
            model = await lookup.served_model(self.project, live, backoff)
        self.judge.version = model.version if model else live.model_version if live else None
        is_vllm = _server(live, model) == "VLLM"
        if self.checks.health_path is None and not is_vllm:
            body = self.checks.body
            probe = None
            if body is not None or not self.is_dropped:
                probe = await _find_probe(self.project, model, body, self.files, is_optional=is_optional)
            if body is not None:
                _check_sendable(body)
            # A way back goes on without the schema; its rollout is proved by other evidence then.
            patience = None if is_optional else backoff
            self.judge.checks, self.judge.probe = await fit_to_schema(
                self.project, live, probe, self.checks, self.routes, backoff=patience
            )
        if self.judge.probe is None and self.project.ingress is not None:
            self._health_path = self.checks.health_path or (VLLM_HEALTH if is_vllm else None)
        self.is_prepared = True
        return model

    async def probe_champion(self, *, may_refuse: bool = False) -> Any:
        """
        Send the request to the serving version before a change, and return its answer; None if that is unknown.

        :param may_refuse: whether the change is made although the request is refused
        :raises HopsworksError: no version would get to see the request
        """
        if not self.can_probe:
            return None
        try:
            return await self.send()
        except HopsworksError as error:
            if self.can_drop(error) or (may_refuse and predict.is_without_features(error)):
                self.drop_probe(error)
                return None
            if not may_refuse:
                _check_refusal(self.name, self.checks, error)
            self.was_unreachable = error.is_from_deployment and predict.is_unreached(error)
            log.info("The answer of the previous version is unknown: %s", error)
            return None

    def can_drop(self, error: HopsworksError) -> bool:
        """
        Return whether a registered example is left out: it is too large, or the deployment has no features for it.

        :param error: the error of the probe
        """
        checks = self.checks
        # A check that was asked for needs an answer: another request has to be given for it.
        is_asked = any(one is not None for one in (checks.expect, checks.version_path, checks.max_latency_ms))
        is_too_large = predict.is_too_large(error) and not is_asked
        return checks.body is None and (is_too_large or predict.is_without_features(error))

    def drop_probe(self, error: HopsworksError) -> None:
        """Leave the probe out: no version gets to see the request, so a refusal would say nothing about one."""
        log.warning("%s\nThis says nothing about a model version: the request is not sent as a probe", error)
        self.is_dropped, self.judge.probe, self._health_path = True, None, None

    async def probe_once(self, deployment: Deployment) -> ProbeResult:
        """
        Send one probe, retry it while the deployment is unreachable, and judge the answer.

        :param deployment: the deployment as it was read last
        :raises UnreachableError: the deployment does not answer, although it should
        :raises VerificationError: the model refused the probe
        :raises SupersededError: another client has stopped or deleted the deployment
        :raises HopsworksError: the probe did not get to the model, or found no features for it, which says nothing
            about the model
        """
        if not self.can_probe:
            return ProbeResult(Attribution.UNKNOWN)
        try:
            answer, seconds = await timed(self._until_reached(), self.clock)
        except HopsworksError as error:
            if not error.is_from_deployment or predict.is_without_features(error):
                raise
            if predict.is_unreached(error):
                is_its_fault = await is_deployments_fault(self.project, deployment, error)
                message = f"{deployment} does not answer, although it should: {error}"
                if self.was_unreachable:
                    message += "\nThe version before the change did not answer either: check the route to the models."
                elif is_its_fault:
                    raise UnreachableError(message) from error
                raise DeadlineExceededError(message) from error
            _check_refusal(self.name, self.checks, error)
            if not predict.is_model_refusal(error):
                raise
            request = self._health_path or "a request with its registered example"
            if self.checks.body is not None:
                request = "the request from 'verification'"
            message = f"{deployment} refused the probe, {request}: {error}"
            raise VerificationError(message) from error
        return self.judge.judge(answer, seconds)

    async def _until_reached(self) -> Any:
        """Send a probe, and retry it; a single request that got no response in all that time is followed by another."""
        sent = 0

        async def send(seconds: float) -> Any:
            nonlocal sent
            sent += 1
            return await self.send(max(seconds, LAST_READ))

        while True:
            try:
                return await predict.until_reached(
                    self.project, self.name, send, timeout=predict.ROUTE_BUDGET, clock=self.clock
                )
            except NoResponseError as error:
                # One connection may be lost on its way, which says nothing about the deployment.
                if sent > 1:
                    raise
                log.warning("%s; sending another request", error)

    async def send(self, seconds: float | None = None) -> Any:
        """
        Send the request once.

        :param seconds: the timeout of the request; None for the default
        """
        if self.judge.probe is not None:
            return await predict.ask_model(self.project, self.name, self.judge.probe.body, seconds=seconds)
        if self.project.ingress is None or self._health_path is None:
            return {}
        try:
            return await self.project.ingress.get(self.project, self.name, self._health_path, seconds=seconds)
        except InferenceError as error:
            if error.status == 404 and not error.not_routed and self.checks.health_path is None:
                log.info("%s; this is an answer, so the deployment counts as healthy", error)
                return {}
            raise

    async def is_reachable(self) -> bool:
        """Return whether the deployment answers at all, be it with an error; False without a request to send."""
        if not self.can_probe:
            return False
        try:
            await self.send()
        except HopsworksError as error:
            is_answer = predict.is_without_features(error) or not predict.is_unreached(error)
            return error.is_from_deployment and is_answer
        return True

    async def wake(self) -> HopsworksError | None:
        """Wake an Idle deployment with one request, and return its error."""
        if not self.can_probe:
            return None
        log.info("Waking deployment %r with a request", self.name)
        try:
            await self.send(WAKE_AGAIN)
        except HopsworksError as error:
            log.info("The request that wakes deployment %r failed: %s", self.name, error)
            return error
        return None


async def probe_serving(prober: Prober, deployment: Deployment) -> ProbeResult:
    """
    Probe a deployment that has served for a while, and retry a model that fails a few times.

    :param deployment: the deployment as it was read last
    :raises VerificationError: as ``probe_once``
    """
    try:
        for _ in range(PROBES - 1):
            try:
                return await prober.probe_once(deployment)
            except VerificationError as error:
                cause = error.__cause__
                if not isinstance(cause, HopsworksError) or not cause.transient or predict.is_unreached(cause):
                    raise
                log.warning("%s; retrying", error)
            await Sleep(predict.BETWEEN_PROBES)
        return await prober.probe_once(deployment)
    except HopsworksError as error:
        if not prober.can_drop(error):
            raise
        prober.drop_probe(error)
        return ProbeResult(Attribution.UNKNOWN)


def _cannot_be_equal(checks: Checks) -> InvalidInputError:
    """Return the error for the expectation 'equal' without recorded predictions to compare with."""
    if checks.expect is AS_MANY_AND_FINITE:
        message = (
            "verification.expect: 'equal' cannot hold, since the deployment looks features up by serving keys: its "
            "predictions for the same row change.\nUse 'same_length' or 'finite'."
        )
    else:
        message = (
            "verification.expect: 'equal' needs recorded predictions for the rows that are sent.\nRegister the model "
            "with expected."
        )
    return InvalidInputError(message)


def _check_refusal(name: str, checks: Checks, error: HopsworksError) -> None:
    """
    Refuse a request that no version would get to see: found after the change, it would say nothing about it.

    :param error: the error with which the request was refused
    :raises HopsworksError: the request is refused by Hopsworks, the ingress or the deployment's schema, or there are
        no features for it
    """
    if predict.is_without_features(error):
        if error.transient:
            raise error
        message = (
            f"verification: deployment {name!r} finds no features for the rows of the request: {error}\n"
            "Use serving keys in 'verification' that the online store has."
        )
        raise InvalidInputError(message) from error
    if checks.body is not None and predict.is_schema_refusal(error):
        message = (
            f"verification: the schema of deployment {name!r} refuses the rows of the request: {error}\n"
            "Correct the rows in 'verification'."
        )
        raise InvalidInputError(message) from error
    if predict.is_refused_before_the_model(error):
        raise error


async def is_deployments_fault(project: Project, deployment: Deployment, error: HopsworksError) -> bool:
    """
    Return whether the deployment caused a failed request; False if the server or a proxy did, or that is unknown.

    A response that comes neither from Hopsworks nor from a model says nothing about the deployment. A request without
    an answer does if Hopsworks answers right afterwards: a model that hangs must not pass for a server failure.

    :param deployment: the deployment as it was read last
    :param error: the failure of the request
    :raises SupersededError: another client has stopped or deleted the deployment
    """
    try:
        now = await api.get_deployment_by_id(project, deployment.id)
    except HopsworksError as unread:
        log.info("The state of %s is unknown: %s", deployment, unread)
        return False
    if now is None or now.status.is_down or now.status is DeploymentStatus.STOPPING:
        done = "deleted" if now is None else "stopped"
        message = (
            f"{now or deployment} was {done} by another client while it was probed.\nRun the task again if needed."
        )
        raise SupersededError(message)
    was_sent = not isinstance(error, NoResponseError) or error.sent
    return was_sent and not isinstance(error, UnexpectedResponseError)


async def _find_probe(
    project: Project,
    model: ModelVersion | None,
    body: Mapping[str, Any] | None,
    files: VersionFiles,
    *,
    is_optional: bool,
) -> Probe | None:
    """
    Find the request to send, and the predictions that were recorded for it.

    :param body: the request from ``Verification``; None for the one that was registered with the version
    :param files: the listings that the task has already
    :param is_optional: whether an example that cannot be read counts as none
    """
    if model is None:
        return None if body is None or project.ingress is None else Probe(body)
    try:
        if body is None:
            return await predict.registered_probe(project, model, files)
        recorded = await predict.recorded_probe(project, model, files)
    except RequestRefusedError as error:
        if error.code != SCOPE_MISSING:
            raise
        log.warning("%s; the examples that were registered with the version are not used", error)
        recorded = None
    except UnexpectedResponseError as error:
        if not is_optional:
            raise
        log.warning("%s; the deployment is not probed", error)
        recorded = None
    if body is None or (recorded is not None and recorded.body == body):
        return recorded
    return Probe(body)


def _check_sendable(body: Mapping[str, Any]) -> None:
    """
    Check that the rows of ``verification`` can be sent as JSON.

    :raises InvalidInputError: they cannot
    """
    try:
        json.dumps(body, allow_nan=False)
    except (TypeError, ValueError) as error:
        message = f"verification: its rows cannot be sent as JSON ({error}).\nReplace NaN and infinity."
        raise InvalidInputError(message) from error


def _protocol(live: Deployment | None, desired: SettingValues) -> str:
    """Return the protocol that the deployment will use: REST or GRPC."""
    return str(desired.get("api_protocol") or (live.api_protocol if live else "REST"))


def _server(live: Deployment | None, model: ModelVersion | None) -> str:
    """Return the model server on which the deployment will run."""
    if live is not None:
        return live.model_server
    return model.framework.model_server if model and model.framework else "PYTHON"
