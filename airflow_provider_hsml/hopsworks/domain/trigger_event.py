"""Events of our triggers: plain JSON that the resumed task validates before it trusts it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.errors import DeadlineExceededError, HopsworksError

if TYPE_CHECKING:
    from collections.abc import Mapping


def success(result: Mapping[str, Any]) -> dict[str, Any]:
    """Build the event of a wait that succeeded, with a result of plain JSON."""
    return {"status": "success", "result": dict(result)}


def failure(error: HopsworksError) -> dict[str, Any]:
    """
    Build the event of a wait that failed.

    Log lines of the deployment are left out, since Airflow stores the event.
    """
    if isinstance(error, DeadlineExceededError):
        return {"status": "timeout", "message": error.kept_text}
    return {"status": "error", "message": error.kept_text, "transient": error.transient}


def result_of(event: object) -> dict[str, Any]:
    """
    Return the result of an event, or raise its error.

    :raises DeadlineExceededError: the wait ended at its deadline
    :raises HopsworksError: the wait failed, or the event has an unknown form, which never counts as success
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
