"""Choosing the ingress, and the address that a deployment has there."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.api import Address, Answer, Call, Endpoint
from airflow_provider_hsml.hopsworks.domain.access import Access
from airflow_provider_hsml.hopsworks.errors import (
    InferenceError,
    InvalidInputError,
    NotFoundError,
    UnexpectedResponseError,
)
from airflow_provider_hsml.hopsworks.flow import drive
from airflow_provider_hsml.hopsworks.inference import predict
from airflow_provider_hsml.hopsworks.inference.ingress import Ingress
from tests.support.fake import PROJECT, refusal, row

BODY = {"instances": [[1]]}
NOT_ROUTED = Answer(404, b"")
BY_NAMESPACE = "https://ingress:443/v1/demo-ns/digits/v1/models/digits:predict"
BY_PROJECT = "https://ingress:443/v1/demo/digits/v1/models/digits:predict"
BY_HOST = "https://ingress:443/v1/models/digits:predict as digits.demo-ns.hops.example"


@dataclass
class Cluster:
    """Answers what Hopsworks is asked, and at one address of its ingress."""

    answers_at: str = BY_NAMESPACE
    answers: list[Answer] = field(default_factory=lambda: [Answer(200, b'{"predictions": [7]}')] * 9)
    deployment: dict[str, Any] | None = field(default_factory=lambda: row(projectNamespace="demo-ns"))
    domain: str | None = "hops.example"
    asked: list[str] = field(default_factory=list)
    now: float = 0.0

    def send(self, call: Call[Any]) -> Any:
        if call.base is None:
            if "variables" in call.path and self.domain is None:
                return call.outcome(refusal(404, 100050))
            held = {"successMessage": self.domain} if "variables" in call.path else self.deployment
            return call.outcome(refusal(404, 240000) if held is None else Answer(200, json.dumps(held).encode()))
        where = f"{call.base}/{call.path}" + (f" as {call.host}" if call.host else "")
        self.asked.append(where)
        return call.outcome(self.answers.pop(0) if where == self.answers_at else NOT_ROUTED)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def predict(self, ingress: Ingress, *, timeout: float = 600) -> Any:
        project = replace(PROJECT, ingress=ingress)
        flow = predict.predict(project, "digits", BODY, timeout=timeout, clock=lambda: self.now)
        return drive(flow, self.send, self.sleep)


@pytest.fixture
def ingress() -> Ingress:
    return Ingress("https://ingress:443")


class TestAddress:
    @pytest.mark.parametrize(
        ("there", "tried"),
        [
            (BY_NAMESPACE, [BY_NAMESPACE]),
            (BY_PROJECT, [BY_NAMESPACE, BY_PROJECT]),
            (BY_HOST, [BY_NAMESPACE, BY_PROJECT, BY_HOST]),
        ],
    )
    def test_is_found_and_remembered(self, ingress: Ingress, there: str, tried: list[str]) -> None:
        cluster = Cluster(there)

        assert cluster.predict(ingress) == {"predictions": [7]}
        assert cluster.asked == tried
        cluster.asked.clear()
        cluster.predict(ingress)
        assert cluster.asked == [there]
        assert cluster.now == 0, "nothing was waited for"

    def test_of_a_server_without_namespaces(self, ingress: Ingress) -> None:
        """Before 4.0: by the project's name, without its underscores."""
        at = "https://ingress:443/v1/models/digits:predict as digits.my-demo.hops.example"
        cluster = Cluster(at, deployment=row())
        project = replace(PROJECT, name="my_demo", ingress=ingress)

        drive(predict.ask_model(project, "digits", BODY), cluster.send, cluster.sleep)
        assert cluster.asked == [at]

    def test_of_a_server_that_tells_nothing(self, ingress: Ingress) -> None:
        with pytest.raises(InvalidInputError, match="neither its Kubernetes namespace nor"):
            Cluster(deployment=row(), domain=None).predict(ingress)

    @pytest.mark.parametrize("namespace", ["..", "demo/other", "a b", "\u00e9"])
    def test_of_a_namespace_that_is_none(self, ingress: Ingress, namespace: str) -> None:
        with pytest.raises(UnexpectedResponseError, match="no name of a Kubernetes namespace"):
            Cluster(deployment=row(projectNamespace=namespace)).predict(ingress)

    def test_changes_when_the_deployment_does(self, ingress: Ingress) -> None:
        cluster = Cluster(BY_NAMESPACE)
        cluster.predict(ingress)
        cluster.answers_at = BY_HOST
        cluster.asked.clear()

        cluster.predict(ingress)
        assert cluster.asked == [BY_NAMESPACE, BY_NAMESPACE, BY_PROJECT, BY_HOST]

    def test_is_kept_after_a_request_that_says_nothing_about_it(self, ingress: Ingress) -> None:
        cluster = Cluster(answers=[Answer(200, b"{}"), Answer(502, b"<html>"), Answer(200, b"{}")])
        cluster.predict(ingress)
        cluster.deployment = None  # It is not read again.

        assert cluster.predict(ingress) == {}
        assert cluster.asked == [BY_NAMESPACE] * 3

    def test_of_nothing(self, ingress: Ingress) -> None:
        with pytest.raises(NotFoundError, match="'digits' does not exist"):
            Cluster(deployment=None).predict(ingress)

    def test_is_encoded(self) -> None:
        assert Address.by_path("a/../b", "x").path == "v1/a%2F..%2Fb/x/v1/models/x:predict"
        with pytest.raises(InvalidInputError):
            Address.by_path("..", "x")


class TestAnswers:
    def test_not_routed_yet_is_asked_again_for_a_minute(self, ingress: Ingress) -> None:
        cluster = Cluster(answers=[NOT_ROUTED, NOT_ROUTED, Answer(200, b'{"predictions": [7]}')])

        assert cluster.predict(ingress) == {"predictions": [7]}
        with pytest.raises(InferenceError, match="HTTP 404: there is no route to it"):
            Cluster(answers_at="nowhere").predict(ingress)

    def test_a_404_with_a_body_is_the_models(self, ingress: Ingress) -> None:
        cluster = Cluster(answers=[Answer(404, b'{"error": "Model with name digits does not exist."}')])

        with pytest.raises(InferenceError, match="does not exist") as caught:
            cluster.predict(ingress)
        assert len(cluster.asked) == 1
        assert not caught.value.transient

    @pytest.mark.parametrize(("status", "transient"), [(400, False), (413, False), (429, True), (500, True)])
    def test_the_models_own_refusal_is_final(self, ingress: Ingress, status: int, transient: bool) -> None:
        cluster = Cluster(answers=[Answer(status, b'{"error": "no such row"}', {"retry-after": "7"})])

        with pytest.raises(InferenceError, match=f"HTTP {status}: .*no such row") as caught:
            cluster.predict(ingress)
        assert (caught.value.transient, caught.value.retry_after) == (transient, 7)
        assert len(cluster.asked) == 1

    @pytest.mark.parametrize("status", [502, 503, 504])
    def test_not_ready_is_asked_again(self, ingress: Ingress, status: int) -> None:
        cluster = Cluster(answers=[Answer(status, b"no healthy upstream"), Answer(200, b'{"predictions": [7]}')])

        assert cluster.predict(ingress) == {"predictions": [7]}

    @pytest.mark.parametrize("status", [400, 403, 404, 409, 422, 429, 502, 503])
    @pytest.mark.parametrize(
        "page", [(b"<html>Refused</html>", {}), (b"Refused", {"content-type": "text/html; charset=utf-8"})]
    )
    def test_a_page_is_a_proxys_and_no_evidence_about_the_model(
        self, ingress: Ingress, status: int, page: tuple[bytes, dict[str, str]]
    ) -> None:
        with pytest.raises(UnexpectedResponseError, match="such as a proxy") as caught:
            Cluster(answers=[Answer(status, *page)] * 99).predict(ingress, timeout=5)
        assert caught.value.transient
        assert not predict.is_model_refusal(caught.value)

    @pytest.mark.parametrize(
        ("status", "is_models"),
        [
            (400, True),
            (422, True),
            (500, True),
            *((status, False) for status in (401, 403, 408, 413, 414, 421, 429, 431)),
        ],
    )
    def test_a_limit_of_the_ingress_is_no_evidence_about_the_model(self, status: int, *, is_models: bool) -> None:
        assert predict.is_model_refusal(InferenceError("ask", status=status, text="slow down")) is is_models

    def test_a_key_that_is_not_let_in(self, ingress: Ingress) -> None:
        with pytest.raises(InferenceError, match=r"RBAC: access denied\n.*scope SERVING") as caught:
            Cluster(answers=[Answer(403, b"RBAC: access denied")]).predict(ingress)
        assert not caught.value.transient

    def test_a_redirect_is_not_followed(self, ingress: Ingress) -> None:
        cluster = Cluster(answers=[Answer(302, b"", {"location": "https://elsewhere"})] * 99)

        with pytest.raises(Exception, match="redirected"):
            cluster.predict(ingress, timeout=5)


class TestChoice:
    @staticmethod
    def access(**more: Any) -> Access:
        extra = {"project": "demo", "inference_route": "istio"} | more
        return Access.from_connection(host="hops.example", port=None, password="k.s", extra=extra)

    @staticmethod
    def endpoints(host: str, **ports: int) -> list[Endpoint]:
        return [Endpoint("LOAD_BALANCER", (host,), ports or {"HTTP": 80, "HTTPS": 443})]

    def test_the_connections_goes_first(self) -> None:
        access = self.access(ingress_url="https://ingress.example:8443")

        assert Ingress.of(access, self.endpoints("hops.example")).url == "https://ingress.example:8443"

    def test_the_servers_on_the_same_host(self) -> None:
        assert Ingress.of(self.access(), self.endpoints("hops.example")).url == "https://hops.example:443"

    @pytest.mark.parametrize(
        ("host", "ports"), [("203.0.113.7", {}), ("hops.example.evil.com", {}), ("hops.example", {"HTTP": 80})]
    )
    def test_another_host_or_plain_http_does_not_get_the_key(self, host: str, ports: dict[str, int]) -> None:
        with pytest.raises(InvalidInputError, match=f"{host}.*does not get the API key.*\n.*'ingress_url'"):
            Ingress.of(self.access(), self.endpoints(host, **ports))

    def test_plain_http_where_it_is_allowed(self) -> None:
        access = self.access(allow_http=True)

        assert Ingress.of(access, self.endpoints("hops.example", HTTP=80)).url == "http://hops.example:80"

    def test_none_is_named(self) -> None:
        with pytest.raises(InvalidInputError, match=r"names \(none\)"):
            Ingress.of(self.access(), [])

    def test_what_the_server_names_is_read(self) -> None:
        from airflow_provider_hsml.hopsworks import api
        from tests.support.samples import answer

        assert api.get_endpoints(PROJECT).outcome(answer("inference/endpoints"))[0] == Endpoint(
            "LOAD_BALANCER", ("203.0.113.7",), {"HTTP": 80, "HTTPS": 443}
        )
        assert api.get_endpoints(PROJECT).outcome(answer("inference/endpoints_no_kubernetes"))[0].ports == {}
        assert json.dumps(api.get_endpoints(PROJECT).outcome(answer("inference/endpoints_none"))) == "[]"
