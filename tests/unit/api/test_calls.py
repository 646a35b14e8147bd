from __future__ import annotations

import email.utils
import json
import time
from typing import Any

import pytest

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import diff
from airflow_provider_hsml.hopsworks.domain.deployment import DeploymentStatus
from airflow_provider_hsml.hopsworks.domain.model_version import Direction, Framework, ModelVersion
from airflow_provider_hsml.hopsworks.errors import (
    HopsworksError,
    InferenceError,
    InvalidInputError,
    RequestRefusedError,
    UnexpectedResponseError,
)
from tests.support.samples import PROJECT, SAMPLES, answer, as_sent, deployment, sdk_requests

LIVE = deployment("serving/running")
MODEL = ModelVersion("mnist", 2, "mnist_2", "demo", 119, {"accuracy": 0.9}, Framework.SKLEARN)

DEPLOYMENTS = sorted(
    path.stem
    for path in (SAMPLES / "answers/serving").glob("*.json")
    if "modelServer" in (json.loads(path.read_text()).get("body") or {})
)


class TestWhatIsSent:
    """Equals what the official SDK sends for the same purpose."""

    @pytest.mark.parametrize(
        ("verb", "number", "call"),
        [
            (
                "get_best_model",
                0,
                api.get_models(PROJECT, "mnist", sort_by="accuracy", direction=Direction.MAX, limit=1),
            ),
            ("get_models", 0, api.get_models(PROJECT, "mnist")),
            ("get_model", 0, api.get_model(PROJECT, "mnist", 1)),
            (
                "create",
                0,
                api.put_deployment(
                    PROJECT, diff.creation_body("mnistdigits", MODEL, {}, serving_tool="KSERVE", minimum=1)
                ),
            ),
            ("list", 0, api.get_deployments(PROJECT)),
            ("state", 0, api.get_deployment_by_id(PROJECT, 14)),
            ("start", 1, api.start_deployment(PROJECT, LIVE)),
            ("stop", 1, api.stop_deployment(PROJECT, LIVE)),
            ("get_logs", 1, api.get_logs(PROJECT, LIVE)),
            ("delete", 1, api.delete_deployment(PROJECT, LIVE)),
            ("predict", 0, api.predict(PROJECT, "mnistdigits", {"instances": [[0.0, 1.0], [2.0, 3.0]]})),
            ("update_new_version", 0, api.get_newest_version(PROJECT, LIVE)),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_is_what_the_sdk_sends(self, verb: str, number: int, call: api.Call[Any]) -> None:
        assert as_sent(call) == sdk_requests(verb)[number]

    @pytest.mark.parametrize("verb", ["update", "update_new_version"])
    def test_an_update_sends_all_that_the_sdk_sends(self, verb: str) -> None:
        """And what the SDK drops of the live deployment, which a newer server may want back."""
        theirs = next(request for request in sdk_requests(verb) if request["method"] == "PUT")
        body = diff.update_body(LIVE.raw, {"model_version": theirs["body"]["modelVersion"]})
        ours = as_sent(api.put_deployment(PROJECT, body, new_version=verb == "update_new_version"))

        assert (ours["method"], ours["path"]) == (theirs["method"], theirs["path"])
        assert ours["query"] == theirs["query"]
        own = {"created", "creator"}
        assert {key: ours["body"][key] for key in theirs["body"].keys() - own} == {
            key: value for key, value in theirs["body"].items() if key not in own
        }


class TestPaths:
    @pytest.mark.parametrize("name", ["my_model", "a/../b", "..", "", "a b", "a%2e%2e", None, 3])
    def test_a_deployment_name_cannot_lead_elsewhere(self, name: Any) -> None:
        with pytest.raises(InvalidInputError, match="letters and digits only"):
            _ = api.get_deployment(PROJECT, name)
        with pytest.raises(InvalidInputError, match="letters and digits only"):
            _ = api.predict(PROJECT, name, {"instances": [1]})
        with pytest.raises(InvalidInputError, match="letters and digits only"):
            _ = api.put_deployment(PROJECT, {"name": name})

    @pytest.mark.parametrize("name", ["a/b", "../x", "a-b", "", None])
    def test_a_model_name_cannot_lead_elsewhere(self, name: Any) -> None:
        with pytest.raises(InvalidInputError, match="letters, digits and underscores only"):
            _ = api.get_model(PROJECT, name, 1)

    @pytest.mark.parametrize("path", ["Models/../x", "Models//x", ".", "Models/./x"])
    def test_a_path_stays_inside_the_project(self, path: str) -> None:
        with pytest.raises(InvalidInputError, match="inside the project"):
            _ = api.download(PROJECT, path)

    def test_a_path_is_one_segment(self) -> None:
        assert api.download(PROJECT, "Models/a b/1").path.endswith("/with_auth/Models%2Fa%20b%2F1")

    def test_a_project_name_is_encoded(self) -> None:
        assert api.get_project("a/b").path.endswith("a%2Fb")
        with pytest.raises(InvalidInputError):
            _ = api.get_project("..")


class TestDeployments:
    @pytest.mark.parametrize("name", DEPLOYMENTS)
    def test_every_answer_is_read(self, name: str) -> None:
        assert deployment(f"serving/{name}").name

    @pytest.mark.parametrize(
        ("name", "status"),
        [
            ("running", DeploymentStatus.RUNNING),
            ("idle", DeploymentStatus.IDLE),
            ("updating", DeploymentStatus.UPDATING),
            ("created", DeploymentStatus.CREATED),
            ("put_answer", DeploymentStatus.UNKNOWN),
            ("newer_server", DeploymentStatus.UNKNOWN),
        ],
    )
    def test_status(self, name: str, status: DeploymentStatus) -> None:
        assert deployment(f"serving/{name}").status is status

    def test_case_of_a_status_does_not_matter(self) -> None:
        assert deployment("serving/running", status="RUNNING").status is DeploymentStatus.RUNNING

    def test_a_deployment_that_is_not_there(self) -> None:
        assert api.get_deployment(PROJECT, "x").outcome(answer("errors/240000_not_found")) is None
        assert api.get_deployment_by_id(PROJECT, 1).outcome(answer("errors/240000_not_found")) is None

    def test_a_404_from_something_in_between_is_not_a_missing_deployment(self) -> None:
        for name in ("errors/html_404", "errors/empty_404"):
            with pytest.raises(UnexpectedResponseError) as caught:
                api.get_deployment(PROJECT, "x").outcome(answer(name))
            assert caught.value.transient

    @pytest.mark.parametrize("name", ["list", "list_counted", "list_empty", "list_counted_empty"])
    def test_every_shape_of_list(self, name: str) -> None:
        found = api.get_deployments(PROJECT).outcome(answer(f"serving/{name}"))

        assert bool(found) == ("empty" not in name)

    def test_a_read_without_a_status_is_not_whole(self) -> None:
        """A missing status would count as one that is up. The status in the answer to a change means nothing."""
        raw = {key: value for key, value in LIVE.raw.items() if key != "status"}
        without = api.Answer(200, json.dumps(raw).encode())

        for call in (api.get_deployment(PROJECT, LIVE.name), api.get_deployment_by_id(PROJECT, LIVE.id)):
            with pytest.raises(UnexpectedResponseError, match="status is missing") as caught:
                call.outcome(without)
            assert caught.value.transient
        assert api.put_deployment(PROJECT, raw).outcome(without).status is DeploymentStatus.UNKNOWN

    def test_the_newest_version(self) -> None:
        call = api.get_newest_version(PROJECT, LIVE)

        assert call.outcome(answer("serving/versions")) == 2
        assert call.outcome(answer("serving/versions_unknown_route")) is api.MissingRoute.LIKELY
        assert call.outcome(answer("errors/120004_unmatched_route")) is api.MissingRoute.CERTAIN
        with pytest.raises(RequestRefusedError):
            call.outcome(answer("errors/240000_not_found"))

    @pytest.mark.parametrize("odd", [{"modelName": 7}, {"predictorResources": []}])
    def test_the_newest_version_of_an_odd_row(self, odd: dict[str, Any]) -> None:
        """Of the versions only the number counts."""
        rows = {"count": 5, "items": [{"version": 5} | odd]}

        assert api.get_newest_version(PROJECT, LIVE).outcome(api.Answer(200, json.dumps(rows).encode())) == 5

    def test_versions_are_read(self) -> None:
        call = api.get_versions(PROJECT, LIVE)
        page = call.outcome(answer("serving/versions"))

        assert isinstance(page, api.Page)
        assert [(row.version, row.is_active, row.model_version, row.model_project) for row in page.items] == [
            (2, True, 3, "demo"),
            (1, False, 2, "demo"),
        ]
        assert call.outcome(answer("serving/versions_unknown_route")) is api.MissingRoute.LIKELY

    def test_logs(self) -> None:
        call = api.get_logs(PROJECT, LIVE)

        assert call.outcome(answer("serving/logs"))
        assert call.outcome(answer("serving/logs_empty")) == []
        assert call.outcome(answer("errors/240027_logs_not_available")) is None
        assert call.outcome(answer("errors/240014_logs_without_kubernetes")) is None


class TestModels:
    def test_a_list(self) -> None:
        page = api.get_models(PROJECT, "mnist").outcome(answer("registry/models"))

        assert page.items
        assert page.items[0].name == "mnist"
        assert page.count == len(page.items)

    def test_an_empty_list_has_no_items(self) -> None:
        assert api.get_models(PROJECT).outcome(answer("registry/models_empty")) == api.Page([], 0)

    @pytest.mark.parametrize("name", ["model_metrics_nan", "model_metrics_null", "model_bare"])
    def test_a_metric_that_is_no_number(self, name: str) -> None:
        model = api.get_model(PROJECT, "mnist", 1).outcome(answer(f"registry/{name}"))

        assert model is not None
        assert model.metric("accuracy") is None

    def test_a_model_of_a_newer_server(self) -> None:
        assert api.get_model(PROJECT, "mnist", 2).outcome(answer("registry/model_newer_server"))

    def test_registries(self) -> None:
        own, shared = api.get_registries(PROJECT).outcome(answer("registry/registries"))

        assert (own, shared) == (api.Registry(119, "demo"), api.Registry(120, "shared"))
        call = api.get_model(PROJECT, "mnist", 2, registry=shared)
        assert "/project/119/modelregistries/120/models/mnist_2" in call.path
        model = call.outcome(answer("registry/model"))
        assert model is not None
        assert (model.project, model.path) == ("shared", "/Projects/shared/Models/mnist")

    def test_tags(self) -> None:
        call = api.get_model_tags(PROJECT, "mnist", 1)

        assert call.outcome(answer("registry/tags")) == {"approval": "approved"}
        assert call.outcome(answer("errors/empty_404")) is api.MissingRoute.LIKELY, "a server without tags"
        with pytest.raises(RequestRefusedError):
            call.outcome(answer("errors/360000_model_not_found"))
        sent = api.put_model_tag(PROJECT, "mnist", 1, "a/b", {"by": "me"})
        assert (sent.path.rpartition("/")[2], sent.body) == ("a%2Fb", {"by": "me"})

    def test_a_model_that_is_not_there(self) -> None:
        assert api.get_model(PROJECT, "mnist", 1).outcome(answer("errors/360000_model_not_found")) is None


ERRORS = [
    # name, transient, in doubt, not ready
    ("240000_not_found", False, False, False),
    ("240001_delete_while_updating", True, False, False),
    ("240002_put_while_updating", True, False, False),
    ("240003_busy_updating", True, False, False),
    ("240003_quota", False, False, False),
    ("240004_busy", True, False, False),
    ("240011_duplicated", False, False, False),
    ("240013_model_server", False, False, False),
    ("240026_create_quota", False, False, False),
    ("320004_scope", False, False, False),
    ("200003_no_key", False, False, False),
    ("150004_unknown_project", False, False, False),
    ("160000_no_role", False, False, False),
    ("120012_feature_flag", False, False, False),
    ("conflict_on_version", True, False, False),
    ("html_502", True, True, None),
    ("html_404", True, True, None),
    ("empty_503", True, True, None),
    ("text_503", True, True, None),
    ("json_string", None, None, None),
]


@pytest.mark.parametrize(("name", "transient", "outcome_unknown", "not_ready"), ERRORS, ids=[row[0] for row in ERRORS])
def test_errors_are_told_apart_by_their_code(
    name: str, transient: bool | None, outcome_unknown: bool | None, not_ready: bool | None
) -> None:
    with pytest.raises(HopsworksError) as caught:
        api.put_deployment(PROJECT, {"name": "x"}).outcome(answer(f"errors/{name}"))

    error = caught.value
    assert str(error).startswith("create deployment 'x'")
    if transient is not None:
        assert (error.transient, error.outcome_unknown) == (transient, outcome_unknown)
    assert error.is_out_of_capacity == name.endswith("quota")
    if not_ready is not None:
        assert isinstance(error, RequestRefusedError)
        assert error.not_ready == not_ready


@pytest.mark.parametrize("name", ["html_200", "cut_off"])
def test_a_success_that_is_not_hopsworks_is_no_success(name: str) -> None:
    with pytest.raises(UnexpectedResponseError, match="It began"):
        api.get_deployment(PROJECT, "x").outcome(answer(f"errors/{name}"))


def test_the_missing_scope_is_passed_on() -> None:
    with pytest.raises(RequestRefusedError, match="MODELREGISTRY"):
        api.get_deployments(PROJECT).outcome(answer("errors/320004_scope"))


def test_a_redirect_is_not_followed() -> None:
    with pytest.raises(UnexpectedResponseError, match="redirected"):
        api.get_deployments(PROJECT).outcome(api.Answer(302, b"", {"location": "https://elsewhere.example"}))


@pytest.mark.parametrize(
    ("name", "ready", "transient"),
    [
        ("not_routed_yet", False, True),
        ("not_routed_no_text", False, True),
        ("no_healthy_upstream", False, True),
        ("upstream_said_nothing", False, True),
        ("not_running", False, True),
        ("contact_failed", False, True),
        ("model_refused", True, False),
        ("schema_refused", True, False),
        ("model_broke", True, True),
        ("forbidden", True, False),
        ("unauthorized", True, False),
        ("jwt_refused", True, False),
        ("not_found", True, False),
    ],
)
def test_who_refused_a_prediction(name: str, ready: bool, transient: bool) -> None:
    with pytest.raises(RequestRefusedError) as caught:
        api.predict(PROJECT, "x", {"instances": [1]}).outcome(answer(f"inference/{name}"))

    assert caught.value.not_ready is not ready
    assert caught.value.transient is transient


@pytest.mark.parametrize("body", [{}, {"instances": [1], "inputs": [1]}, {"rows": [1]}])
def test_a_prediction_without_one_of_the_keys_is_not_sent(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="exactly one of the keys"):
        _ = api.predict(PROJECT, "x", body)


@pytest.mark.parametrize("reply", [[1], {}, [], None, 0, "", {"predictions": None}])
def test_a_models_reply_is_any_json(reply: Any) -> None:
    content = json.dumps(reply).encode()
    address = api.Address.by_path("demo", "x")

    assert api.predict(PROJECT, "x", {"instances": [1]}).outcome(api.Answer(200, content)) == reply
    assert api.predict_at("https://ingress", address, {"instances": [1]}).outcome(api.Answer(200, content)) == reply


@pytest.mark.parametrize("content", [b"", b"<html>", b"[1", b"[" * 200_000])
def test_a_reply_that_is_no_json(content: bytes) -> None:
    with pytest.raises(UnexpectedResponseError, match="not what Hopsworks gives"):
        api.predict(PROJECT, "x", {"instances": [1]}).outcome(api.Answer(200, content))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        ("0", 0),
        ("3600", 30),
        ("9" * 5000, 30),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 -0000", 30),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("\x00", None),
        ("", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    with pytest.raises(UnexpectedResponseError) as caught:
        api.get_deployments(PROJECT).outcome(api.Answer(503, b"", {"retry-after": value}))

    assert caught.value.retry_after == seconds
    assert seconds != 30 or (caught.value.requested_delay or 0) >= 3600, "a wait is cut, a retry of the task is not"


def test_retry_after_may_be_a_date() -> None:
    date = email.utils.formatdate(time.time() + 20, usegmt=True)
    with pytest.raises(UnexpectedResponseError) as caught:
        api.get_deployments(PROJECT).outcome(api.Answer(503, b"", {"retry-after": date}))

    assert caught.value.retry_after == pytest.approx(20, abs=2)


@pytest.mark.parametrize(
    ("status", "content", "kind"),
    [
        (502, b"<html>bad gateway", UnexpectedResponseError),
        (503, b"no healthy upstream", InferenceError),
        (503, b"", InferenceError),
        (500, b"<!doctype html>", InferenceError),
    ],
)
def test_at_the_ingress_a_gateways_page_is_no_answer_of_the_model(
    status: int, content: bytes, kind: type[HopsworksError]
) -> None:
    """Istio's own errors are no HTML; a script may answer its own errors in it, but not as a gateway."""
    with pytest.raises(kind):
        api.predict_at("https://ingress", api.Address.by_path("demo", "digits"), {"instances": [1]}).outcome(
            api.Answer(status, content)
        )
