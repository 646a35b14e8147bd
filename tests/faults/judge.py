"""Judges a cell that has been played: on the server, and on the texts that came out of it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowTaskTimeout,
)

from airflow_provider_hsml.hopsworks.errors import HopsworksError, RolledBackError

if TYPE_CHECKING:
    from .operations import Operation
    from .plot import Plot
    from .proxy import Exchange

OURS = (HopsworksError, AirflowFailException, AirflowSensorTimeout, AirflowTaskTimeout)
_SAME = {"put:1": "rollback:1"}
"""Ways of the same thing: before 5.2 a rollback is a PUT of the version before."""


def is_ours(error: BaseException) -> bool:
    return isinstance(error, OURS)


def is_permanent(error: BaseException) -> bool:
    """Whether Airflow does not retry the task by itself."""
    return not isinstance(error, HopsworksError) or not error.transient


def is_rollback(error: BaseException | None) -> bool:
    """Whether the task ended since its version was rolled back; the cause of Airflow's own exception tells."""
    return error is not None and (isinstance(error, RolledBackError) or isinstance(error.__context__, RolledBackError))


def _kind(effect: str) -> str:
    """Name a change without the number that a new version has got."""
    return "register" if effect.startswith("register:") else _SAME.get(effect, effect)


def effects(
    operation: Operation, exchanges: list[Exchange], *, others: int = 0, keys: int = 1, late: int = 0
) -> list[str]:
    """
    Tell what was carried out more often than it may be.

    :param others: how often another client has changed the deployment: each such change may need one more of ours
    :param keys: the number of run keys under which the task ran: some operations are done once for each
    :param late: how many further tries there were because the machine was overloaded
    """
    done = Counter(_kind(exchange.effect) for exchange in exchanges if exchange.effect)
    found = []
    for effect, times in done.items():
        most = operation.effects.get(effect, 0)
        if operation.repeats:
            most *= keys
        if most or effect != "rollback:1":
            most += others
        if effect in operation.undoes:
            most += late
        if times > most:
            found.append(f"{effect} was carried out {times} times, at most {most} expected")
    return found


def leftovers(operation: Operation, plot: Plot) -> list[str]:
    """Tell which files and versions nothing refers to."""
    found = []
    registered, folders = plot.versions(), plot.folders(f"Models/{plot.name}")
    empty = plot.empty_versions()
    if operation.name == "register" and len(empty) == 1:
        folders.remove(*empty)
    if [str(version) for version in registered] != folders:
        found.append(f"versions {registered} are registered, and the folders are {folders}")
    deployments = [row["name"] for row in plot.rows()]
    if len(deployments) > 1 or any(name != plot.name for name in deployments):
        found.append(f"the deployments are {deployments}")
    journal = plot.folders("Resources/airflow-provider-hsml/journal")
    if any(name != plot.name for name in journal):
        found.append(f"there are journals of {journal}")
    leases = [path for path in plot.files("Resources/airflow-provider-hsml/journal") if "/lease-" in path]
    if leases:
        found.append(f"the leases {leases} are left")
    cut = [path for path, size in plot.files("Resources/airflow-provider-hsml").items() if not size]
    if cut:
        found.append(f"the files {cut} are empty")
    return found


def interrupted(operation: Operation, plot: Plot) -> list[str]:
    """Tell what a try that failed has left broken."""
    if not operation.keeps_serving:
        return []
    row = plot.settle()
    if row is None or row["answering"] not in (1, 2):
        return [f"after an error no version answers: {row and row['status']}"]
    return []


def shown(result: Any) -> str:
    return repr(result)[:200]
