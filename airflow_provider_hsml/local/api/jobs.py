"""Jobs and their executions: define, run, watch and stop them, and read their logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from airflow_provider_hsml.local.errors import Refusal, malformed

from .asking import PROJECT, ApiRoute, Asking, json_answer

if TYPE_CHECKING:
    from collections.abc import Mapping

_JOBS = f"{PROJECT}/jobs"
_ONE = f"{_JOBS}/{{job}}"
_EXECUTIONS = f"{_ONE}/executions"
_EXECUTION = f"{_EXECUTIONS}/{{execution:int}}"
_LINES_OF_POD = 100
_JSON_SINCE = (5, 0)
"""The line whose executions take a JSON body, with environment variables. Before, a body needs no Content-Type."""


def _job(asking: Asking) -> dict[str, Any]:
    return asking.holdings.jobs.get(asking.param("job"))


def _get_jobs(asking: Asking) -> Response:
    return json_answer(_page(asking, asking.holdings.jobs.all()))


def _get_job(asking: Asking) -> Response:
    return json_answer(_job(asking))


def _put_job(asking: Asking) -> Response:
    return json_answer(asking.holdings.jobs.put(asking.param("job"), asking.json_object()), 201)


def _delete_job(asking: Asking) -> Response:
    asking.holdings.jobs.delete(asking.param("job"))
    return Response(status_code=204)


def _configuration(asking: Asking) -> Response:
    return json_answer(asking.holdings.jobs.configuration(asking.param("job")))


def _start(asking: Asking) -> Response:
    job, kind = _job(asking), asking.request.headers.get("content-type", "").partition(";")[0].strip().lower()
    has_json = asking.world.line.number >= _JSON_SINCE
    if kind == "text/plain" or (not kind and not has_json):
        return json_answer(asking.holdings.jobs.executions.start(job, asking.text(), {}), 201)
    if kind != "application/json" or not has_json:
        return Response(status_code=415)
    body = asking.json_object()
    args, env_vars = body.get("args") or "", body.get("envVars") or {}
    if not isinstance(args, str):
        raise malformed("args is not a text.")
    if not isinstance(env_vars, dict) or not all(isinstance(value, str) for value in env_vars.values()):
        raise malformed("envVars is not an object of texts.")
    return json_answer(asking.holdings.jobs.executions.start(job, args, env_vars), 201)


def _get_executions(asking: Asking) -> Response:
    order = asking.query("sort_by") or "id:asc"
    return json_answer(_page(asking, asking.holdings.jobs.executions.find(_job(asking), order)))


def _get_execution(asking: Asking) -> Response:
    return json_answer(asking.holdings.jobs.executions.get(_job(asking), asking.param("execution")))


def _stop(asking: Asking) -> Response:
    # The SDK sends form text, although its header says JSON.
    if asking.body.strip() != b"state=stopped" and asking.json_object().get("state") != "stopped":
        raise Refusal(130010, 'Expected {"state": "stopped"}.')
    return json_answer(asking.holdings.jobs.executions.stop(_job(asking), asking.param("execution")), 202)


def _delete_execution(asking: Asking) -> Response:
    asking.holdings.jobs.executions.delete(_job(asking), asking.param("execution"))
    return Response(status_code=204)


def _log(asking: Asking) -> Response:
    kind = asking.param("kind")
    if kind not in ("out", "err"):
        raise malformed(f"log {kind!r}: expected out or err.")
    return json_answer(asking.holdings.jobs.executions.log(_job(asking), asking.param("execution"), kind))


def _pod_logs(asking: Asking) -> Response:
    lines = max(asking.number("lines", _LINES_OF_POD), 1)
    text = asking.holdings.jobs.executions.live_log(_job(asking), asking.param("execution"), lines)
    about: Mapping[str, Any] = {"podName": f"{asking.param('job')}-{asking.param('execution')}", "containerName": "job"}
    if text is None:
        return json_answer({"status": "LOGS_UNAVAILABLE", "available": False, "message": "No pod runs.", "log": ""})
    return json_answer({"status": "AVAILABLE", "available": True, "message": "", "log": text, **about})


def _page(asking: Asking, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a part of a list: the count is that of the whole list, and an empty list has no items."""
    offset, limit = max(asking.number("offset", 0), 0), asking.number("limit", 0)
    shown = rows[offset:][: limit if limit > 0 else None]
    return {"count": len(rows)} | ({"items": shown} if shown else {})


ROUTES = [
    ApiRoute("GET", _JOBS, ("JOB",), _get_jobs),
    ApiRoute("GET", _ONE, ("JOB",), _get_job),
    ApiRoute("PUT", _ONE, ("JOB",), _put_job),
    ApiRoute("DELETE", _ONE, ("JOB",), _delete_job),
    ApiRoute("GET", f"{_ONE}/configuration", ("JOB",), _configuration),
    ApiRoute("GET", _EXECUTIONS, ("JOB",), _get_executions),
    ApiRoute("POST", _EXECUTIONS, ("JOB",), _start),
    ApiRoute("GET", _EXECUTION, ("JOB",), _get_execution),
    ApiRoute("DELETE", _EXECUTION, ("JOB",), _delete_execution),
    ApiRoute("PUT", f"{_EXECUTION}/status", ("JOB",), _stop),
    ApiRoute("GET", f"{_EXECUTION}/log/{{kind}}", ("JOB",), _log),
    ApiRoute("GET", f"{_EXECUTION}/pod-logs", ("JOB",), _pod_logs, since=(5, 0)),
]
