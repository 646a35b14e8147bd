"""
Whatever a server answers and whatever a user gives: readers raise the provider's own errors, and no others.

``make fuzz`` runs 200,000 cases of each test, CI 5,000. Endpoints, settings and classes of arguments are found by
inspection: a new one takes part by itself.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import hashlib
import inspect
import json
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.api import Answer, Call
from airflow_provider_hsml.hopsworks.domain import (
    arguments,
    comparison,
    criteria,
    gate,
    journal_entry,
    measured_gate,
    model_version,
    plain,
    records,
    script_file,
    spec,
    trigger_event,
    verification,
)
from airflow_provider_hsml.hopsworks.domain.access import EXTRA_KEYS, Access
from airflow_provider_hsml.hopsworks.domain.deployment import Deployment, DeploymentVersion
from airflow_provider_hsml.hopsworks.domain.feature_view import FeatureView
from airflow_provider_hsml.hopsworks.domain.judge import Judge, Probe, ProbeResult
from airflow_provider_hsml.hopsworks.domain.result_set import ResultSet
from airflow_provider_hsml.hopsworks.domain.settings import SETTINGS
from airflow_provider_hsml.hopsworks.domain.side_deployment import Lease
from airflow_provider_hsml.hopsworks.errors import HopsworksError
from airflow_provider_hsml.hopsworks.flow import Sleep
from airflow_provider_hsml.hopsworks.inference import predict
from airflow_provider_hsml.hopsworks.jobs.records import Record, RecordState, open_records
from airflow_provider_hsml.hopsworks.promotion.contenders import Reference
from airflow_provider_hsml.hopsworks.promotion.journal import open_journal
from airflow_provider_hsml.hopsworks.promotion.leases import remove_expired
from airflow_provider_hsml.hopsworks.promotion.plan import Plan
from airflow_provider_hsml.hopsworks.registry import register
from airflow_provider_hsml.hopsworks.registry.version_files import VersionFiles
from tests.support.fuzz import CASES, ODD_JSON, STATUSES, Report, chance_of, content, json_value, mutated
from tests.support.samples import PROJECT, SAMPLES, answer, deployment

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence

LIVE = deployment("serving/running")
MODEL = model_version.ModelVersion("mnist", 2, "mnist_2", "demo", 119, {"accuracy": 0.9}, None)

# ------------------------------------------------------------------------------------------------ answers of endpoints

_NAMED: dict[str, Any] = {
    "project": PROJECT,
    "deployment": LIVE,
    "name": "mnist",
    "version": 2,
    "deployment_id": 14,
    "tag": "approval",
    "target": Path("model.bin"),
    "path": "Resources/file",
    "folder": "Resources",
    "last": 1000,
    "destination": "/Projects/demo/Resources/other",
    "value": "yes",
    "upload": api.Upload("file", b"", {}),
    "url": "http://127.0.0.1:1",
    "description": {},
    "address": api.Address.by_path("demo", "mnist"),
    "body": {"name": "mnist", "instances": [[1.0]]},
    "store": api.FeatureStore(67, "demo_featurestore"),
    "view": FeatureView("mnist", 2),
    "schema_id": "755f8e2b02a7bbbf",
    "read": lambda value: value,
    "size": 1000,
    "job": "train",
    "execution": 100,
    "args": "",
    "env_vars": {},
}
_OF_ONE: dict[str, dict[str, Any]] = {
    "get_at": {"path": "/health"},
    "get_deployment": {"name": "mnistdigits"},
    "get_job": {"name": "train"},
    "get_project": {"name": "demo"},
}
"""Parameters of single endpoints, so that they fit the samples."""


def _calls() -> dict[str, Call[Any]]:
    """Build the call of every endpoint."""
    made = {}
    for name in api.__all__:
        function = getattr(api, name)
        if inspect.isfunction(function) and str(inspect.signature(function).return_annotation).startswith("Call"):
            given = {each: _NAMED[each] for each in _needed(function)}
            made[name] = function(**given | _OF_ONE.get(name, {}))
    return made


def _needed(function: Callable[..., Any]) -> list[str]:
    """Give the names of the parameters that have no default."""
    parameters = inspect.signature(function).parameters.values()
    return [each.name for each in parameters if each.default is inspect.Parameter.empty]


CALLS = _calls()
ANSWERS = {
    str(path.relative_to(SAMPLES / "answers").with_suffix("")): answer(
        str(path.relative_to(SAMPLES / "answers").with_suffix(""))
    )
    for path in sorted((SAMPLES / "answers").rglob("*.json"))
}


def _is_read(call: Call[Any], sample: Answer) -> bool:
    try:
        return bool(call.outcome(sample))
    except HopsworksError:
        return False


VALID = {name: [each for each in ANSWERS.values() if _is_read(call, each)] for name, call in CALLS.items()}


_RETRY_AFTER = ("5", "0", "-1", "9" * 400, "\u0661", "soon", "nan", "Wed, 21 Oct 2099 07:28:00 GMT", "Wed, 99 Oct")


def _answer(chance: random.Random, valid: list[Answer]) -> Answer:
    """Draw an answer: one that the call reads, or any other, with other statuses, headers and content."""
    sample = chance.choice(valid if valid and chance.random() < 0.7 else list(ANSWERS.values()))
    status = sample.status if chance.random() < 0.7 else chance.choice(STATUSES)
    headers = dict(sample.headers)
    if chance.random() < 0.2:
        headers["retry-after"] = chance.choice(_RETRY_AFTER)
    return Answer(status, content(chance, sample.content), headers)


def test_there_is_a_valid_answer_to_most_calls() -> None:
    """Otherwise hardly a case would get past the first key."""
    without = {name for name, found in VALID.items() if not found}

    assert len(CALLS) > 30
    assert not [name for name in without if name.startswith("get_") and name != "get_at"], without


def test_answers() -> None:
    report = Report()
    for number in range(CASES):
        chance = chance_of(number)
        name = chance.choice(list(CALLS))
        sent = _answer(chance, VALID[name])
        result = report.check(number, name, partial(CALLS[name].outcome, sent), sent)
        if result is not None:
            report.check(number, f"the result of {name}", partial(_use, result), sent)
    report.finish()


def _use(result: Any) -> None:
    """Read everything of a result that a reader left for later: its properties, its text, its settings."""
    if isinstance(result, list | tuple):
        for each in result:
            _use(each)
    elif isinstance(result, dict):
        json.dumps(result)
    elif is_dataclass(result):
        str(result)
        kind = type(result)
        for name, member in inspect.getmembers(kind, lambda member: isinstance(member, property)):
            assert member is not None
            getattr(result, name)
        for each in fields(result):
            _use(getattr(result, each.name))
    if isinstance(result, Deployment | DeploymentVersion):
        for setting in SETTINGS.values():
            setting.read(result.raw)


# ----------------------------------------------------------------------------------------------------- files in flows

_SERVED = journal_entry.ServedVersion("demo", "mnist", 2)
_ENTRY = journal_entry.JournalEntry(
    id="0123456789abcdef",
    state=journal_entry.EntryState.PROMOTING,
    run="dag/run/task/-1",
    at=1000.0,
    challenger=_SERVED,
    desired={"model_version": 2},
    before=journal_entry.PreviousState.of(LIVE),
    touches_env_vars=False,
    over=(1, "100"),
    rejected=(journal_entry.Rejection(_SERVED, "it lies", 900.0),),
    asked={"body": {"instances": [[1.0]]}, "champion": {"predictions": [1]}},
)
_FLOWS: dict[str, tuple[Callable[[], Coroutine[Any, Any, Any]], Any]] = {
    "the journal": (lambda: open_journal(PROJECT, "mnist"), _ENTRY.to_json()),
    "the lease of a temporary deployment": (
        lambda: remove_expired(PROJECT, "mnist", lambda: 900.0),
        Lease("0f" * 16, "preflight", "mnistpreflight", "mnist", "dag/run/task/-1@1", 1000.0, 600.0, 7).to_json(),
    ),
    "the record of a job's execution": (
        lambda: open_records(PROJECT, "train", "dag/run/task/-1@1"),
        Record(RecordState.STARTED, "dag/run/task/-1@1", "0123", 1000.0, execution=100, seen=(99,)).to_json(),
    ),
    "expected.json": (
        lambda: predict.recorded_probe(PROJECT, MODEL, VersionFiles()),
        {"instances": [[1.0]], "predictions": [1]},
    ),
    "input_example.json": (lambda: predict.input_example(PROJECT, MODEL), [[1.0], [2.0]]),
    "the claim of a version": (
        lambda: register._RetryNote("Resources/claim.json", "mnist", "hash").find(PROJECT),
        {"model_name": "mnist", "model_version": 2, "files": "hash"},
    ),
}


def _entry(file: str, size: int) -> dict[str, Any]:
    path = f"/Projects/demo/{file}"
    return {"attributes": {"name": file.rpartition("/")[2], "path": path, "dir": False, "size": size, "id": 7}}


def _drive(chance: random.Random, flow: Coroutine[Any, Any, Any], file: bytes) -> Any:
    """Answer the calls of a flow as a project with one file in each folder; one answer in ten differs."""
    task = hashlib.sha256(b"dag/run/task/-1").hexdigest()[:16]
    names = (
        "00000001-b0123abcd.json",
        f"lease-preflight-{'0f' * 16}-000001.json",
        f"00000002-{task}-started-100.json",
        "expected.json",
        "input_example.json",
        "airflow.json",
    )
    try:
        step = flow.send(None)
        for _ in range(100):
            if isinstance(step, Sleep) or not isinstance(step, Call):
                step = flow.send(None)
                continue
            if step.raw:
                sent = Answer(200, file)
            elif ("action", "listing") in step.query:
                rows = [] if ("offset", "0") not in step.query else [_entry(name, len(file)) for name in names]
                sent = Answer(200, json.dumps({"count": len(names), "items": rows}).encode())
            else:
                sent = Answer(200, json.dumps(_entry(names[0], len(file))).encode())
            if not step.raw and chance.random() < 0.1:
                sent = _answer(chance, [sent])
            try:
                outcome = step.outcome(sent)
            except HopsworksError as error:
                step = flow.throw(error)
            else:
                step = flow.send(outcome)
    except StopIteration as end:
        return end.value
    finally:
        flow.close()
    return None


def test_files(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL", "airflow_provider_hsml")
    report = Report()
    for number in range(CASES):
        chance = chance_of(number)
        name = chance.choice(list(_FLOWS))
        begin, valid = _FLOWS[name]
        file = content(chance, json.dumps(valid).encode())
        report.check(number, name, partial(_drive, chance, begin(), file), file)
    report.finish()


# ---------------------------------------------------------------------------------------------------------- arguments


def _deep() -> list[Any]:
    whole: list[Any] = []
    for _ in range(3000):
        whole = [whole]
    return whole


def _circle() -> list[Any]:
    whole: list[Any] = []
    whole.append(whole)
    return whole


_ODD_PYTHON: tuple[Any, ...] = (
    *ODD_JSON,
    *(b"", b"bytes", bytearray(b"x"), (), (1, 2), {1}, frozenset(), {1: 2}, {None: 1}, {("a",): 1}, range(3), 10**5000),
    *(object(), int, len, Ellipsis, NotImplemented, 1j, decimal.Decimal("NaN"), decimal.Decimal("1.5"), ValueError()),
    *(dt.datetime(2026, 1, 1), dt.date(2026, 1, 1), dt.timedelta(days=1), iter([1]), {"a": b""}),  # noqa: DTZ001
    *(_deep(), _circle(), {"a": _circle()}, [float("nan")], {"a": float("inf")}, ["\ud800"], {"\ud800": 1}),
)


def python_value(chance: random.Random, more: Sequence[Any]) -> Any:
    """Draw a value that a user, a template or an XCom may give."""
    if chance.random() < 0.5:
        return chance.choice(more if chance.random() < 0.2 else _ODD_PYTHON)
    value = json_value(chance)
    try:
        return json.dumps(value) if chance.random() < 0.2 else value
    except ValueError:
        return value


def _numpy_values() -> Iterator[Any]:
    numpy = pytest.importorskip("numpy")
    yield from (numpy.float64("nan"), numpy.int64(3), numpy.float32(0.5), numpy.bool_(True), numpy.zeros(3))
    yield from (numpy.zeros((2, 2)), numpy.array(["a"]), numpy.array([None]), numpy.datetime64("2026-01-01"))


_COMPONENT: dict[str, Any] = {
    "script_file": "/Projects/demo/Resources/script.py",
    "environment": "pandas-inference-pipeline",
    "env_vars": {"TOKEN": "secret"},
    "resources": {"requests": {"cores": 1, "memory": 512, "gpus": 0}, "limits": {"cores": 2}},
    "scaling": {"min_instances": 1, "max_instances": 2, "metric": "RPS", "target": 10, "stable_window_seconds": 60},
}
_SPEC: dict[str, Any] = {
    **_COMPONENT,
    "config_file": "/Projects/demo/Resources/config.yaml",
    "transformer": _COMPONENT,
    "inference_logger": {"mode": "ALL", "kafka_topic": "CREATE", "partitions": 1, "replicas": 1},
    "inference_batcher": {"enabled": True, "max_batch_size": 8, "max_latency": 100},
    "api_protocol": "REST",
    "serving_tool": "KSERVE",
    "description": "text",
    "tags": {"approval": "yes"},
    "extra": {"someKey": 1},
}
_GATE: dict[str, Any] = {
    "min_improvement": 0.1,
    "relative": True,
    "floor": 0.5,
    "guards": {"recall": {"direction": "max", "max_loss": 0.01}},
    "missing": "fail",
    "confidence": 0.95,
    "require": "better",
    "worst_slice": 0.1,
    "max_age": 3600,
}
_METRIC: dict[str, Any] = {
    "direction": "max",
    "champion": 0.8,
    "challenger": 0.9,
    "difference": 0.1,
    "share_better": 0.9,
    "smallest_detectable": 0.05,
    "degenerate": 0,
    "lower": [0.01, 0.02],
    "upper": [0.2, 0.15],
    "slices_tested": 1,
    "slices": [
        {
            "column": "country",
            "value": "AT",
            "rows": 100,
            "champion": 0.8,
            "challenger": 0.7,
            "difference": -0.1,
            "upper": [-0.05],
        }
    ],
}
_COMPARISON: dict[str, Any] = {
    "format": comparison.FORMAT,
    "at": 1000.0,
    "champion": {"project": "demo", "name": "mnist", "version": 1},
    "challenger": {"project": "demo", "name": "mnist", "version": 2},
    "rows": dict.fromkeys(comparison.RowCounts.__dataclass_fields__, 1000),
    "resamples": 2000,
    "seed": 0,
    "challengers": 1,
    "groups": None,
    "rarer_class": 100,
    "levels": [0.01, 0.05],
    "slice_levels": [0.05],
    "metrics": {"accuracy": _METRIC, "recall": _METRIC},
    "warnings": ["text"],
    "report": "s3://results/report.html",
    "deployment_name": "mnist",
}
_GATE["measured"] = _COMPARISON
_VERIFICATION: dict[str, Any] = {
    "instances": [[1.0]],
    "expect": "finite",
    "tolerance": 0.1,
    "version_path": "metadata.version",
    "max_latency_ms": 100,
    "bake_seconds": 60,
    "max_error_rate": 0.01,
}
_NEW_MODEL: dict[str, Any] = {
    "model_name": "mnist",
    "model_path": __file__,
    "framework": "SKLEARN",
    "metrics": {"accuracy": 0.9},
    "version": 2,
    "description": "text",
    "input_example": [[1.0]],
    "model_schema": {},
    "environment": "env",
    "expected": {"instances": [[1.0]], "predictions": [1]},
    "tags": {"approval": "yes"},
    "feature_view": "view",
    "feature_view_version": 1,
    "training_dataset_version": 1,
}
_CRITERIA = {
    "model_version": 2,
    "newer_than": 1,
    "metric": "accuracy",
    "at_least": 0.5,
    "at_most": 1,
    "tag": {"a": "b"},
}
_CONNECTION = {
    "host": "https://hopsworks.example.com",
    "port": 443,
    "password": "key.secret",
    "project": None,
    "schema": "https",
    "extra": {
        **dict.fromkeys(EXTRA_KEYS, "60"),
        "project": "demo",
        "ca_bundle": __file__,
        "verify": "true",
        "inference_route": "istio",
        "ingress_url": "https://ingress.example.com:8443",
        "allow_http": False,
    },
}
_ENVIRONMENT = {
    "HOPSWORKS_HOST": "hopsworks.example.com",
    "HOPSWORKS_PORT": "443",
    "HOPSWORKS_PROJECT": "demo",
    "HOPSWORKS_API_KEY": "key.secret",
    "SECRETS_DIR": "/nonexistent",
    "REST_ENDPOINT": "https://example.com:8181",
}
_PLAN: dict[str, Any] = {**dict.fromkeys((each.name for each in fields(Plan)), 2), "changes": {}}
_EVENTS = [
    trigger_event.success({"name": "mnist"}),
    trigger_event.start_needed({"id": 7}),
    trigger_event.failure(HopsworksError("it broke"), {"id": 7}),
]


def _simple_readers() -> dict[str, tuple[Callable[[Any], Any], Any]]:
    """Find the functions of ``arguments`` and ``plain`` that read one value: ``read(what, value)``."""
    more = {"what": "x", "allowed": ("a", "b"), "example": '["a"]'}
    found: dict[str, tuple[Callable[[Any], Any], Any]] = {}
    for name, function in [
        *inspect.getmembers(plain, inspect.isfunction),
        *inspect.getmembers(arguments, inspect.isfunction),
    ]:
        needed = _needed(function)
        if not name.startswith("_") and name != "refuse" and {"what", "value"} <= set(needed):
            given = {each: more[each] for each in needed if each != "value"}
            found[f"arguments.{name}"] = (partial(_by_value, function, given), "1")
    return found


def _by_value(function: Callable[..., Any], given: dict[str, Any], value: Any) -> Any:
    return function(value=value, **given)


def _classes(of: type[arguments.Arguments]) -> Iterator[type[arguments.Arguments]]:
    for each in of.__subclasses__():
        yield each
        yield from _classes(each)


_DERIVED = ("setting_values", "rules", "checks", "given")
"""What is made of the fields of a class of arguments, and checked then."""


def _read_class(kind: type[arguments.Arguments], value: Any) -> None:
    read = kind.read(value)
    for name in _DERIVED:
        if hasattr(read, name):
            getattr(read, name)()


def _decide_by_comparison(value: Any) -> None:
    rules = gate.Gate.read({**_GATE, "min_improvement": 0, "measured": value}).rules()
    champion = model_version.ModelVersion("mnist", 1, "mnist_1", "demo", 119, {}, None)
    by = gate.Metric("accuracy", model_version.Direction.MAX)
    decision = measured_gate.decide_measured([champion, MODEL], champion, by, rules, now=1000.0)
    json.dumps(decision.measured, allow_nan=False)


_RESULTS = {
    "header": {"model_name": "mnist", "model_version": 2, "rows": 2, "latencies": [0.1], "trained_until": "2026-11-01"},
    "lines": [{"row": {"x": 1}, "prediction": 1}, {"row": {"x": 2}, "refused": "no"}],
}


def _read_results(value: Any) -> None:
    given = _RESULTS | _keywords(value, _RESULTS)
    lines = given["lines"] if isinstance(given["lines"], list) else [given["lines"]]
    read = ResultSet.read("champion_results", given["header"], lines)
    json.dumps(read.header())
    list(read.lines())


def _read_rows(value: Any) -> None:
    columns = records.Columns("y")
    found = records.read_records("input", value, columns)
    for example in ([[1.0]], [{"x": 1}], [1]):
        with contextlib.suppress(HopsworksError):
            records.instances("input", found, columns, records.Shape.of_example({"instances": example}))


def _judge(value: Any) -> None:
    """Judge an answer, also next to itself as the previous version's."""
    body = {"instances": [[1.0]]}
    for given in ({}, {"version_path": "a"}, {"expect": "finite"}, {"expect": "same_length", "version_path": "a.b"}):
        for recorded in ([0.5], [1], value if isinstance(value, list) else [value]):
            judge = Judge(verification.Verification(**given).checks(), Probe(body, recorded), version=2)
            for champion in (None, {"predictions": [0.5]}, value):
                judge.record_champion(1, champion)
                for answer_ in (value, {"predictions": value}, {"predictions": [value], "a": value}):
                    assert isinstance(judge.judge(answer_, 0.1), ProbeResult)


def _readers() -> dict[str, tuple[Callable[[Any], Any], Any]]:
    """Return each reader of arguments, with a valid value."""
    valid = {
        spec.DeploymentSpec: _SPEC,
        spec.TransformerSpec: _COMPONENT,
        spec.Resources: _COMPONENT["resources"],
        spec.Scaling: _COMPONENT["scaling"],
        spec.InferenceLogger: _SPEC["inference_logger"],
        spec.Batcher: _SPEC["inference_batcher"],
        gate.Gate: _GATE,
        verification.Verification: _VERIFICATION,
    }
    classes: dict[str, tuple[Callable[[Any], Any], Any]] = {
        kind.__name__: (partial(_read_class, kind), valid.get(kind, {})) for kind in _classes(arguments.Arguments)
    }
    return {
        **_simple_readers(),
        **classes,
        "Criteria": (lambda value: criteria.Criteria.read(**_keywords(value, _CRITERIA)), _CRITERIA),
        "NewModel": (lambda value: register.NewModel.read(**(_NEW_MODEL | _keywords(value, _NEW_MODEL))), _NEW_MODEL),
        "Access of a connection": (
            lambda value: Access.from_connection(**_connection(_CONNECTION | _keywords(value, _CONNECTION))),
            _CONNECTION,
        ),
        "Access of the environment": (
            lambda value: Access.from_environment(_texts(_keywords(value, _ENVIRONMENT))),
            _ENVIRONMENT,
        ),
        "a request's body": (
            lambda value: verification.request_body("x", **_keywords(value, ("instances", "inputs", "payload"))),
            {"instances": [[1.0]]},
        ),
        "script_file": (lambda value: script_file.read("spec.script_file", value), "/Projects/demo/Resources/a.py"),
        "a health path": (verification.check_path, "/health"),
        "an input example": (predict.example_body, [[1.0]]),
        "a comparison": (_decide_by_comparison, _COMPARISON),
        "rows to compare on": (_read_rows, [{"x": 1, "y": 0}, {"x": 2, "y": 1}]),
        "a result set": (_read_results, _RESULTS),
        "a challenger": (partial(Reference.read, "challenger"), {"model_name": "mnist", "model_version": 2}),
        "an answer to a probe": (_judge, {"predictions": [0.5], "a": {"b": 2}}),
        "a plan": (Plan.read, {"plan": _PLAN}),
        "an event": (trigger_event.read, _EVENTS[0]),
        "the name of a model": (lambda value: api.get_model(PROJECT, value, 1), "mnist"),
        "the name of a job": (lambda value: api.get_job(PROJECT, _text(value)), "train"),
        "the name of a deployment": (lambda value: api.get_deployment(PROJECT, value), "mnist"),
        "a path in the project": (lambda value: api.download(PROJECT, _text(value)), "Resources/file"),
        "the name of a project": (lambda value: api.get_project(_text(value)), "demo"),
    }


READERS = _readers()
_FROM_JSON = ("an event", "an answer to a probe", "Access of a connection", "Access of the environment")
"""Readers of values that Airflow has parsed from text."""


def _keywords(value: Any, known: Iterable[str]) -> dict[str, Any]:
    """Give the keyword arguments in a drawn value: Python itself refuses others."""
    return {key: value[key] for key in known if key in value} if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "text"


def _connection(given: dict[str, Any]) -> dict[str, Any]:
    """Keep the types that Airflow's connection guarantees; the extra may be any JSON object."""
    texts = {
        key: given[key] if isinstance(given[key], str) else None for key in ("host", "password", "project", "schema")
    }
    port = given["port"] if type(given["port"]) is int else None
    extra = given["extra"] if isinstance(given["extra"], dict) else {}
    return {**texts, "port": port, "extra": extra}


def _texts(given: dict[str, Any]) -> dict[str, str]:
    return {key: value for key, value in given.items() if isinstance(value, str)}


def test_valid_arguments_are_read() -> None:
    """Otherwise hardly a case would get past the first check."""
    for name, (read, valid) in READERS.items():
        if not name.startswith("arguments."):
            read(valid)


def test_arguments() -> None:
    report = Report()
    numpy = list(_numpy_values())
    for number in range(CASES):
        chance = chance_of(number)
        name = chance.choice(list(READERS))
        read, valid = READERS[name]
        if name in _FROM_JSON:
            value = mutated(chance, chance.choice(_EVENTS) if name == "an event" else valid)
        else:
            value = mutated(chance, valid, partial(python_value, more=numpy))
        report.check(number, name, partial(read, value), value)
    report.finish()
