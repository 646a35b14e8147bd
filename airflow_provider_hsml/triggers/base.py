"""The base of the triggers: serialization, and the shared client."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from airflow.providers.common.compat.connection import get_async_connection
from airflow.providers.common.compat.sdk import AirflowNotFoundException
from airflow.triggers.base import BaseTrigger
from asgiref.sync import sync_to_async

from airflow_provider_hsml import logs
from airflow_provider_hsml.connection import access_of, mask_key, not_readable
from airflow_provider_hsml.hopsworks.domain import trigger_event
from airflow_provider_hsml.hopsworks.errors import DeadlineExceededError, HopsworksError
from airflow_provider_hsml.hopsworks.transport.once import Once

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Self

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.access import Access
    from airflow_provider_hsml.hopsworks.flow import Backoff
    from airflow_provider_hsml.hopsworks.transport.async_client import AsyncClient

for _httpx in map(logging.getLogger, ("httpx", "httpx2")):
    if not _httpx.level:
        _httpx.setLevel(logging.WARNING)  # As Airflow 3 does: otherwise each request is a line in the log.


class HsmlTrigger(BaseTrigger):
    """
    The base of the triggers that wait for something in Hopsworks.

    Airflow stores the arguments, and everyone who may read the DAG's runs can read them: they are ids, names and
    numbers only. They are passed by keyword; subclasses pass the common ones on with ``**more``.

    :param hsml_conn_id: the Airflow connection
    :param project: the project to use instead of the connection's
    """

    _arguments: dict[str, Any]

    def __new__(cls, **arguments: Any) -> Self:
        """Keep all arguments, so that ``serialize`` misses none."""
        self = super().__new__(cls)
        self._arguments = arguments
        return self

    def __init__(self, *, hsml_conn_id: str = "hsml_default", project: str | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.hsml_conn_id = hsml_conn_id
        self.project = project

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the path of the class and its arguments. The path of a class of this provider is the public one."""
        kind = type(self)
        ours = kind.__module__.startswith(f"{__package__}.")
        return f"{__package__ if ours else kind.__module__}.{kind.__name__}", dict(self._arguments)

    def failure(self, error: Exception) -> dict[str, Any]:
        """
        Return the event for an exception. The task sees any exception as a failure that a retry may avoid.

        :param error: the exception that ended the wait
        """
        if isinstance(error, HopsworksError):
            return trigger_event.failure(error)
        self.log.error("The wait ended with an unexpected exception", exc_info=error)
        # Only the class of the exception: its text may hold anything that a response holds.
        unexpected = HopsworksError(
            f"The wait in the triggerer ended with an unexpected {type(error).__name__}.\n"
            "Read the triggerer's log, and run the task again."
        )
        unexpected.transient = True
        return trigger_event.failure(unexpected)

    def __repr__(self) -> str:
        shown = (
            f"{name}={value!r}" if value is None or isinstance(value, str | int | float) else f"{name}=..."
            for name, value in self._arguments.items()
        )
        return f"{type(self).__name__}({', '.join(shown)})"


@asynccontextmanager
async def shared_client(hsml_conn_id: str, project: str | None = None) -> AsyncIterator[AsyncClient]:
    """
    Yield the client that all triggers of this event loop with the same connection and project share.

    The first user reads the connection. After the last user has left, the next one reads it again.

    :param hsml_conn_id: the Airflow connection
    :param project: the project to use instead of the connection's
    :raises InvalidInputError: a field of the connection is wrong, or there is no connection and no environment
    """
    clients = _SHARED.setdefault(asyncio.get_running_loop(), {})
    shared = clients.setdefault((hsml_conn_id, project), _Shared(hsml_conn_id, project))
    shared.users += 1
    try:
        yield await shared.client.get()
    finally:
        shared.users -= 1
        if not shared.users:
            del clients[hsml_conn_id, project]
            await shared.close()


async def find_project(client: AsyncClient, backoff: Backoff) -> Project:
    """
    Return the project. Retry while the server is unavailable.

    :param backoff: the delays between attempts, and the deadline
    :raises DeadlineExceededError: the server was unavailable until the deadline
    """
    from airflow_provider_hsml.hopsworks.flow import LAST_READ  # noqa: PLC0415 - not needed to parse a DAG

    while True:
        try:
            async with asyncio.timeout(max(backoff.deadline - backoff.clock(), LAST_READ)):
                return await client.project()
        except TimeoutError:
            message = f"Gave up at the timeout: the project of {client.access} could not be read."
            raise DeadlineExceededError(message) from None
        except HopsworksError as error:
            if not error.transient:
                raise
            pause = backoff.next_delay(at_least=error.retry_after or 0.0)
            if pause is None:
                message = f"Gave up at the timeout: {error}"
                raise DeadlineExceededError(message) from error
            await asyncio.sleep(pause)


class _Shared:
    """A client and the number of its users."""

    def __init__(self, hsml_conn_id: str, project: str | None) -> None:
        self.client = Once(lambda: _connect(hsml_conn_id, project))
        self.users = 0

    async def close(self) -> None:
        """Close the client, or cancel its creation."""
        if self.client.is_found:
            await (await self.client.get()).close()
        self.client.cancel()


_SHARED: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str | None], _Shared]] = WeakKeyDictionary()


async def _connect(hsml_conn_id: str, project: str | None) -> AsyncClient:
    """
    Read the connection, and create its client in a thread: imports and the TLS context would block the loop.

    Without a connection, Airflow's supervisor is asked for the reason, also in a thread, as for masking below.
    """
    try:
        connection = await get_async_connection(hsml_conn_id)
    except AirflowNotFoundException:
        connection = None
    except Exception as error:  # noqa: BLE001 - whatever a secrets backend or the API raises
        raise not_readable(hsml_conn_id, error) from None
    access = await sync_to_async(access_of)(hsml_conn_id, project, connection)
    logs.mask()
    await _mask(access.key)
    return await asyncio.to_thread(_client, access)


def _client(access: Access) -> AsyncClient:
    from airflow_provider_hsml.hopsworks.transport.async_client import AsyncClient  # noqa: PLC0415 - imports httpx, which parsing a DAG does not need

    return AsyncClient(access, on_new_key=_mask)


async def _mask(key: str) -> None:
    """Mask a key, in a thread: before 3.3, Airflow cannot notify its supervisor from the event loop."""
    await sync_to_async(mask_key)(key)
