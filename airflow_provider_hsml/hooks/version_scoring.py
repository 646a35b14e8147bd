"""Score the versions of a comparison on one temporary deployment, and store their answers."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain.batch_options import CHUNK_ROWS
from airflow_provider_hsml.hopsworks.domain.deployment_schema import schema_id_of
from airflow_provider_hsml.hopsworks.domain.records import Shape, instances
from airflow_provider_hsml.hopsworks.domain.result_set import ResultSet
from airflow_provider_hsml.hopsworks.errors import DeploymentError
from airflow_provider_hsml.hopsworks.flow import Sleep
from airflow_provider_hsml.hopsworks.inference import schemas, scoring

from .tables import stored_result_set, write_result_set

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.records import Columns, Record
    from airflow_provider_hsml.hopsworks.flow import Backoff, Flow
    from airflow_provider_hsml.hopsworks.inference.concurrency import Connection
    from airflow_provider_hsml.hopsworks.promotion.contenders import Contender, Contenders
    from airflow_provider_hsml.hopsworks.promotion.side_deployment import SideDeployment
    from airflow_provider_hsml.hopsworks.rollout.inputs import Run

log = logging.getLogger(__name__)

_REQUESTS = 100
"""Requests that rows are spread over, where there are few of them: the latency of a version is known from requests."""
_LOGGED_EVERY = 60.0
"""Seconds between two log lines about the progress of a scoring."""


@dataclass(frozen=True, slots=True)
class Workplace:
    """The temporary deployment that rows are sent to, and what its use needs of the hook."""

    run: Run
    """The run on the live deployment."""
    live: Deployment | None
    """The live deployment; None if there is none."""
    side: SideDeployment
    """The temporary one, which its owner removes."""
    drive: Callable[[Flow[Any]], Any]
    """Drives a flow."""
    connect: Callable[[Callable[[float], None]], Connection]
    """Makes the connection of one thread."""
    check_alive: Callable[[], object]
    """Raises an exception once the task was killed."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A result set, and the folder that it is in."""

    results: ResultSet
    folder: str


@dataclass(frozen=True, slots=True)
class VersionScoring:
    """The rows of a comparison, and where the answers to them are stored."""

    records: Sequence[Record]
    columns: Columns
    folder: str
    """The folder for the result sets."""
    reuse_key: str
    """Identifies the DAG run, in which stored answers are used again; empty: none are."""
    is_ordered: bool
    """Whether the columns of the records have the order in which they were written."""

    def score(self, place: Workplace, both: Contenders) -> tuple[Stored | None, Stored]:
        """
        Score the champion and then the challenger.

        :param place: the temporary deployment
        :param both: the versions
        """
        contenders = [one for one in (both.champion, both.challenger) if one is not None]
        if place.live is None or schema_id_of(place.live) is None:
            for contender in contenders:  # Rows that a version does not take are found before anything is created.
                self._instances(contender.shape)
        digest = _digest(self.records, is_ordered=self.is_ordered)
        found = [self._score_or_reuse(place, one, self._key(digest, one, place.live)) for one in contenders]
        return None if both.champion is None else found[0], found[-1]

    def _score_or_reuse(self, place: Workplace, contender: Contender, key: str) -> Stored:
        """Return the stored answers of a version, if this DAG run has scored it; else score it."""
        folder = f"{self.folder}/{contender.model.name}_{contender.model.version}_{key[:12]}"
        backoff = place.run.backoff(1.0)
        while True:
            results = stored_result_set(folder) if self.reuse_key else None
            if results is not None and results.fingerprint == key:
                log.info("%s: its answers to these rows are stored in %s", results.served, folder)
                return Stored(results, folder)
            try:
                serving = place.drive(place.side.serve(contender.desired, place.live)).deployment
            except DeploymentError as error:
                # Another task compares for the same deployment, such as a mapped one with another challenger.
                if type(error) is not DeploymentError or not error.transient or place.side.seen is not None:
                    raise
                place.drive(place.side.remove())  # Both may have written a lease; the other one has the deployment.
                place.drive(_wait(backoff, error))
            else:
                results = self._score_version(place, contender, serving, key)
                write_result_set(folder, results)
                return Stored(results, folder)

    def _score_version(self, place: Workplace, contender: Contender, serving: Deployment, key: str) -> ResultSet:
        """Send the rows to the temporary deployment."""
        run = place.run
        shape, most = contender.shape, CHUNK_ROWS
        schema = place.drive(schemas.read_for_checks(run.project, serving, run.routes))
        if schema is not None:
            shape, most = Shape.of_schema(schema), min(most, schema.max_batch_rows)
        rows = self._instances(shape)
        target = scoring.Target(run.project, place.side.name, contender.key, run.timeout, run.clock)
        predictions: list[Any] = []
        refused: dict[int, str] = {}
        latencies: list[float] = []
        progress = _Progress(str(contender.served), len(rows))

        def keep() -> None:
            place.check_alive()
            place.drive(place.side.renew())
            progress.report(len(predictions))

        size = max(1, min(most, len(rows) // _REQUESTS))
        for chunk in scoring.score(rows, target, place.connect, chunk_rows=size, on_wait=keep):
            predictions += chunk.predictions
            refused |= chunk.refused
            latencies += chunk.latencies
        progress.end(len(refused))
        until = contender.trained_until
        return ResultSet(contender.served, self.records, predictions, refused, latencies, until, key)

    def _instances(self, shape: Shape) -> list[Any]:
        return instances("input", self.records, self.columns, shape, is_ordered=self.is_ordered)

    def _key(self, digest: str, contender: Contender, live: Deployment | None) -> str:
        """
        Return what a version's answers depend on in a DAG run: the rows, the version, the live configuration.

        Columns with a use of their own are not sent. A version may be registered anew under its number.
        """
        served = contender.served
        configuration = None if live is None else [live.id, *live.signature]
        version = [served.project, served.name, served.version, contender.model.created]
        parts = [digest, astuple(self.columns), *version, configuration, self.reuse_key]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


async def _wait(backoff: Backoff, error: DeploymentError) -> None:
    """
    Wait until another task may have ended its use of the temporary deployment.

    :raises DeploymentError: it has not in time
    """
    delay = backoff.next_delay(about="the temporary deployment")
    if delay is None:
        raise error
    await Sleep(delay)


def _digest(records: Sequence[Record], *, is_ordered: bool) -> str:
    """Return a digest of the rows: of the order of their columns as well, where a model may be sent them in it."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(json.dumps(record, sort_keys=not is_ordered).encode())
        digest.update(b"\n")
    return digest.hexdigest()


class _Progress:
    """Logs the progress of a scoring once a minute, and its end."""

    def __init__(self, what: str, rows: int) -> None:
        self._what, self._rows = what, rows
        self._begun = self._logged = time.monotonic()

    def report(self, done: int) -> None:
        """
        Log the progress, if nothing was logged for a minute.

        :param done: the rows that were answered
        """
        now = time.monotonic()
        if now - self._logged >= _LOGGED_EVERY:
            self._logged = now
            log.info("%s: %d of %d rows are scored", self._what, done, self._rows)

    def end(self, refused: int) -> None:
        """
        Log the end.

        :param refused: the rows without a prediction
        """
        seconds = time.monotonic() - self._begun
        log.info("%s: scored %d rows in %.1f s, %d without a prediction", self._what, self._rows, seconds, refused)
