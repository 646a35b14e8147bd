"""The content of the console's pages, read from the world without the locks, delays or side effects of a client."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.local.errors import Refusal

from . import promotions
from .chart import SERVED, Chart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_hsml.local.world.holdings import Holdings
    from airflow_provider_hsml.local.world.world import World

    from .promotions import Mark, Promotion

_LOG_LINES = 200
_ONE_STOP = 2.0
"""Seconds."""
_MOVING = ("Creating", "Starting", "Updating", "Stopping")


class NoPageError(Exception):
    """
    The page does not exist, or is refused.

    :param message: for people, with the existing alternatives
    :param status: the HTTP status of the response
    """

    def __init__(self, message: str, status: int = 404) -> None:
        self.status = status
        super().__init__(message)


_KINDS = (
    dict.fromkeys(("Running", "Idle", "verified"), "up")
    | dict.fromkeys(("Failed", "rolled back", "rejected", "unverified"), "failed")
    | dict.fromkeys((*_MOVING, promotions.IN_PROGRESS, promotions.ROLLING_BACK), "moving")
)


def projects(world: World) -> dict[str, Any]:
    """Return the content of the list of projects."""
    return {
        "projects": [
            {"id": each.project.id, "name": each.project.name, "deployments": len(each.deployments.all_shown())}
            for each in _own(world)
        ],
        "version": world.line.release,
    }


def project(world: World, project: int) -> dict[str, Any]:
    """
    Return the content of a project's page: its deployments and models.

    :param project: the project's id
    """
    holdings = _holdings(world, project)
    versions = _models(holdings)
    newest = {row["name"]: row for row in versions}
    by_path = _by_path(world, holdings)
    deployments = [
        _without_keys(world, row) | {"model": by_path.get((row.get("modelPath"), row.get("modelVersion")))}
        for row in holdings.deployments.all_shown()
    ]
    return _of(holdings) | {
        "is_moving": any(map(_is_moving, deployments)),
        "deployments": deployments,
        "models": [
            row | {"count": sum(other["name"] == name for other in versions)} for name, row in sorted(newest.items())
        ],
    }


def deployment(world: World, project: int, deployment: int) -> dict[str, Any]:
    """
    Return the content of a deployment's page.

    :param project: the project's id
    :param deployment: the deployment's id
    """
    holdings = _holdings(world, project)
    rows = {row["id"]: row for row in holdings.deployments.all_shown()}
    if deployment not in rows:
        known = ", ".join(f"{row['name']} ({row['id']})" for row in rows.values()) or "none"
        raise NoPageError(f"There is no deployment {deployment} in {holdings.project.name}; there are: {known}.")
    row = _without_keys(world, rows[deployment])
    model = _by_path(world, holdings).get((row.get("modelPath"), row.get("modelVersion")))
    row["model"] = model
    logs: Sequence[tuple[str, str, str]] = holdings.deployments.tails(deployment, _LOG_LINES)
    failed_at, logs = (None, logs) if logs else _last_failure(holdings, row["name"])
    history = _history(world, holdings, row["name"])
    return _of(holdings) | {
        "is_moving": _is_moving(row) or any(each.is_in_progress for each in history),
        "row": row,
        "versions": holdings.deployments.versions(deployment),
        "promotions": history,
        "marks": promotions.marks(history),
        "owners": {each.name: each.id for each in world.accounts.projects},
        "logs": [(component, instance, world.accounts.hide_keys(text)) for component, instance, text in logs],
        "failed_at": failed_at,
        "settings": _settings(row),
        "proxy_url": f"/hopsworks-api/api{row['hopsworksInferencePath']}:predict",
        "ingress_url": f"http://127.0.0.1:{world.ingress_port}{row['modelServerInferencePath']}:predict",
        "example": None if model is None else _example(_holdings(world, model["modelRegistryId"]), model),
    }


def model(world: World, project: int, name: str) -> dict[str, Any]:
    """
    Return the content of a model's page: its versions, and charts of its metrics.

    :param project: the project's id
    :param name: the model's name
    """
    holdings = _holdings(world, project)
    versions = [row for row in _models(holdings) if row["name"] == name]
    if not versions:
        known = ", ".join(sorted({row["name"] for row in _models(holdings)})) or "none"
        raise NoPageError(f"There is no model {name} in {holdings.project.name}; there are: {known}.")
    serving = _serving(holdings, name)
    answering = {row["answering"] for rows in serving.values() for row in rows}
    marked = _marks(world, holdings, name)
    words = {version: found[-1].result for version, found in marked.items()} | dict.fromkeys(answering, SERVED)
    metrics = sorted({metric for row in versions for metric in row.get("metrics") or {}})
    charts = [
        Chart.of(metric, {row["version"]: (row.get("metrics") or {}).get(metric) for row in versions}, words)
        for metric in metrics
    ]
    return _of(holdings) | {
        "is_moving": any(_is_moving(row) for rows in serving.values() for row in rows),
        "name": name,
        "marks": marked,
        "versions": versions[::-1],
        "metrics": metrics,
        "serving": serving,
        "charts": [chart for chart in charts if chart is not None],
    }


def version(world: World, project: int, name: str, version: int) -> dict[str, Any]:
    """
    Return the content of the page of a model version.

    :param project: the project's id
    :param name: the model's name
    """
    holdings = _holdings(world, project)
    try:
        row = holdings.registry.get(f"{name}_{version}")
    except Refusal:
        raise NoPageError(f"There is no version {version} of model {name} in {holdings.project.name}.") from None
    folder = f"Models/{name}/{version}"
    serving = _serving(holdings, name).get(version, [])
    return _of(holdings) | {
        "is_moving": any(map(_is_moving, serving)),
        "row": row,
        "serving": serving,
        "marks": _marks(world, holdings, name).get(version, []),
        "files": _files(holdings, folder),
        "example": _text(holdings, f"{folder}/input_example.json"),
        "schema": _text(holdings, f"{folder}/model_schema.json"),
    }


def when(value: Any) -> str:
    """
    Format a time for people.

    :param value: milliseconds since 1970, or text in ISO format
    """
    if value is None:
        return "never"
    at = datetime.fromtimestamp(value / 1000, UTC) if isinstance(value, int) else datetime.fromisoformat(value)
    return at.strftime("%Y-%m-%d %H:%M:%S UTC")


def kind(status: str) -> str:
    """Return the kind of a deployment's status or a promotion's result, which sets its colour; ``down`` for others."""
    return _KINDS.get(status, "down")


def indented(content: str) -> str:
    """Lay JSON out for people, a row of numbers in one line; return other text unchanged."""
    try:
        return _laid_out(json.loads(content), "")
    except (ValueError, RecursionError):
        return content


def _laid_out(value: Any, indent: str) -> str:
    children = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    if not any(isinstance(child, dict | list) for child in children):
        return json.dumps(value, ensure_ascii=False)
    deeper = f"{indent}  "
    names = [f"{json.dumps(name, ensure_ascii=False)}: " for name in value] if isinstance(value, dict) else []
    lines = [
        f"{deeper}{name}{_laid_out(child, deeper)}"
        for name, child in zip(names or [""] * len(children), children, strict=True)
    ]
    begin, end = "{}" if isinstance(value, dict) else "[]"
    return "\n".join([begin, ",\n".join(lines), f"{indent}{end}"])


def _own(world: World) -> list[Holdings]:
    """Return the projects in which the user has a role."""
    return [world.project(project.id) for project in world.accounts.projects if not project.is_foreign]


def _holdings(world: World, project: int) -> Holdings:
    try:
        return world.project(project)
    except Refusal as refusal:
        raise NoPageError(refusal.text) from None


def _without_keys(world: World, row: dict[str, Any]) -> dict[str, Any]:
    """Return a deployment without the API keys that a failure message may contain."""
    return row | {"condition": row["condition"] | {"reason": world.accounts.hide_keys(row["condition"]["reason"])}}


def _is_moving(row: dict[str, Any]) -> bool:
    """Whether a deployment's page will soon be another one."""
    is_handing_over = row["status"] == "Running" and row["answering"] not in (None, row.get("modelVersion"))
    return row["status"] in _MOVING or is_handing_over


def _last_failure(holdings: Holdings, name: str) -> tuple[int | None, list[tuple[str, str, str]]]:
    """
    Return when a deployment was last stopped after a failure, and the logs of then: (component, instance, lines).

    :return: milliseconds since 1970, and the logs; None and none where there was no such failure
    """
    folder = holdings.files.folder(f"Logs/Serving/{name}")
    written = {file: file.stat().st_mtime for file in folder.glob("*.log")} if folder else {}
    last = max(written.values(), default=0.0)
    # A stop writes the logs of all components at once.
    files = sorted(file for file, at in written.items() if last - at < _ONE_STOP)
    texts = ["\n".join(file.read_text("utf-8", "replace").splitlines()[-_LOG_LINES:]) for file in files]
    components = [file.stem.removeprefix(f"{name}-").partition("-")[0] for file in files]
    found = [(component, file.stem, text) for component, file, text in zip(components, files, texts, strict=True)]
    return (int(last * 1000) if found else None), found


def _history(world: World, holdings: Holdings, name: str) -> list[Promotion]:
    """Return a deployment's promotions, without the API keys that a reason may contain."""
    found = promotions.promotions(holdings.files, name, time.time())
    return [replace(each, reason=world.accounts.hide_keys(each.reason)) for each in found]


def _marks(world: World, holdings: Holdings, name: str) -> dict[int, list[Mark]]:
    """Return which versions of a model were rolled back or rejected, by any deployment of the user's projects."""
    by_version: dict[int, list[Mark]] = {}
    for each in _own(world):
        for deployment in promotions.deployments(each.files):
            for served, mark in promotions.marks(_history(world, each, deployment)).items():
                if served.version is not None and (served.project, served.name) == (holdings.project.name, name):
                    by_version.setdefault(served.version, []).append(mark)
    return by_version


def _by_path(world: World, holdings: Holdings) -> dict[Any, dict[str, Any]]:
    """Return all readable model versions by (model path, version): a shared registry may hold a model of that name."""
    own = holdings.project
    registries = [world.registry(own.id, owner.id) for owner in world.accounts.shared_with(own)]
    rows = [row for registry in registries for row in registry.find().get("items", [])]
    return {(f"/Projects/{row['projectName']}/Models/{row['name']}", row["version"]): row for row in rows}


def _of(holdings: Holdings) -> dict[str, Any]:
    return {"project": {"id": holdings.project.id, "name": holdings.project.name}}


def _models(holdings: Holdings) -> list[dict[str, Any]]:
    """Return all versions of all models, the newest of each last."""
    rows: list[dict[str, Any]] = holdings.registry.find().get("items", [])
    return sorted(rows, key=lambda row: (row["name"], row["version"]))


def _serving(holdings: Holdings, name: str) -> dict[int, list[dict[str, Any]]]:
    """Return the deployments of each version of a model that has any."""
    by_version: dict[int, list[dict[str, Any]]] = {}
    path = f"/Projects/{holdings.project.name}/Models/{name}"
    for row in holdings.deployments.all_shown():
        if row.get("modelPath") == path:
            by_version.setdefault(row["modelVersion"], []).append(row)
    return by_version


def _settings(row: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the configuration; environment variables without values, which may be secrets."""
    shown: list[tuple[str, str]] = []
    for key, value in row.items():
        if key in _ELSEWHERE or value in (None, [], {}):
            continue
        if key.endswith("EnvVars"):
            shown.append((key, ", ".join(f"{text.partition('=')[0]}=…" for text in value)))
        else:
            shown.append((key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    return sorted(shown)


_ELSEWHERE = frozenset(
    {"id", "name", "status", "condition", "version", "revision", "created", "creator", "deployed", "modelName"}
    | {"modelVersion", "availableInstances", "availableTransformerInstances", "missingMandatoryTags"}
    | {"hopsworksInferencePath", "modelServerInferencePath", "answering", "model"},
)


def _example(holdings: Holdings, row: dict[str, Any]) -> str:
    """Return the body of a prediction request with the registered input example."""
    text = _text(holdings, f"Models/{row['name']}/{row['version']}/input_example.json")
    if text is None:
        return '{"instances": [[]]}'
    try:
        example = json.loads(text)
    except ValueError:  # The registered example is not JSON.
        return text
    if isinstance(example, dict):
        return _laid_out(example if {"instances", "inputs"} & set(example) else {"instances": [example]}, "")
    is_rows = isinstance(example, list) and any(isinstance(row, list | dict) for row in example)
    return _laid_out({"instances": example if is_rows else [example]}, "")


def _text(holdings: Holdings, path: str) -> str | None:
    place = holdings.files.file(path)
    return None if place is None else indented(place.read_text("utf-8", "replace"))


def _files(holdings: Holdings, folder: str) -> list[tuple[str, int]]:
    """Return (path, bytes) of all files of a version."""
    place = holdings.files.here(folder)
    paths = sorted(path for path in place.rglob("*") if path.is_file())
    return [(path.relative_to(place).as_posix(), path.stat().st_size) for path in paths]
