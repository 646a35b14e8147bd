"""How a wait in the triggerer ended: plain JSON for the task that goes on after it, which takes nothing for granted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.errors import DeadlineExceededError, HopsworksError

if TYPE_CHECKING:
    from collections.abc import Mapping


def success(result: Mapping[str, Any]) -> dict[str, Any]:
    """
    Say that what was waited for is there.

    :param result: what was found, in plain JSON
    """
    return {"status": "success", "result": dict(result)}


def failure(error: HopsworksError) -> dict[str, Any]:
    """
    Say how it failed; without lines of logs, since Airflow stores it.

    :param error: what was met
    """
    if isinstance(error, DeadlineExceededError):
        return {"status": "timeout", "message": error.kept_text}
    return {"status": "error", "message": error.kept_text, "transient": error.transient}


def result_of(event: object) -> dict[str, Any]:
    """
    Give what was found.

    :param event: what the trigger ended with
    :raises DeadlineExceededError: it was not there until the deadline
    :raises HopsworksError: it cannot be there any more; or the event is none that is known, which is no success
    """
    match event:
        case {"status": "success", "result": dict() as result}:
            return result
        case {"status": "timeout", "message": str() as message}:
            raise DeadlineExceededError(message)
        case {"status": "error", "message": str() as message, "transient": bool() as transient}:
            error = HopsworksError(message)
            error.transient = transient
            raise error
    message = f"The wait in the triggerer ended with {event!r}, which says nothing: have scheduler, triggerer and "
    message += "workers the same version of this provider, and run the task again."
    raise HopsworksError(message)
