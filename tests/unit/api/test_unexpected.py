"""Absent means that Hopsworks said so: whatever else a call gets is an unexpected response, and is retried."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.api import Answer, Call, MissingRoute, Upload
from airflow_provider_hsml.hopsworks.api.call import readable
from airflow_provider_hsml.hopsworks.errors import InvalidInputError, RequestRefusedError, UnexpectedResponseError
from airflow_provider_hsml.hopsworks.untrusted_text import hide
from tests.support.fake import PROJECT, refusal, row
from tests.support.samples import deployment

LIVE = deployment("serving/running")
MODEL = {"id": "digits_1", "name": "digits", "version": 1}
HTML = b"<!DOCTYPE html><html><body>Log in</body></html>"

READS: dict[str, Call[Any]] = {
    "project": api.get_project("demo"),
    "deployments": api.get_deployments(PROJECT),
    "deployment": api.get_deployment(PROJECT, "digits"),
    "deployment by id": api.get_deployment_by_id(PROJECT, 14),
    "logs": api.get_logs(PROJECT, LIVE),
    "versions": api.get_versions(PROJECT, LIVE),
    "newest version": api.get_newest_version(PROJECT, LIVE),
    "tags": api.get_deployment_tags(PROJECT, LIVE),
    "model": api.get_model(PROJECT, "digits", 1),
    "models": api.get_models(PROJECT, "digits"),
    "model tags": api.get_model_tags(PROJECT, "digits", 1),
    "registries": api.get_registries(PROJECT),
    "exists": api.path_exists(PROJECT, "Models"),
    "entry": api.get_entry(PROJECT, "Models"),
    "folder": api.list_folder(PROJECT, "Models"),
    "file": api.read_json(PROJECT, "Models/a.json", lambda data: data["a"], size=None),
    "variable": api.get_variable("a"),
    "server version": api.get_server_version(),
    "endpoints": api.get_endpoints(PROJECT),
    "job": api.get_job(PROJECT, "train"),
    "jobs": api.get_job_names(PROJECT),
    "execution": api.get_execution(PROJECT, "train", 100),
    "executions": api.get_executions(PROJECT, "train"),
}
CHANGES: dict[str, Call[Any]] = {
    "make folder": api.make_folder(PROJECT, "Models"),
    "put deployment": api.put_deployment(PROJECT, row()),
    "put model": api.put_model(PROJECT, "digits", 1, {}),
    "start execution": api.start_execution(PROJECT, "train", "", {}),
}
WITHOUT_CONTENT: dict[str, Call[Any]] = {
    "start": api.start_deployment(PROJECT, LIVE),
    "stop": api.stop_deployment(PROJECT, LIVE),
    "delete": api.delete_deployment(PROJECT, LIVE),
    "rollback": api.rollback_deployment(PROJECT, LIVE, 1),
    "put tag": api.put_deployment_tag(PROJECT, LIVE, "a", 1),
    "delete tag": api.delete_deployment_tag(PROJECT, LIVE, "a"),
    "put model tag": api.put_model_tag(PROJECT, "digits", 1, "a", 1),
    "delete model": api.delete_model(PROJECT, "digits", 1),
    "upload": api.upload_part(PROJECT, "Models", Upload("a", b"", {})),
    "copy": api.copy_path(PROJECT, "a", "/Projects/demo/b"),
    "delete path": api.delete_path(PROJECT, "a"),
    "stop execution": api.stop_execution(PROJECT, "train", 100),
}
NEVER = {
    "empty": Answer(200, b""),
    "blank": Answer(200, b" \n"),
    "no content": Answer(204, b""),
    "null": Answer(200, b"null"),
    "html": Answer(200, HTML),
    "number": Answer(200, b"5"),
    "text": Answer(200, b'"fine"'),
    "true": Answer(200, b"true"),
    "nested": Answer(200, b"[" * 200_000),
    "cut off": Answer(200, b'{"id": 14, "na'),
    "no utf-8": Answer(200, b'{"id": "\xff"}'),
    "many digits": Answer(200, b"1" * 5000),
    "other list": Answer(200, b"[[1]]"),
    "proxy 404 html": Answer(404, HTML),
    "nested 404": Answer(404, b"[" * 200_000 + b"<"),
    "infinite code": Answer(500, b'{"errorCode": Infinity}'),
    "text code": Answer(500, b'{"errorCode": "240000"}'),
    "true code": Answer(500, b'{"errorCode": true}'),
    "list": Answer(502, b"[]"),
}


@pytest.mark.parametrize("what", NEVER)
@pytest.mark.parametrize("name", [*READS, *CHANGES])
def test_is_never_a_result(name: str, what: str) -> None:
    call, answer = (READS | CHANGES)[name], NEVER[what]
    if call.optional and what == "nested 404":
        assert call.outcome(answer) is MissingRoute.LIKELY
        return
    with pytest.raises(UnexpectedResponseError) as caught:
        call.outcome(answer)
    assert caught.value.transient


@pytest.mark.parametrize("answer", [Answer(200, b""), Answer(204, b""), Answer(200, b"null"), Answer(200, b'{"a": 1}')])
@pytest.mark.parametrize("name", WITHOUT_CONTENT)
def test_what_has_no_content_by_contract(name: str, answer: Answer) -> None:
    assert WITHOUT_CONTENT[name].outcome(answer) is None


@pytest.mark.parametrize("name", WITHOUT_CONTENT)
def test_a_login_page_in_reply_to_a_change(name: str) -> None:
    with pytest.raises(UnexpectedResponseError) as caught:
        WITHOUT_CONTENT[name].outcome(Answer(200, HTML))
    assert caught.value.outcome_unknown


@pytest.mark.parametrize(
    ("name", "status", "code", "absence"),
    [
        ("deployment", 404, 240000, None),
        ("deployment by id", 404, 240000, None),
        ("logs", 404, 240027, None),
        ("tags", 404, 370002, {}),
        ("model", 404, 360000, None),
        ("model tags", 404, 370002, {}),
        ("exists", 400, 110018, False),
        ("entry", 404, 110008, None),
        ("folder", 400, 110011, None),
        ("file", 400, 110018, None),
        ("variable", 404, 100050, None),
    ],
)
def test_absent_by_hopsworks_own_code(name: str, status: int, code: int, absence: Any) -> None:
    assert READS[name].outcome(refusal(status, code)) == absence
    for other in (240011, 120004, 150004):
        try:
            found = READS[name].outcome(refusal(status, other))
        except RequestRefusedError:
            continue
        assert found is MissingRoute.CERTAIN
        assert (READS[name].optional, other, status) == (READS[name].optional or "none", 120004, 404)
    with pytest.raises(RequestRefusedError):
        READS[name].outcome(refusal(503, code))


def test_a_folder_is_taken_only_by_hopsworks_own_code() -> None:
    assert CHANGES["make folder"].outcome(refusal(400, 110047)) is False
    assert CHANGES["make folder"].outcome(Answer(201, b'{"attributes": {"path": "/Projects/demo/Models"}}')) is True


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("project", {"projectId": 1, "projectName": "other"}),
        ("deployment", row(name="other")),
        ("deployment by id", row(id=15)),
        ("put deployment", row(name="other")),
        ("put deployment", row(id=15)),
        ("model", MODEL | {"name": "other"}),
        ("model", MODEL | {"version": 2}),
        ("models", {"count": 1, "items": [MODEL | {"name": "other"}]}),
        ("put model", MODEL | {"version": 2}),
    ],
)
def test_about_another_thing(name: str, body: Any) -> None:
    call = (READS | CHANGES)[name]
    answer = Answer(200, json.dumps(body).encode())
    if name == "models":
        assert call.outcome(answer).items == []
        return
    with pytest.raises(UnexpectedResponseError):
        call.outcome(answer)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("project", {"projectId": 1, "projectName": "DEMO"}),
        ("deployment", row(name="Digits")),
        ("model", MODEL | {"name": "DIGITS"}),
        ("models", {"count": 1, "items": [MODEL | {"name": "DIGITS"}]}),
    ],
)
def test_a_name_in_another_case(name: str, body: Any) -> None:
    real = str(body.get("projectName") or body.get("name") or "DIGITS")
    with pytest.raises(InvalidInputError, match=real):
        READS[name].outcome(Answer(200, json.dumps(body).encode()))


def test_a_derived_name_in_another_case() -> None:
    found = api.get_deployment(PROJECT, "digits", any_case=True).outcome(
        Answer(200, json.dumps(row(name="Digits")).encode())
    )

    assert found is not None
    assert found.name == "Digits"


ODD_DEPLOYMENTS: list[dict[str, Any]] = [
    {"id": "14"},
    {"id": True},
    {"id": None},
    {"id": 14.0},
    {"name": 5},
    {"name": ""},
    {"name": "a\ud800"},
    {"modelVersion": "1"},
    {"modelVersion": 1.5},
    {"modelName": ["digits"]},
    {"modelPath": {}},
    {"version": "1"},
    {"revision": {}},
    {"status": 5},
    {"condition": "fine"},
    {"condition": {"type": "STARTED", "status": "yes"}},
    {"condition": {"type": 5}},
    {"availableInstances": "one"},
    {"availableInstances": float("inf")},
    {"requestedInstances": [1]},
    {"predictorScalingConfig": [1]},
    {"predictorScalingConfig": {"minInstances": "1"}},
    {"predictorResources": {"requests": {"cores": "many"}}},
    {"predictorEnvVars": {"A": "1"}},
    {"predictorEnvVars": [5]},
    {"predictorEnvVars": [None]},
    {"environmentDTO": "pandas"},
    {"something": float("nan")},
    {"description": "half a pair: \ud83d"},
]


@pytest.mark.parametrize("odd", ODD_DEPLOYMENTS, ids=str)
def test_an_odd_deployment(odd: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """It cannot be read by those who ask for it, and does not hide the others from a list."""
    content = json.dumps(row() | odd).encode()
    for call in (READS["deployment"], READS["deployment by id"]):
        with pytest.raises(UnexpectedResponseError) as caught:
            call.outcome(Answer(200, content))
        str(caught.value).encode()
    rows = Answer(200, json.dumps([row(id=13, name="other"), row() | odd, row(id=15, name="more")]).encode())

    with caplog.at_level(logging.WARNING):
        assert [one.name for one in READS["deployments"].outcome(rows)] == ["other", "more"]
    assert caplog.text.count("left out") == 1
    with pytest.raises(UnexpectedResponseError):
        api.get_deployments(PROJECT, complete=True).outcome(rows)


@pytest.mark.parametrize(
    "odd",
    [
        {"id": 5},
        {"name": None},
        {"version": "1"},
        {"version": float("inf")},
        {"framework": ["SKLEARN"]},
        {"description": {}},
        {"metrics": [0.9]},
        {"featureView": "view"},
        {"trainingDatasetVersion": "1"},
        {"tags": "approved"},
        {"tags": {"items": ["approved"]}},
        {"modelRegistryId": "119"},
        {"created": "today"},
    ],
    ids=str,
)
def test_an_odd_model_version(odd: dict[str, Any]) -> None:
    with pytest.raises(UnexpectedResponseError):
        READS["model"].outcome(Answer(200, json.dumps(MODEL | odd).encode()))
    rows = {"count": 2, "items": [MODEL | odd, MODEL | {"version": 2, "id": "digits_2"}]}
    page = READS["models"].outcome(Answer(200, json.dumps(rows).encode()))
    assert ([one.version for one in page.items], page.count, page.unreadable) == ([2], 2, 1)


@pytest.mark.parametrize("body", [{}, {"count": 3}, {"items": None, "count": 2}, {"items": {}}, {"count": "0"}])
@pytest.mark.parametrize("name", ["deployments", "versions", "models", "folder", "tags", "registries"])
def test_a_list_without_rows(name: str, body: Any) -> None:
    with pytest.raises(UnexpectedResponseError):
        READS[name].outcome(Answer(200, json.dumps(body).encode()))


@pytest.mark.parametrize("body", [{"count": 0}, {"count": 0, "items": []}, []])
def test_an_empty_list(body: Any) -> None:
    for name in ("deployments", "registries", "endpoints"):
        assert READS[name].outcome(Answer(200, json.dumps(body).encode())) == []


@pytest.mark.parametrize("name", [".", "..", "a/b", "../a", "a\0b", ""])
def test_a_file_whose_name_leads_to_another_path(name: str) -> None:
    row = {"attributes": {"name": name, "size": 2}}
    for read, body in (("folder", {"count": 1, "items": [row]}), ("entry", row)):
        with pytest.raises(UnexpectedResponseError, match="leads to another path"):
            READS[read].outcome(Answer(200, json.dumps(body).encode()))


def test_a_file_has_its_listed_size() -> None:
    for call in (api.download(PROJECT, "a", size=3), api.read_json(PROJECT, "a", lambda data: data, size=3)):
        assert call.outcome(Answer(200, b"100")) in (b"100", 100)
        for content in (b"", b"10", b"1000"):
            with pytest.raises(UnexpectedResponseError, match="listed with 3"):
                call.outcome(Answer(200, content))


def test_an_error_text_with_half_a_pair_of_surrogates() -> None:
    with pytest.raises(RequestRefusedError) as caught:
        READS["deployment"].outcome(refusal(400, 240003, "no \ud83d"))
    assert "no \\ud83d" in str(caught.value)


class TestRowsThatAreCounted:
    """A list that counts rows and lacks them is not complete, and not empty."""

    @pytest.mark.parametrize("rows", [{"items": []}, {"items": [{}]}, {"items": None}, {}])
    @pytest.mark.parametrize("name", ["deployments", "logs", "tags", "model tags", "registries", "endpoints"])
    def test_of_a_list_without_pages(self, name: str, rows: dict[str, Any]) -> None:
        with pytest.raises(UnexpectedResponseError):
            READS[name].outcome(Answer(200, json.dumps({"count": 2} | rows).encode()))

    @pytest.mark.parametrize("name", ["models", "versions", "newest version", "folder"])
    def test_of_a_page(self, name: str) -> None:
        with pytest.raises(UnexpectedResponseError, match="it counts 2 rows, and holds 0"):
            READS[name].outcome(Answer(200, b'{"count": 2, "items": []}'))

    def test_of_a_later_page(self) -> None:
        call = api.get_models(PROJECT, "digits", offset=2)

        assert call.outcome(Answer(200, b'{"count": 2, "items": []}')).items == []
        with pytest.raises(UnexpectedResponseError, match="it counts 3 rows"):
            call.outcome(Answer(200, b'{"count": 3, "items": []}'))

    def test_a_page_may_be_short(self) -> None:
        page = api.get_models(PROJECT, "digits", limit=1).outcome(
            Answer(200, json.dumps({"count": 7, "items": [MODEL]}).encode())
        )

        assert (len(page.items), page.count) == (1, 7)


def test_a_row_whose_name_is_in_another_case_hides_no_other() -> None:
    other = MODEL | {"name": "DIGITS", "id": "DIGITS_2", "version": 2}
    page = READS["models"].outcome(Answer(200, json.dumps({"count": 2, "items": [other, MODEL]}).encode()))

    assert ([one.version for one in page.items], page.unreadable) == ([1], 1)


@pytest.mark.parametrize(
    "odd", [{"projectName": "elsewhere"}, {"projectName": "DEMO"}, {"modelRegistryId": 120}], ids=str
)
@pytest.mark.parametrize("name", ["model", "put model"])
def test_a_model_version_of_another_project(name: str, odd: dict[str, Any]) -> None:
    with pytest.raises(UnexpectedResponseError):
        (READS | CHANGES)[name].outcome(Answer(200, json.dumps(MODEL | odd).encode()))


@pytest.mark.parametrize("odd", [{}, {"projectName": "demo", "modelRegistryId": 119}, {"projectName": "shared"}])
def test_a_model_version_of_a_shared_registry_belongs_to_its_owner(odd: dict[str, Any]) -> None:
    call = api.get_model(PROJECT, "digits", 1, registry=api.Registry(120, "shared"))
    found = call.outcome(Answer(200, json.dumps(MODEL | odd).encode()))

    assert found is not None
    assert (found.project, found.registry_id) == ("shared", 120)


@pytest.mark.parametrize(("body", "value"), [({"successMessage": "a"}, "a"), ({"successMessage": ""}, None)])
def test_a_setting_of_the_cluster(body: dict[str, Any], value: str | None) -> None:
    assert READS["variable"].outcome(Answer(200, json.dumps(body).encode())) == value
    for odd in ({}, {"successMessage": None}, {"successMessage": 5}):
        with pytest.raises(UnexpectedResponseError):
            READS["variable"].outcome(Answer(200, json.dumps(odd).encode()))


@pytest.mark.parametrize("begin", [b"\xef\xbb\xbf", b"\xef\xbb\xbf \r\n", b"\n"])
def test_html_is_no_missing_route(begin: bytes) -> None:
    with pytest.raises(UnexpectedResponseError):
        READS["versions"].outcome(Answer(404, begin + HTML))


@pytest.mark.parametrize("port", [99999, -1, 1 << 16])
def test_an_endpoint_with_a_port_that_is_none(port: int) -> None:
    rows = [{"type": "NODE", "hosts": ["127.0.0.1"], "ports": [{"name": "HTTP", "number": port}]}]
    with pytest.raises(UnexpectedResponseError, match=r"ports\.number"):
        READS["endpoints"].outcome(Answer(200, json.dumps(rows).encode()))


def test_a_log_is_cleaned_and_bounded() -> None:
    hide("prefix.secretsecretsecret")
    log = {"instanceName": "pod\x1b[2J", "content": "ApiKey prefix.secretsecretsecret\x1b[2J\n" + "y" * 3_000_000}
    (found,) = READS["logs"].outcome(Answer(200, json.dumps([log]).encode()))

    assert found.instance == "pod\\x1b[2J"
    assert found.content.startswith("ApiKey ***\\x1b[2J\ny")
    assert len(found.content) <= 1 << 20


def test_a_row_that_is_left_out_puts_no_value_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """A value may be that of an environment variable."""

    def read(row: dict[str, Any]) -> int:
        return int(row["value"])

    with caplog.at_level(logging.WARNING):
        assert readable("list rows", [{"name": "odd", "value": "TOKEN=abc"}], read) == []
    assert "left out 'odd', which cannot be read: ValueError" in caplog.text
    assert "abc" not in caplog.text
