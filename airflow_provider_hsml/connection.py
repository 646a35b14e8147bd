"""What Airflow's connection says, the same for the hook in a worker and for the triggers."""

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
    Read a connection, or the environment where there is none.

    :param hsml_conn_id: its id
    :param project: another project than the connection's
    :param connection: None: Airflow has no such connection
    :param extra: what is in its field of that name
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
            f"Airflow has no connection {hsml_conn_id!r}, and the environment names no Hopsworks. Make a "
            "connection of type 'hsml' with host, API key (password) and extra 'project', or set "
            "HOPSWORKS_HOST, HOPSWORKS_PROJECT and HOPSWORKS_API_KEY."
        )
        raise InvalidInputError(message)
    return access


_LEAST = 5
"""Characters of what is masked; Airflow 3 has the same limit."""


def mask_key(key: str) -> None:
    """
    Keep a key out of Airflow's logs: as a whole, and its secret part behind the dot.

    :param key: the API key or token
    """
    for secret in (key, key.rpartition(".")[2]):
        if len(secret) >= _LEAST:  # Airflow 2 would mask each word that is the same.
            mask_secret(secret)
