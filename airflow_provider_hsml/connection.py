"""Reading of the Airflow connection, shared by the hook in a worker and the triggers."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf, mask_secret

from airflow_provider_hsml.hopsworks.errors import HopsworksError, InvalidInputError

from .hopsworks.domain.access import Access, misspelled_extras
from .hopsworks.untrusted_text import hide

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

log = logging.getLogger(__name__)

DEFAULT_CONN_ID = "hsml_default"
"""The only connection that the environment stands in for."""


def access_of(hsml_conn_id: str, project: str | None, connection: Connection | None) -> Access:
    """
    Return the access that a connection describes. Without the default connection, read the environment.

    :param hsml_conn_id: the connection's id, for error messages
    :param project: the project to use instead of the connection's
    :param connection: None if Airflow has no such connection
    :raises InvalidInputError: a field of the connection is wrong, or there is no connection and no environment
    """
    if connection is None:
        return _from_environment(hsml_conn_id, project)
    name = f"connection {hsml_conn_id!r}"
    for advice in advice_of(connection):
        log.warning("%s: %s", name, advice)
    return Access.from_connection(
        host=connection.host,
        port=connection.port,
        password=connection.password,
        extra=_read_extra(name, connection.extra),
        project=project,
        schema=connection.schema,
        name=name,
    )


def advice_of(connection: Connection | None) -> list[str]:
    """
    Return a sentence for each unknown extra that is close to a known one.

    :raises InvalidInputError: the extra is not a JSON object
    """
    if connection is None:
        return []
    return misspelled_extras(_read_extra(f"connection {connection.conn_id!r}", connection.extra))


def not_readable(hsml_conn_id: str, error: Exception) -> HopsworksError:
    """
    Return the error for a connection that Airflow could not read, without Airflow's text, which may be the whole URI.

    :param error: the error of Airflow
    """
    failed = HopsworksError(
        f"connection {hsml_conn_id!r}: Airflow cannot read it ({type(error).__name__}).\n"
        "Check that it can be parsed and decrypted, and that this task may read it."
    )
    failed.transient = True
    return failed


def _read_extra(name: str, extra: object) -> Mapping[str, Any]:
    """Read the extra field. The error does not repeat it, since a key may have been pasted into it."""
    try:
        given = json.loads(extra) if isinstance(extra, str) and extra.strip() else extra or {}
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, Mapping):
        message = f'{name}, field \'extra\': expected a JSON object, as in {{"project": "demo"}}.'
        raise InvalidInputError(message)
    return given


def _from_environment(hsml_conn_id: str, project: str | None) -> Access:
    """
    Read the environment in place of the default connection.

    Airflow reports "not found" for a connection that it cannot parse, and when a secrets backend fails. The
    environment's project would then be the wrong one.
    """
    name = f"connection {hsml_conn_id!r}"
    variables = [variable for variable in os.environ if _is_of_connection(variable, str(hsml_conn_id))]
    if variables:
        message = (
            f"{name}: the environment variable {variables[0]} is set, but Airflow cannot read a connection from it.\n"
            "Set it to a URI or to JSON, with special characters percent-encoded in a URI, or unset it."
        )
        raise InvalidInputError(message)
    if backend := conf.get("workers", "secrets_backend", fallback="") or conf.get("secrets", "backend", fallback=""):
        message = (
            f"{name}: neither the secrets backend ({backend.rpartition('.')[2]}) nor Airflow's database returned it.\n"
            "Create it there. If it exists, the backend has failed: its error is in the log at level debug."
        )
        raise _transient(InvalidInputError(message))
    if hsml_conn_id != DEFAULT_CONN_ID:
        message = (
            f"{name}: Airflow has no such connection.\nCorrect 'hsml_conn_id', or create a connection of type 'hsml' "
            "with that id."
        )
        raise InvalidInputError(message)
    access = Access.from_environment(project=project)
    if access is None:
        message = (
            f"{name}: Airflow has no such connection, and the environment names no Hopsworks.\nCreate a connection of "
            "type 'hsml' with host, API key (password) and extra 'project', or set HOPSWORKS_HOST, HOPSWORKS_PROJECT "
            "and HOPSWORKS_API_KEY."
        )
        raise InvalidInputError(message)
    log.info("%s does not exist: using the environment, %s", name, access)
    return access


def _is_of_connection(variable: str, hsml_conn_id: str) -> bool:
    """Whether Airflow reads a connection from an environment variable; since 3.2 a team may have one of its own."""
    of_team = variable.startswith("AIRFLOW_CONN__") and variable.endswith(f"___{hsml_conn_id.upper()}")
    return variable == f"AIRFLOW_CONN_{hsml_conn_id.upper()}" or of_team


def _transient(error: InvalidInputError) -> InvalidInputError:
    """Let Airflow retry: a failing secrets backend may recover."""
    error.transient = True
    return error


_MIN_MASKED_LENGTH = 5
"""The shortest text that is masked, in characters. Airflow 3 has the same limit."""


def mask_key(key: str) -> None:
    """
    Mask a key in Airflow's logs, and in our own texts: the whole key, and its secret part after the dot.

    :param key: the API key or token
    """
    hide(key)
    for secret in (key, key.rpartition(".")[2]):
        if len(secret) >= _MIN_MASKED_LENGTH:  # Airflow 2 would mask every occurrence of a short word.
            mask_secret(secret)
