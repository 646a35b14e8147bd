"""
The event with which a trigger ends: plain JSON, written in the triggerer and read by the task that resumes.

Three shapes: ``{"status": "success", "result": {...}}``, ``{"status": "start_needed", "result": {...}}``, and
``{"status": "error", "code": "...", "message": "...", "transient": true, "result": {...}}``. Airflow stores events, so
the codes of errors are stable, and no line of a log is in a message.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_provider_hsml.hopsworks import errors
from airflow_provider_hsml.hopsworks.errors import HopsworksError

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

_CODES: dict[str, type[HopsworksError]] = {
    "invalid_input": errors.InvalidInputError,
    "not_found": errors.NotFoundError,
    "unsupported": errors.UnsupportedError,
    "certificate": errors.CertificateError,
    "deadline_exceeded": errors.DeadlineExceededError,
    "job": errors.JobError,
    "deployment": errors.DeploymentError,
    "verification": errors.VerificationError,
    "verification_ambiguous": errors.AmbiguousVerificationError,
    "verification_unreachable": errors.UnreachableError,
    "rolled_back": errors.RolledBackError,
    "superseded": errors.SupersededError,
}
"""The errors that the task rebuilds from their code and message alone."""
_FAILED = "deployment_failed"
_OTHER = "hopsworks"
_LONGEST_DELAY = 24 * 3600.0
"""The longest delay, in seconds, that an event stores."""


@dataclass(frozen=True, slots=True)
class Success:
    """The wait is over, as it was to be."""

    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StartNeeded:
    """A START has to be sent again, which is for a worker to do."""

    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Failure:
    """The wait has failed."""

    code: str
    message: str
    transient: bool
    result: Mapping[str, Any]

    @property
    def is_failed_deployment(self) -> bool:
        """Whether the instances of the deployment do not come up; the deployment itself tells the rest."""
        return self.code == _FAILED

    def error(self) -> HopsworksError:
        """Return the error that the trigger met, as far as its code and message tell."""
        kind = errors.DeploymentError if self.is_failed_deployment else _CODES.get(self.code, HopsworksError)
        error = kind(self.message)
        error.transient = self.transient
        # Older versions of this package store none of these.
        error.failed_probes = self.result.get("failed_probes", 0)
        delay = self.result.get("requested_delay")
        error.requested_delay = float(delay) if isinstance(delay, int | float) else None
        # Missing room is the only transient failure of a deployment.
        is_no_room = self.transient and self.is_failed_deployment
        error.is_out_of_capacity = bool(self.result.get("is_out_of_capacity", is_no_room))
        return error


@dataclass(frozen=True, slots=True)
class Unknown:
    """The wait is over, and this version of the provider cannot read how: the live state tells."""

    result: Mapping[str, Any] = field(default_factory=dict)


Event: TypeAlias = Success | StartNeeded | Failure | Unknown


def success(result: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the event of a wait that is over.

    :param result: what was found, in plain JSON
    """
    return {"status": "success", "result": dict(result)}


def start_needed(result: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the event of a rollout that needs another START.

    :param result: the state of the wait, in plain JSON
    """
    return {"status": "start_needed", "result": dict(result)}


def failure(error: HopsworksError, result: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """
    Return the event of a wait that has failed.

    :param error: the error; lines of logs in it are left out
    :param result: the state of the wait, in plain JSON
    """
    known = {kind: code for code, kind in _CODES.items()}
    delay = error.requested_delay
    about = {
        "failed_probes": error.failed_probes,
        # An infinite one is no JSON.
        "requested_delay": None if delay is None else min(delay, _LONGEST_DELAY),
        "is_out_of_capacity": error.is_out_of_capacity,
    }
    code = _FAILED if isinstance(error, errors.DeploymentFailedError) else known.get(type(error), _OTHER)
    return {
        "status": "error",
        "code": code,
        "message": error.kept_text,
        "transient": error.transient,
        "result": {**(result or {}), **about},
    }


def read(event: object) -> Event:
    """
    Parse an event. Another version of the provider may have written it: then it is ``Unknown``.

    :param event: the event that a trigger ended with
    """
    match event:
        case {"status": "success", "result": dict() as result}:
            return Success(result)
        case {"status": "start_needed", "result": dict() as result}:
            return StartNeeded(result)
        case {
            "status": "error",
            "code": str() as code,
            "message": str() as message,
            "transient": bool() as transient,
            "result": dict() as result,
        }:
            return Failure(code, message, transient, result)
    log.warning(
        "The wait in the triggerer ended with %r, which is no event of this version of the provider; the wait goes on "
        "in the worker.\nHave scheduler, triggerer and workers run the same version.",
        event,
    )
    return Unknown()
