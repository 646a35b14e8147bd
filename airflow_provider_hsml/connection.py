"""Reading of the Airflow connection, shared by the hook in a worker and the triggers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import mask_secret

from airflow_provider_hsml.hopsworks.errors import InvalidInputError

from .hopsworks.domain.access import Access

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.providers.common.compat.sdk import Connection


def access_of(
    hsml_conn_id: str, project: str | None, connection: Connection | None, extra: Mapping[str, Any] | None = None
) -> Access:
    """
    Return the access that a connection describes. Without a connection, read the environment.

    :param hsml_conn_id: the connection's id, for error messages
    :param project: the project to use instead of the connection's
    :param connection: None if Airflow has no such connection
    :param extra: the parsed content of the connection's extra field
    :raises InvalidInputError: a field of the connection is wrong, or there is no connection and no environment
    """
    if connection is not None:
        return Access.from_connection(
            host=connection.host,
            port=connection.port,
            password=connection.password,
            extra=extra or {},
            project=project,
            schema=connection.schema,
            name=f"connection {hsml_conn_id!r}",
        )
    access = Access.from_environment(project=project)
    if access is None:
        message = (
            f"Airflow has no connection {hsml_conn_id!r}, and the environment names no Hopsworks. Create a "
            "connection of type 'hsml' with host, API key (password) and extra 'project', or set "
            "HOPSWORKS_HOST, HOPSWORKS_PROJECT and HOPSWORKS_API_KEY."
        )
        raise InvalidInputError(message)
    return access


_MIN_MASKED_LENGTH = 5
"""The shortest text that is masked, in characters. Airflow 3 has the same limit."""


def mask_key(key: str) -> None:
    """
    Mask a key in Airflow's logs: the whole key, and its secret part after the dot.

    :param key: the API key or token
    """
    for secret in (key, key.rpartition(".")[2]):
        if len(secret) >= _MIN_MASKED_LENGTH:  # Airflow 2 would mask every occurrence of a short word.
            mask_secret(secret)
