"""Verifying a deployment: what it is asked, whose answers it gives, and what follows from them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.judge import Attribution, Checks, Judge, Probe, ProbeResult
from airflow_provider_hsml.hopsworks.domain.rollout_tracker import WAKE_AGAIN, RolloutCause, RolloutTracker
from airflow_provider_hsml.hopsworks.errors import (
    SCOPE_MISSING,
    DeadlineExceededError,
    HopsworksError,
    InferenceError,
    InvalidInputError,
    NoResponseError,
    RequestRefusedError,
    UnexpectedResponseError,
    VerificationError,
)
from airflow_provider_hsml.hopsworks.flow import Backoff, Sleep, timed
from airflow_provider_hsml.hopsworks.inference import predict
from airflow_provider_hsml.hopsworks.registry import lookup

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.domain.settings import SettingValues
    from airflow_provider_hsml.hopsworks.flow import Clock

log = logging.getLogger(__name__)

PROBES = 5
VLLM_HEALTH = "/v1/models"
"""Of OpenAI's API, which is what Hopsworks leads to."""


@dataclass(slots=True)
class Prober:
    """Asks one deployment, and tells whose answers it gives."""

    project: Project
    name: str
    clock: Clock
    checks: Checks = Checks()  # noqa: RUF009 - it is frozen
    judge: Judge = field(init=False)
    _health_path: str | None = None
    is_prepared: bool = False
    """Whether it is known what to ask."""

    def __post_init__(self) -> None:
        """Begin with nothing to ask, until ``prepare``."""
        self.judge = Judge(self.checks)

    @property
    def can_ask(self) -> bool:
        """Whether there is a request that every instance must have an answer to."""
        return self.judge.probe is not None or self._health_path is not None

    async def check(
        self, live: Deployment | None, desired: SettingValues, model: ModelVersion | None, backoff: Backoff
    ) -> ModelVersion | None:
        """
        Refuse checks that cannot be made, before anything is changed, and ``prepare``.

        :param live: the deployment as it is
        :param desired: settings that were asked for
        :param model: the version to come; None for the one that is served
        :param pace: how often to try to read that one
        :return: the version to come, where it was looked up
        :raises InvalidInputError: which check, and why
        """
        checks = self.checks
        if _protocol(live, desired) == "GRPC":
            message = f"verification: deployment {self.name!r} answers GRPC, which needs a GRPC client. Leave it out."
            raise InvalidInputError(message)
        if checks.health_path is not None and self.project.ingress is None:
            message = (
                "verification.health_path: such a path is asked for at the ingress, and the connection does not go "
                "there. Put inference_route: istio into its extra."
            )
            raise InvalidInputError(message)
        model = await self.prepare(live, desired, model, backoff)
        probe = self.judge.probe
        asked = {
            "instances": checks.body is not None and probe is None,
            "expect": checks.expect is not None and probe is None,
            "version_path": checks.version_path is not None and (not self.can_ask or self.judge.version is None),
            "max_latency_ms": checks.max_latency_ms is not None and not self.can_ask,
        }
        if in_vain := [name for name, is_in_vain in asked.items() if is_in_vain]:
            message = f"verification.{in_vain[0]}: {self._why_not_asked(live, model)}"
            raise InvalidInputError(message)
        if checks.expect is not None and checks.expect.holds is None and (probe is None or probe.predictions is None):
            message = (
                "verification.expect: 'equal' needs recorded answers for the rows that are asked: register the model "
                "with expected."
            )
            raise InvalidInputError(message)
        if not self.can_ask:
            log.info("Deployment %r will not be asked: %s", self.name, self._why_not_asked(live, model))
        return model

    def _why_not_asked(self, live: Deployment | None, model: ModelVersion | None) -> str:
        if _server(live, model) == "VLLM":
            what = "vLLM is asked in the words of OpenAI's API, at the ingress"
        elif self.judge.version is None:
            what = "a script without a model is asked at the ingress, where 'health_path' says what for"
        else:
            return "nothing is known to ask this model version: give 'instances', or register it with an input example."
        return what + (", and the connection does not go there." if self.project.ingress is None else ".")

    async def prepare(
        self, live: Deployment | None, desired: SettingValues, model: ModelVersion | None, backoff: Backoff
    ) -> ModelVersion | None:
        """
        Find out what to ask of the version to come, once.

        :param live: the deployment
        :param desired: settings that were asked for
        :param model: the version to come; None for the one that is served
        :param pace: how often to try to read that one
        :return: the version to come, where it was looked up
        """
        if self.is_prepared or _protocol(live, desired) != "REST":
            return model
        self.is_prepared = True
        if model is None and live is not None and _server(live, model) != "VLLM":
            model = await lookup.served_model(self.project, live, backoff)
        self.judge.version = model.version if model else live.model_version if live else None
        is_vllm = _server(live, model) == "VLLM"
        if self.checks.health_path is None and not is_vllm:
            self.judge.probe = await self._find_probe(model)
        if self.judge.probe is None and self.project.ingress is not None:
            self._health_path = self.checks.health_path or (VLLM_HEALTH if is_vllm else None)
        return model

    async def _find_probe(self, model: ModelVersion | None) -> Probe | None:
        body = self.checks.body
        if model is None:
            return None if body is None or self.project.ingress is None else Probe(body)
        try:
            if body is None:
                return await predict.registered_probe(self.project, model)
            recorded = await predict.recorded_probe(self.project, model)
        except RequestRefusedError as error:
            if error.code != SCOPE_MISSING:
                raise
            log.warning("%s; what was registered with the version is not asked", error)
            recorded = None
        if body is None or (recorded is not None and recorded.body == body):
            return recorded
        return Probe(body)

    async def remember_champion(self, live: Deployment) -> None:
        """
        Note who serves before the change, and what they answer to the probe.

        :param live: the deployment
        """
        self.judge.champion_version = live.model_version
        probe = self.judge.probe
        if (probe is None or probe.predictions is None) and self.checks.version_path is None:
            return
        try:
            self.judge.champion = await self.send()
        except HopsworksError as error:
            log.info("The answer of the previous version is unknown: %s", error)

    async def ask_in_a_row(self, deployment: Deployment, roll: RolloutTracker) -> Attribution:
        """
        Ask several times; an answer of the version before means that the rollout is not through.

        :param deployment: as it was seen last
        :param roll: the rollout that seems to be through
        :raises VerificationError: an answer is not as it should be, nor that of the previous version
        """
        attribution = Attribution.UNKNOWN
        for number in range(PROBES if self.can_ask else 0):
            if number:
                await Sleep(predict.BETWEEN_PROBES)
            result = await self.ask_once(deployment)
            attribution = result.attribution
            if result.wrong and not self._may_be_old(result, roll):
                message = f"{deployment} {result.wrong}"
                raise VerificationError(message)
            if result.wrong or attribution is Attribution.CHAMPION:
                return Attribution.CHAMPION
        return attribution

    def _may_be_old(self, result: ProbeResult, roll: RolloutTracker) -> bool:
        """Tell whether an answer may be that of the version before, as far as that is not known."""
        fresh = self.clock() - roll.since < predict.ROUTE_BUDGET
        is_known = result.attribution is Attribution.CHALLENGER or (
            result.attribution is Attribution.NEITHER and self.judge.champion is not None
        )
        return fresh and roll.cause is RolloutCause.CHANGE and not roll.names_are_new and not is_known

    async def ask_once(self, deployment: Deployment) -> ProbeResult:
        """
        Send one probe, again while the deployment cannot be reached, and judge the answer.

        :param deployment: as it was seen last
        :raises VerificationError: the model refused it, or is not reached although it should
        :raises DeadlineExceededError: the server itself is not there
        """
        if not self.can_ask:
            return ProbeResult(Attribution.UNKNOWN)
        asking = predict.until_reached(
            self.project, self.name, self.send, timeout=predict.ROUTE_BUDGET, clock=self.clock
        )
        try:
            answer, seconds = await timed(asking, self.clock)
        except HopsworksError as error:
            if predict.is_unreached(error):
                message = f"{deployment} does not answer, although it should: {error}"
                is_its_fault = await self.is_its_fault(deployment, error)
                raise (VerificationError if is_its_fault else DeadlineExceededError)(message) from error
            asked = self._health_path or "a request with its registered example"
            if self.checks.body is not None:
                asked = "the request that 'verification' gives"
            message = f"{deployment} refused the probe, {asked}: {error}"
            raise VerificationError(message) from error
        return self.judge.judge(answer, seconds)

    async def ask_served(self, deployment: Deployment) -> ProbeResult:
        """
        Ask what has served for a while: a model that fails is asked again a few times, before it is believed.

        :param deployment: as it was seen last
        :raises VerificationError: as ``ask_once``
        """
        for _ in range(PROBES - 1):
            try:
                return await self.ask_once(deployment)
            except VerificationError as error:
                cause = error.__cause__
                if not isinstance(cause, HopsworksError) or not cause.transient or predict.is_unreached(cause):
                    raise
                log.warning("%s; asking again", error)
            await Sleep(predict.BETWEEN_PROBES)
        return await self.ask_once(deployment)

    async def send(self, seconds: float | None = None) -> Mapping[str, Any]:
        """
        Ask once.

        :param seconds: how long to wait for the answer
        """
        if self.judge.probe is not None:
            return await predict.ask_model(self.project, self.name, self.judge.probe.body, seconds=seconds)
        if self.project.ingress is None or self._health_path is None:
            return {}
        try:
            return await self.project.ingress.get(self.project, self.name, self._health_path, seconds=seconds)
        except InferenceError as error:
            if error.status == 404 and not error.not_routed and self.checks.health_path is None:
                log.info("%s; it does answer, so it counts as healthy", error)
                return {}
            raise

    async def is_its_fault(self, deployment: Deployment, error: HopsworksError) -> bool:
        """
        Tell a deployment that does not answer from a server that is not there.

        :param deployment: as it was seen last
        :param error: how a request ended
        """
        if not isinstance(error, NoResponseError | UnexpectedResponseError):
            return True
        if isinstance(error, NoResponseError) and not error.sent:
            return False
        try:
            await api.get_deployment_by_id(self.project, deployment.id)
        except HopsworksError:
            return False
        return True

    async def answers(self) -> bool:
        """Tell whether anything answers at all."""
        if not self.can_ask:
            return False
        try:
            await self.send()
        except HopsworksError as error:
            return not predict.is_unreached(error)
        return True

    async def wake(self) -> None:
        """Wake an Idle deployment by one request; how it ends does not matter."""
        if not self.can_ask:
            return
        log.info("Waking deployment %r by a request", self.name)
        try:
            await self.send(WAKE_AGAIN)
        except HopsworksError as error:
            log.info("The request that wakes it: %s", error)


def _protocol(live: Deployment | None, desired: SettingValues) -> str:
    """Tell what it will answer: REST or GRPC."""
    return str(desired.get("api_protocol") or (live.api_protocol if live else "REST"))


def _server(live: Deployment | None, model: ModelVersion | None) -> str:
    """Tell what it will run on."""
    if live is not None:
        return live.model_server
    return model.framework.model_server if model and model.framework else "PYTHON"
