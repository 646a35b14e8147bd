"""Verifying a deployment: what it is asked, whose answers it gives, and what follows from them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import predicting, registry
from .errors import HopsworksError, NotInTime, NotVerified
from .predicting import Likeness, Probe
from .rollout import WAKE_AGAIN, Moved, Roll
from .waiting import Pace, Pause, Procedure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .calls import Project
    from .deployments import Deployment
    from .models import ModelVersion
    from .waiting import Clock

log = logging.getLogger(__name__)

PROBES = 5


@dataclass(slots=True)
class Verifier:
    """Asks one deployment, and tells whose answers it gives."""

    project: Project
    name: str
    clock: Clock
    probe: Probe | None = None
    """None until ``prepare``; and where there is nothing to ask."""
    champion: Mapping[str, Any] | None = None
    """What the version before answered to the probe; None when that is not known."""
    _predicted: str = ""

    def prepare(self, live: Deployment, model: ModelVersion | None, pace: Pace) -> Procedure[ModelVersion | None]:
        """
        Find out what to ask of the version to come, once.

        :param live: the deployment
        :param model: the version to come; None for the one that is served
        :param pace: how often to try to read that one
        :return: the version to come, where it was looked up
        """
        if self.probe is not None or live.api_protocol != "REST" or live.model_server == "VLLM":
            return model
        if model is None:
            model = yield from registry.served_model(self.project, live, pace)
        if model is not None:
            self.probe = yield from predicting.registered_probe(self.project, model)
        return model

    def remember_champion(self) -> Procedure[None]:
        """Note what those who serve before the change answer to the probe."""
        if self.probe is None or self.probe.predictions is None:
            return
        try:
            self.champion = yield from predicting.ask_model(self.project, self.name, self.probe.body)
        except HopsworksError as error:
            log.info("What the version before answers is not known: %s", error)

    def ask_in_a_row(self, deployment: Deployment, roll: Roll) -> Procedure[Likeness]:
        """
        Ask several times; an answer of the version before means that the rollout is not through.

        :param deployment: as it was seen last
        :param roll: the rollout that seems to be through
        :raises NotVerified: an answer is neither the recorded one nor that of the version before
        """
        likeness = Likeness.UNKNOWN
        for number in range(PROBES if self.probe is not None else 0):
            if number:
                yield Pause(predicting.BETWEEN_PROBES)
            likeness = yield from self.ask_once(deployment)
            if likeness is Likeness.NEITHER and self._may_be_old(roll):
                likeness = Likeness.CHAMPION
            if likeness is Likeness.NEITHER:
                message = f"{deployment} answers otherwise than recorded for this version: {self._predicted[:200]}"
                raise NotVerified(message)
            if likeness is Likeness.CHAMPION:
                break
        return likeness

    def _may_be_old(self, roll: Roll) -> bool:
        """Tell whether an answer may be that of a version before, which could not be asked."""
        fresh = self.clock() - roll.since < predicting.ROUTE_BUDGET
        return fresh and roll.moved is Moved.CHANGE and self.champion is None

    def ask_once(self, deployment: Deployment) -> Procedure[Likeness]:
        """
        Send one probe, and tell whose answer it is.

        :param deployment: as it was seen last
        :raises NotVerified: the model refused it
        :raises NotInTime: it cannot be reached
        """
        if self.probe is None:
            return Likeness.UNKNOWN
        budget = predicting.ROUTE_BUDGET
        try:
            answer = yield from predicting.predict(
                self.project, self.name, self.probe.body, timeout=budget, clock=self.clock
            )
        except HopsworksError as error:
            if predicting.is_unreached(error):
                message = f"{deployment} does not answer, although it should: {error}"
                raise NotInTime(message) from error
            message = f"{deployment} refused the probe, a request with its registered example: {error}"
            raise NotVerified(message) from error
        self._predicted = str(answer.get("predictions"))
        return predicting.likeness(self.probe, answer, self.champion)

    def answers(self) -> Procedure[bool]:
        """Tell whether anything answers at all."""
        if self.probe is None:
            return False
        try:
            yield from predicting.ask_model(self.project, self.name, self.probe.body)
        except HopsworksError as error:
            return not predicting.is_unreached(error)
        return True

    def wake(self) -> Procedure[None]:
        """Wake an Idle deployment by one request; how it ends does not matter."""
        if self.probe is None:
            return
        log.info("Waking deployment %r by a request", self.name)
        try:
            yield from predicting.ask_model(self.project, self.name, self.probe.body, seconds=WAKE_AGAIN)
        except HopsworksError as error:
            log.info("The request that wakes it: %s", error)
