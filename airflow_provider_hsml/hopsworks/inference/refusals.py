"""What a failed request says: whether it is about its rows, and the reason to name."""

from __future__ import annotations

from airflow_provider_hsml.hopsworks.errors import (
    MODEL_5XX,
    HopsworksError,
    InferenceError,
    RequestRefusedError,
    UnexpectedResponseError,
)
from airflow_provider_hsml.hopsworks.untrusted_text import beginning

from . import predict

_MOST_OF_REASON = 300
"""Characters of the reason for which a row was refused."""
_ENTITY_MISSING = "ENTITY_NOT_FOUND"
"""The code with which a deployment says that the online store has no features for a row."""


def refuses_rows(error: HopsworksError) -> bool:
    """
    Return whether a request was refused because of its rows, and not because of the deployment's state.

    :param error: the error of the request
    """
    if predict.is_unreached(error) or is_passing(error):
        return False
    # The ingress refuses a request that is too large, which one of fewer rows is not.
    is_too_large = isinstance(error, InferenceError) and error.status == predict.TOO_LARGE
    is_models = predict.is_model_refusal(error) or predict.is_schema_refusal(error)
    return is_models or is_too_large or _ENTITY_MISSING in _text(error)


def none_answered(error: HopsworksError, rows: int) -> HopsworksError:
    """
    Return the error for a deployment that answers no row.

    :param error: its last refusal
    :param rows: the number of rows that it was asked for
    """
    return error.extended(
        f"The first {rows} rows were refused, and none was answered.\nCheck that the rows have the columns that this "
        "version takes: its registered input example shows them."
    )


def is_passing(error: HopsworksError) -> bool:
    """Return whether the rate is limited, or the online store does not answer: the same request can succeed later."""
    if getattr(error, "status", None) in (408, 429):
        return True
    return predict.is_without_features(error) and _ENTITY_MISSING not in _text(error)


def is_crash(error: HopsworksError) -> bool:
    """Return whether the model itself failed with a request: because of a row, or with every one."""
    if predict.is_unreached(error) or not predict.is_model_refusal(error):
        return False
    if isinstance(error, InferenceError):
        return error.status >= 500
    return isinstance(error, RequestRefusedError) and error.code == MODEL_5XX


def is_too_large_answer(error: HopsworksError) -> bool:
    """Return whether the response is beyond the connection's limit, which a smaller request may meet."""
    return isinstance(error, UnexpectedResponseError) and not error.transient


def _text(error: HopsworksError) -> str:
    return error.text if isinstance(error, InferenceError | RequestRefusedError) else ""


def reason_of(error: HopsworksError) -> str:
    """Return why a row was refused: the beginning of what the model or Hopsworks said."""
    return beginning(_text(error) or str(error), _MOST_OF_REASON)
