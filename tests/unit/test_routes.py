"""Routes that only some versions of Hopsworks have."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.api import Answer
from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
from airflow_provider_hsml.hopsworks.errors import RequestRefusedError, UnexpectedResponseError
from airflow_provider_hsml.hopsworks.routes import Routes
from tests.support.fake import PROJECT, FakeHopsworks, refusal, row
from tests.support.samples import deployment

LIVE = deployment("serving/running")
BARE = Answer(404, b"")
NOT_FOUND = Answer(404, b'{"message": "no Route matched"}')
CERTAIN = refusal(404, 120004)
HTML = Answer(404, b"\n<html>nginx</html>")
THERE = Answer(200, json.dumps({"count": 1, "items": [{"version": 4}]}).encode())


def read(fake: FakeHopsworks, routes: Routes) -> int | None:
    call, witness = api.get_newest_version(PROJECT, LIVE), api.get_deployment_by_id(PROJECT, LIVE.id)
    flow = routes.read(call, witness)
    return fake.run(flow)


def fake(*versions: Answer, deployment: Answer | None = None) -> FakeHopsworks:
    witnesses = [] if deployment is None else [deployment] * 9
    return FakeHopsworks(row=row(), faults={"versions": list(versions), "14": witnesses})


@pytest.mark.parametrize("answer", [BARE, NOT_FOUND])
def test_a_bare_404_counts_once_it_has_repeated(answer: Answer) -> None:
    """For older servers, which say no more than that; once for the task."""
    server, routes = fake(*[answer] * 3), Routes()

    assert read(server, routes) is None
    assert server.reads == ["versions", "14", "versions", "14", "versions"]
    assert server.now == 1002
    assert read(server, routes) is None
    assert len(server.reads) == 5


@pytest.mark.parametrize("number", [1, 2])
def test_a_proxy_that_is_lost_for_a_moment(number: int) -> None:
    assert read(fake(*[BARE] * number, THERE), Routes()) == 4


def test_hopsworks_own_code_counts_at_once() -> None:
    server = fake(CERTAIN)

    assert read(server, Routes()) is None
    assert (server.reads, server.now) == (["versions"], 1000)


@pytest.mark.parametrize(
    "answer", [HTML, Answer(404, b"", {"content-type": "text/html"}), Answer(200, b""), Answer(410, b"")]
)
def test_anything_else_says_nothing(answer: Answer) -> None:
    with pytest.raises(UnexpectedResponseError):
        read(fake(*[answer] * 3), Routes())


@pytest.mark.parametrize("witness", [BARE, HTML, Answer(200, b""), Answer(503, b"")])
def test_a_404_counts_only_while_hopsworks_answers(witness: Answer) -> None:
    with pytest.raises(UnexpectedResponseError):
        read(fake(*[BARE] * 9, deployment=witness), Routes())


def test_a_deployment_that_is_gone_is_no_missing_route() -> None:
    with pytest.raises(RequestRefusedError):
        read(fake(refusal(404, 240000)), Routes())


@pytest.mark.parametrize("answer", [BARE, CERTAIN])
def test_a_route_that_was_used_cannot_vanish(answer: Answer) -> None:
    recalled = Routes()
    recalled.recall(["versions"])
    with pytest.raises(UnexpectedResponseError, match="has answered such requests before"):
        read(fake(answer), recalled)
    routes = Routes()
    assert read(fake(THERE), routes) == 4
    with pytest.raises(UnexpectedResponseError):
        read(fake(answer), routes)


def test_one_missing_route_says_nothing_of_another() -> None:
    server, routes = fake(CERTAIN), Routes()
    server.faults["tags"] = [Answer(200, b'{"count": 0}')]

    assert read(server, routes) is None
    call: Any = api.get_deployment_tags(PROJECT, LIVE)
    assert server.run(routes.read(call, api.get_deployment_by_id(PROJECT, 14))) == {}


@pytest.mark.parametrize("body", [{"count": 0}, [], {"items": []}, [{"version": 1}]], ids=str)
def test_a_list_that_lacks_the_active_version_was_not_read(body: Any) -> None:
    server, answer = FakeHopsworks(row=row(version=2)), Answer(200, json.dumps(body).encode())
    live = Deployment.from_json(row(version=2))
    server.faults["versions"] = [answer] * 3
    newest: Any = api.get_newest_version(PROJECT, live)

    with pytest.raises(UnexpectedResponseError, match="lacks version 2, the active one"):
        server.run(Routes().versions(PROJECT, live))
    with pytest.raises(UnexpectedResponseError, match="lacks version 2, the active one"):
        server.run(Routes().version_numbers(PROJECT, live))
    with pytest.raises(UnexpectedResponseError, match="lacks version 2"):
        server.run(Routes().read(newest, api.get_deployment_by_id(PROJECT, live.id)))


def test_the_active_version_may_be_one_that_cannot_be_read() -> None:
    server = FakeHopsworks(row=row(version=2, modelName=7), kept=[row()])

    found = server.run(Routes().versions(PROJECT, Deployment.from_json(row(version=2))))
    assert [version.version for version in found or ()] == [1]
