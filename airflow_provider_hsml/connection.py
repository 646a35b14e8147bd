"""Reading of the Airflow connection, shared by the hook in a worker and the triggers."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf, mask_secret
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS

from airflow_provider_hsml.hopsworks.errors import HopsworksError, InvalidInputError

from .hopsworks.domain.access import Access, misspelled_extras
from .hopsworks.untrusted_text import hide

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

log = logging.getLogger(__name__)

DEFAULT_CONN_ID = "hsml_default"
"""The only connection that the environment stands in for."""
_TYPES = frozenset({"", "hsml", "hopsworks", "generic", "http", "https"})
"""Types of connections whose password can be an API key of Hopsworks. Any other belongs to another system."""


def access_of(hsml_conn_id: str, project: str | None, connection: Connection | None) -> Access:
    """
    Return the access that a connection describes. Without the default connection, read the environment.

    :param hsml_conn_id: the connection's id, for error messages
    :param project: the project to use instead of the connection's
    :param connection: None if Airflow has no such connection
    :raises InvalidInputError: a field of the connection is wrong, or there is no connection and no environment
    :raises HopsworksError: Airflow failed to look for the connection; transient
    """
    if connection is None:
        return _from_environment(hsml_conn_id, project)
    name = _named(hsml_conn_id)
    _check_type(name, connection)
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


def _named(hsml_conn_id: str) -> str:
    """Return the connection's name for messages. A whole URI, given as the id, is not repeated: it has a key."""
    return f"connection {hsml_conn_id!r}" if re.fullmatch(r"[\w.-]*", str(hsml_conn_id)) else "connection '...'"


def _check_type(name: str, connection: Connection) -> None:
    """Refuse a connection of another system: its password would be sent to its host."""
    kind = (connection.conn_type or "").lower()
    if kind not in _TYPES:
        message = (
            f"{name}: it is of the type {kind!r}, so its password is no API key of Hopsworks.\nCorrect 'hsml_conn_id', "
            "or make a connection of the type 'hsml'."
        )
        raise InvalidInputError(message)


def advice_of(connection: Connection | None) -> list[str]:
    """
    Return a sentence for each unknown extra that is close to a known one.

    :raises InvalidInputError: the extra is not a JSON object
    """
    if connection is None:
        return []
    return misspelled_extras(_read_extra(_named(connection.conn_id), connection.extra))


def not_readable(hsml_conn_id: str, error: Exception) -> HopsworksError:
    """
    Return the error for a connection that Airflow could not read, without Airflow's text, which may be the whole URI.

    :param error: the error of Airflow
    """
    message = (
        f"{_named(hsml_conn_id)}: Airflow cannot read it ({type(error).__name__}).\n"
        "Check that it can be parsed and decrypted, and that this task may read it."
    )
    return _transient(HopsworksError(message))


def _read_extra(name: str, extra: object) -> Mapping[str, Any]:
    """Read the extra field. The error does not repeat it, since a key may have been pasted into it."""
    try:
        given = json.loads(extra) if isinstance(extra, str) and extra.strip() else extra or {}
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, Mapping):
        message = f'{name}, field \'extra\': expected a JSON object, as in {{"project": "example"}}.'
        raise InvalidInputError(message)
    return given


def _from_environment(hsml_conn_id: str, project: str | None) -> Access:
    """
    Read the environment in place of the default connection.

    Airflow reports "not found" for a connection that it cannot parse, and when a secrets backend, its API server or
    its database fails. The environment's project would then be the wrong one.
    """
    name = _named(hsml_conn_id)
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
    _check_absent(hsml_conn_id)
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


def _check_absent(hsml_conn_id: str) -> None:
    """
    Raise an error unless Airflow's own store of connections says that it lacks this one.

    :raises HopsworksError: Airflow's API server or its database failed; transient
    """
    try:
        fault = _fault_of_look_up(hsml_conn_id)
    except Exception as error:  # noqa: BLE001 - whatever the database or the supervisor raises
        fault = type(error).__name__
    if fault:
        message = (
            f"{_named(hsml_conn_id)}: Airflow failed to look it up ({fault}).\nCheck that Airflow's API server and its "
            "database work, and run the task again."
        )
        raise _transient(HopsworksError(message))


def _fault_of_look_up(hsml_conn_id: str) -> str:
    """Ask again where Airflow looked, since Airflow drops the errors there. Empty if the connection does not exist."""
    runner = sys.modules.get("airflow.sdk.execution_time.task_runner")
    supervisor = getattr(runner, "SUPERVISOR_COMMS", None)
    if supervisor is not None:
        from airflow.sdk.exceptions import ErrorType  # noqa: PLC0415 - Airflow 2 has neither
        from airflow.sdk.execution_time.comms import GetConnection  # noqa: PLC0415

        answer = supervisor.send(GetConnection(conn_id=hsml_conn_id))
        error = getattr(answer, "error", "it exists now")
        return "" if error is ErrorType.CONNECTION_NOT_FOUND else str(getattr(error, "value", error))
    databases = [backend for backend in _backends() if type(backend).__name__ == "MetastoreBackend"]
    is_there = any(one.get_connection(conn_id=hsml_conn_id) for one in databases if _has_connections())
    return "it exists now" if is_there else ""


def _backends() -> Sequence[Any]:
    """Return the places in which Airflow looks for connections outside of a task."""
    if AIRFLOW_V_3_1_PLUS:
        from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded  # noqa: PLC0415

        return ensure_secrets_backend_loaded()
    from airflow.configuration import ensure_secrets_loaded  # noqa: PLC0415 - another one in Airflow 3.1

    return ensure_secrets_loaded()


def _has_connections() -> bool:
    """Whether Airflow's database has a table of connections. Without one no task runs: it is a laptop, say."""
    from airflow import settings  # noqa: PLC0415 - both are heavy, and needed here only
    from sqlalchemy import inspect  # noqa: PLC0415

    return bool(inspect(settings.engine).has_table("connection"))


def _is_of_connection(variable: str, hsml_conn_id: str) -> bool:
    """Whether Airflow reads a connection from an environment variable; since 3.2 a team may have one of its own."""
    of_team = variable.startswith("AIRFLOW_CONN__") and variable.endswith(f"___{hsml_conn_id.upper()}")
    return variable == f"AIRFLOW_CONN_{hsml_conn_id.upper()}" or of_team


def _transient(error: HopsworksError) -> HopsworksError:
    """Let Airflow retry: the source of the connection may recover."""
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
