from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib
import inspect
import json
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from airflow.secrets import BaseSecretsBackend
from sqlalchemy import create_engine

from airflow_provider_hsml import HsmlHook
from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.journal_entry import EntryState
from airflow_provider_hsml.hopsworks.errors import (
    DeploymentError,
    HopsworksError,
    InvalidInputError,
    NotFoundError,
    RequestRefusedError,
)
from airflow_provider_hsml.hopsworks.flow import Sleep
from airflow_provider_hsml.hopsworks.promotion.journal import open_journal
from airflow_provider_hsml.local.cluster.faults import RequestFault
from airflow_provider_hsml.triggers.base import shared_client
from tests.conftest import HOPSWORKS
from tests.support.fake import row
from tests.support.secrecy import Search
from tests.support.servers import Request
from tests.support.servers import serving as serving_at
from tests.support.tasks import changes, resource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_hsml.local import LocalServing

pytestmark = pytest.mark.airflow


def serialize(value: Any) -> Any:
    """Serialize a value as Airflow does for an XCom."""
    try:
        module = importlib.import_module("airflow.sdk.serde")
    except ImportError:
        module = importlib.import_module("airflow.serialization.serde")
    return module.serialize(value)


SECRET = "secret.value-of a variable"


class Failing(BaseSecretsBackend):
    """A secrets backend that cannot be reached: Airflow then says that there is no such connection."""

    def get_connection(self, *_: Any, **__: Any) -> None:
        raise ConnectionError


class Supervisor:
    """The supervisor of a task, whose API server gives one answer to the question for a connection."""

    def __init__(self, said: str | Exception) -> None:
        self.said = said

    def send(self, _message: Any) -> Any:
        from airflow.sdk.exceptions import ErrorType
        from airflow.sdk.execution_time.comms import ErrorResponse

        if isinstance(self.said, Exception):
            raise self.said
        return ErrorResponse(error=ErrorType[self.said], detail={})

    async def asend(self, message: Any) -> Any:
        return self.send(message)


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a task inside Hopsworks."""
    monkeypatch.delenv("AIRFLOW_CONN_HSML_DEFAULT", raising=False)
    for name, value in (("HOST", "h.example"), ("PROJECT", "of_the_environment"), ("API_KEY", "prefix.secretpart")):
        monkeypatch.setenv(f"HOPSWORKS_{name}", value)


async def connect(conn_id: str) -> None:
    """Connect as a trigger does."""
    async with shared_client(conn_id):
        pass


class TestConnection:
    def test_works(self, hook: HsmlHook, serving: LocalServing) -> None:
        works, message = hook.test_connection()

        assert works
        assert message == f"Reached Hopsworks {HOPSWORKS}.0 at {serving.url}, project 'example' (id 119)."

    def test_shows_no_key_that_the_server_echoes(
        self, hook: HsmlHook, serving: LocalServing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said = f"ApiKey {serving.api_key}\x1b[2J" + "x" * 200
        real = api.get_server_version()
        monkeypatch.setattr(api, "get_server_version", lambda: dataclasses.replace(real, read=lambda _: said))

        works, message = hook.test_connection()

        assert works
        assert message.startswith("Reached Hopsworks ApiKey ***\\x1b[2Jxxx")
        assert f"{'x' * 33}... at {serving.url}" in message

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"password": "wrong.key"}, "Check the API key"),
            ({"password": "only.the-serving-scope"}, "MODELREGISTRY"),
            ({"password": ""}, "This connection: no API key"),
            ({"extra": {"project": "nowhere"}}, "Check the project's name"),
            ({"extra": {"project": "foreign"}}, "add the API key's user"),
            ({"extra": {}}, "This connection, extra 'project'"),
            ({"port": 1}, "nobody answers there"),
            ({"host": "nosuch.invalid"}, "Check the connection's host and port"),
            ({"host": "https://127.0.0.1"}, "does not speak TLS"),
            ({"host": "https://hopsworks.example.com/project"}, "without path, query or user"),
            ({"host": "http://example.com"}, "allow_http"),
        ],
    )
    def test_says_what_is_wrong(
        self, serving: LocalServing, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], message: str
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", json.dumps(json.loads(serving.connection) | change))

        works, said = HsmlHook().test_connection()

        assert not works
        assert message in said

    @pytest.mark.parametrize(
        ("fault", "message"),
        [
            (RequestFault(delay=2), "no answer within 1 s. Check the connection's host and port"),
            (RequestFault(status=503, body="later"), "such as a proxy. It began: 'later'. Check the connection's host"),
            (RequestFault(status=302, headers={"location": "https://h.example"}), "Put the host that answers into the"),
        ],
        ids=["slow", "a proxy", "elsewhere"],
    )
    def test_is_tried_once(
        self, hook: HsmlHook, serving: LocalServing, monkeypatch: pytest.MonkeyPatch, fault: RequestFault, message: str
    ) -> None:
        """Somebody waits for it. What is asked again is answered."""
        monkeypatch.setattr("airflow_provider_hsml.hooks.base._TEST_SECONDS", 1.0)
        serving.faults.add(fault)

        works, said = hook.test_connection()

        assert not works
        assert message in said

    def test_without_model_serving(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from airflow_provider_hsml.local import Administration, LocalServing

        administration = Administration({"enable_data_science_profile": "false"})
        with LocalServing(engine=lambda _: lambda rows: rows, administration=administration) as off:
            monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", off.connection)
            works, said = HsmlHook().test_connection()

        assert not works
        assert "has no Model Serving" in said

    def test_of_another_type_with_the_same_fields(self, serving: LocalServing, monkeypatch: pytest.MonkeyPatch) -> None:
        fields = json.loads(serving.connection) | {"conn_type": "hopsworks"}
        monkeypatch.setenv("AIRFLOW_CONN_HOPSWORKS_DEFAULT", json.dumps(fields))

        assert HsmlHook("hopsworks_default").test_connection()[0]

    def test_the_environment_where_there_is_none(self, serving: LocalServing, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AIRFLOW_CONN_HSML_DEFAULT")
        monkeypatch.setenv("REST_ENDPOINT", serving.url)
        monkeypatch.setenv("HOPSWORKS_PROJECT_NAME", "example")
        monkeypatch.setenv("HOPSWORKS_API_KEY", serving.api_key)

        assert HsmlHook().test_connection()[0]

    def test_the_environment_is_not_mixed_with_a_connection(
        self, serving: LocalServing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The environment's key must not go to a connection's host."""
        fields = json.loads(serving.connection) | {"password": ""}
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", json.dumps(fields))
        monkeypatch.setenv("HOPSWORKS_HOST", "elsewhere.example")
        monkeypatch.setenv("HOPSWORKS_API_KEY", serving.api_key)

        with pytest.raises(InvalidInputError, match="no API key"):
            _ = HsmlHook().access

    def test_neither(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AIRFLOW_CONN_HSML_DEFAULT", raising=False)

        with pytest.raises(InvalidInputError, match="set HOPSWORKS_HOST"):
            _ = HsmlHook().access

    @pytest.mark.parametrize(
        ("conn_id", "environment", "message"),
        [
            ("hsml_defualt", {}, "connection 'hsml_defualt': Airflow has no such connection"),
            ("hsml_default", {"AIRFLOW_CONN_HSML_DEFAULT": "{broken"}, "AIRFLOW_CONN_HSML_DEFAULT is set, but"),
            ("hsml_default", {"AIRFLOW_CONN_HSML_DEFAULT": "hsml://h:port"}, "AIRFLOW_CONN_HSML_DEFAULT is set, but"),
            ("hsml_default", {"AIRFLOW_CONN_HSML_DEFAULT": ""}, "AIRFLOW_CONN_HSML_DEFAULT is set, but"),
            ("hsml_default", {"AIRFLOW_CONN__RED___HSML_DEFAULT": "{"}, "AIRFLOW_CONN__RED___HSML_DEFAULT is set, but"),
            ("hsml_default", {"AIRFLOW__SECRETS__BACKEND": f"{__name__}.Failing"}, "neither the secrets backend"),
            ("hsml_default", {"AIRFLOW__WORKERS__SECRETS_BACKEND": f"{__name__}.Failing"}, "neither the secrets backe"),
        ],
    )
    def test_the_environment_stands_in_for_nothing_else(
        self,
        serving: LocalServing,
        monkeypatch: pytest.MonkeyPatch,
        conn_id: str,
        environment: dict[str, str],
        message: str,
    ) -> None:
        """Inside Hopsworks the environment is complete: a task with another connection would write to its project."""
        monkeypatch.delenv("AIRFLOW_CONN_HSML_DEFAULT")
        inside = {"REST_ENDPOINT": serving.url, "HOPSWORKS_PROJECT": "example", "HOPSWORKS_API_KEY": serving.api_key}
        for name, value in (inside | environment).items():
            monkeypatch.setenv(name, value)

        with pytest.raises(InvalidInputError, match=message) as caught:
            _ = HsmlHook(conn_id).access
        assert f"connection {conn_id!r}" in str(caught.value)
        assert serving.api_key not in str(caught.value)
        with pytest.raises(InvalidInputError, match=message):
            asyncio.run(connect(conn_id))
        works, said = HsmlHook(conn_id).test_connection()
        assert not works
        assert "This connection" in said

    @pytest.mark.filterwarnings("ignore:Using Connection.get_connection_from_secrets:DeprecationWarning")
    @pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 has no API server between a task and the database")
    @pytest.mark.parametrize(
        ("said", "message"),
        [
            ("API_SERVER_ERROR", r"Airflow .*\(\w+\)"),
            ("GENERIC_ERROR", r"Airflow .*\(\w+\)"),
            (ConnectionError(), r"Airflow .*\(ConnectionError\)"),
            ("CONNECTION_NOT_FOUND", ""),
        ],
    )
    def test_the_environment_stands_in_only_if_the_api_server_says_not_found(
        self, inside: None, monkeypatch: pytest.MonkeyPatch, said: str | Exception, message: str
    ) -> None:
        from airflow.sdk.execution_time import task_runner

        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Supervisor(said), raising=False)
        if not message:
            assert HsmlHook().access.project == "of_the_environment"
            return

        with pytest.raises(HopsworksError, match=message) as caught:
            _ = HsmlHook().access
        assert caught.value.transient
        with pytest.raises(HopsworksError, match=message):
            asyncio.run(connect("hsml_default"))

    def test_the_environment_does_not_stand_in_while_the_database_fails(
        self, inside: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")  # In its other processes, Airflow 3 asks no database.
        monkeypatch.setattr("airflow.settings.engine", create_engine("sqlite:////nowhere/airflow.db"))

        with pytest.raises(HopsworksError, match=r"failed to look it up \(OperationalError\)") as caught:
            _ = HsmlHook().access
        assert caught.value.transient

    @pytest.mark.parametrize("kind", ["postgres", "aws", "ssh"])
    def test_a_connection_of_another_system_is_refused(
        self, serving: LocalServing, monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        """A misspelled id would send that system's password to its host."""
        fields = json.loads(serving.connection) | {"conn_type": kind}
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps(fields))

        with pytest.raises(InvalidInputError, match=f"'other': it is of the type '{kind}'.*\nCorrect 'hsml_conn_id'"):
            _ = HsmlHook("other").access

    def test_a_uri_as_the_id_is_not_repeated(self) -> None:
        with pytest.raises(HopsworksError) as caught:
            _ = HsmlHook("hsml://:another.pastedpart@h.example/?project=example").access
        assert "pastedpart" not in str(caught.value)

    @pytest.mark.parametrize("extra", ["prefix.secretpart", '["prefix.secretpart"]', '"prefix.secretpart"', "[" * 9999])
    def test_an_extra_that_is_no_object(
        self, monkeypatch: pytest.MonkeyPatch, extra: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        fields = {
            "conn_type": "hsml",
            "host": "h.example",
            "port": None,
            "password": "x.y",
            "schema": None,
            "extra": extra,
        }
        connection = SimpleNamespace(conn_id="typed", **fields)  # Airflow itself warns of such an extra, or fails.
        monkeypatch.setattr(HsmlHook, "get_connection", lambda *_: connection)

        with pytest.raises(InvalidInputError, match="'typed', field 'extra': expected a JSON object") as caught:
            _ = HsmlHook("typed").access
        assert "secretpart" not in str(caught.value) + caplog.text

    def test_an_error_of_airflow_is_ours_and_not_repeated(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Airflow's own message for a URI that it cannot parse is the whole URI."""

        def fail(*_: object) -> None:
            message = "Invalid connection string: hsml://:prefix.secretpart@h"
            raise ValueError(message)

        monkeypatch.setattr(HsmlHook, "get_connection", fail)

        with pytest.raises(
            HopsworksError, match=r"connection 'hsml_default': Airflow cannot read it \(ValueError\)"
        ) as c:
            _ = HsmlHook().access
        assert "secretpart" not in str(c.value)
        assert c.value.__cause__ is None
        assert c.value.transient

    @pytest.mark.parametrize("works", [True, False])
    def test_a_misspelled_extra_is_named(
        self, serving: LocalServing, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, works: bool
    ) -> None:
        fields = json.loads(serving.connection)
        fields["extra"] |= {"verfy": "prefix.secretpart", "unrelated": 1}
        fields |= {} if works else {"port": 1}
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", json.dumps(fields))

        worked, said = HsmlHook().test_connection()

        assert worked is works
        for text in (said, caplog.text):
            assert "Extra 'verfy' is unknown and ignored; did you mean 'verify'?" in text
            assert "unrelated" not in text
            assert "secretpart" not in text

    def test_over_tls(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from airflow_provider_hsml.local import LocalServing

        with LocalServing(tls=True, engine=lambda _: lambda rows: rows) as secure:
            monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", secure.connection)
            assert HsmlHook().test_connection()[0]

            fields = json.loads(secure.connection)
            untrusting = fields | {"extra": {"project": "example"}}
            monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", json.dumps(untrusting))
            works, said = HsmlHook().test_connection()
            assert not works
            assert "ca_bundle" in said

    def test_the_key_is_masked(self, hook: HsmlHook, monkeypatch: pytest.MonkeyPatch) -> None:
        masked: list[str] = []
        monkeypatch.setattr("airflow_provider_hsml.connection.mask_secret", masked.append)

        assert hook.access.key in masked
        assert hook.access.key.rpartition(".")[2] in masked

    def test_a_renewed_key_is_masked_too(
        self, serving: LocalServing, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Inside Hopsworks the key is renewed in its file, and read anew after a 401."""
        masked: list[str] = []
        monkeypatch.setattr("airflow_provider_hsml.connection.mask_secret", masked.append)
        (tmp_path / "api.key").write_text("old.expired")
        monkeypatch.delenv("AIRFLOW_CONN_HSML_DEFAULT")
        for name, value in (
            ("REST_ENDPOINT", serving.url),
            ("SECRETS_DIR", tmp_path),
            ("HOPSWORKS_PROJECT", "example"),
        ):
            monkeypatch.setenv(name, str(value))
        hook = HsmlHook()
        assert hook.access.key == "old.expired"
        (tmp_path / "api.key").write_text(serving.api_key)

        hook.get_deployments()

        assert {serving.api_key, serving.api_key.rpartition(".")[2]} <= set(masked)

    def test_with_the_token_of_a_job_all_goes_but_predictions(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Inside Hopsworks, where no key lies beside it; it is renewed in its file."""
        from airflow_provider_hsml.local import AccessOptions, LocalServing

        token = tmp_path / "token.jwt"
        token.write_text("an.expired.token")
        access = AccessOptions(tokens=["a.session.token"])
        with LocalServing(engine=lambda _: lambda rows: rows, access=access) as inside:
            inside.world.register_model("tokened", {"model.joblib": b""})
            for name, value in (
                ("REST_ENDPOINT", inside.url),
                ("SECRETS_DIR", tmp_path),
                ("HOPSWORKS_PROJECT", "example"),
            ):
                monkeypatch.setenv(name, str(value))
            monkeypatch.delenv("AIRFLOW_CONN_HSML_DEFAULT", raising=False)
            hook = HsmlHook()
            assert "Check the API key" in hook.test_connection()[1]
            _ = hook.access
            token.write_text("a.session.token")

            hook.save_deployment(deployment_name="tokened", model_name="tokened")
            assert hook.start_deployment("tokened").status == "Running"
            with pytest.raises(
                RequestRefusedError, match="Predictions take an API key, not a token: set HOPSWORKS_API_KEY"
            ):
                hook.predict("tokened", instances=[[1]])
            hook.client.close()


class TestModels:
    def test_look_up(self, hook: HsmlHook, serving: LocalServing, register: Callable[..., int]) -> None:
        register("hooked", 1, accuracy=0.7)
        register("hooked", 2, accuracy=0.6)
        register("hooked", 3)

        assert [model.version for model in hook.get_models("hooked")] == [1, 2, 3]
        assert hook.get_model("hooked").version == 3
        assert hook.get_model("hooked", 2).metrics == {"accuracy": 0.6}
        serving.requests.clear()
        assert hook.get_best_model("hooked", "accuracy", "max").version == 1
        assert len(serving.requests) == 1
        assert hook.get_best_model("hooked", "accuracy", "min").version == 2

    def test_best_where_the_server_does_not_sort(
        self, hook: HsmlHook, register: Callable[..., int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for accuracy in (0.1, 0.9, 0.5):
            register("unsorted", 1, accuracy=accuracy)
        real = api.get_models
        monkeypatch.setattr(api, "get_models", lambda project, name, **_: real(project, name))

        assert hook.get_best_model("unsorted", "accuracy", "max").version == 2
        assert hook.get_best_model("unsorted", "accuracy", "min").version == 1

    def test_best_by_a_metric_that_nobody_has(self, hook: HsmlHook, register: Callable[..., int]) -> None:
        """The server returns a version all the same."""
        register("metricless", 1, accuracy=0.7)

        with pytest.raises(InvalidInputError, match="metrics there: accuracy"):
            hook.get_best_model("metricless", "f1", "max")
        with pytest.raises(NotFoundError, match="Model 'nothere' is not in the registry"):
            hook.get_best_model("nothere", "f1", "max")
        with pytest.raises(InvalidInputError, match="direction"):
            hook.get_best_model("metricless", "accuracy", "up")

    def test_delete(self, hook: HsmlHook, register: Callable[..., int]) -> None:
        register("doomed", 1)

        hook.delete_model("doomed", 1)
        hook.delete_model("doomed", 1)
        hook.delete_model("neverwas", 1)
        with pytest.raises(NotFoundError):
            hook.get_model("doomed")

    def test_register(self, hook: HsmlHook, model_file: Callable[..., Path]) -> None:
        model = hook.register_model(model_name="mine", model_path=model_file(answer=1), framework="SKLEARN")

        assert hook.model_url(model) == f"{hook.access.url}/p/119/models/mine/1"

    def test_tags(self, hook: HsmlHook, model_file: Callable[..., Path]) -> None:
        registered = hook.register_model(
            model_name="tagged",
            model_path=model_file(answer=1),
            framework="SKLEARN",
            tags={"approval": {"by": "me"}, "stage": "test"},
        )

        assert registered.tags == {"approval": {"by": "me"}, "stage": "test"}
        hook.set_model_tag("tagged", 1, "stage", "production")
        assert hook.get_model_tags("tagged", 1) == {"approval": {"by": "me"}, "stage": "production"}
        with pytest.raises(NotFoundError, match="Version 2 of model 'tagged'"):
            hook.get_model_tags("tagged", 2)
        with pytest.raises(NotFoundError, match="Version 2 of model 'tagged'"):
            hook.set_model_tag("tagged", 2, "stage", "x")

    def test_download(self, hook: HsmlHook, model_file: Callable[..., Path], tmp_path: Path) -> None:
        path = model_file(answer=1)
        (path / "deep").mkdir()
        (path / "deep" / "er.txt").write_text("more")
        hook.register_model(model_name="fetched", model_path=path, framework="SKLEARN", input_example=[[1]])

        folder = hook.download_model("fetched", folder=tmp_path / "new" / "place")
        assert {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()} == {
            "model.joblib",
            "deep/er.txt",
        }
        assert (folder / "deep" / "er.txt").read_text() == "more"


class TestDeployments:
    def test_a_life(self, hook: HsmlHook, serving: LocalServing, register: Callable[..., int]) -> None:
        register("lively", 1)
        saved = hook.save_deployment(
            {"resources": {"limits": {"memory": 2048}}}, deployment_name="lively", model_name="lively"
        )

        assert saved.name == "lively"
        assert hook.start_deployment("lively", poll_interval=0.1).status.value == "Running"
        found = hook.get_deployment("lively")
        assert resource(hook, "lively")["predictorResources"]["limits"]["memory"] == 2048
        assert hook.get_deployment_by_id(found.id) == found
        assert hook.get_deployment_state("lively") == "Running"
        assert "lively" in [deployment.name for deployment in hook.get_deployments()]
        assert [deployment.name for deployment in hook.get_deployments(model_name="lively")] == ["lively"]
        assert hook.get_deployments(model_name="lively", status="Stopped") == []
        assert list(hook.get_deployment_logs("lively"))
        assert hook.predict("lively", inputs=[0]) == {"predictions": [1]}
        serving.requests.clear()
        assert hook.predict("lively", inputs=[0]) == {"predictions": [1]}
        assert len(serving.requests) == 1, "what it serves was looked at before"
        hook.save_deployment({"resources": {"requests": {"cores": 1}}}, deployment_name="lively")
        assert hook.start_deployment("lively", poll_interval=0.1).status == "Running"
        assert resource(hook, "lively")["predictorResources"]["requests"]["cores"] == 1

        stopped = hook.stop_deployment("lively", poll_interval=0.1)
        assert stopped is not None
        assert stopped.status.value == "Stopped"
        serving.requests.clear()
        assert hook.get_deployment_logs("lively") == {}
        assert changes(serving) == []
        assert hook.delete_deployment("lively") is not None
        assert hook.delete_deployment("lively") is None

    @pytest.mark.parametrize("fault", [None, RequestFault("GET", "**/journal/**", status=200, body="<a>", times=None)])
    def test_a_prediction_of_a_stopped_deployment_ends_with_the_hint(
        self,
        hook: HsmlHook,
        serving: LocalServing,
        register: Callable[..., int],
        monkeypatch: pytest.MonkeyPatch,
        fault: RequestFault | None,
    ) -> None:
        """Also while its journal cannot be read, and if it holds a change that was left pending long ago."""
        monkeypatch.setattr("airflow_provider_hsml.hopsworks.inference.predict.STOPPED_SECONDS", 0.1)
        name = f"down{fault is None}".lower()
        register(name, 1)
        hook.deploy_model(name, poll_interval=0.1)
        hook.stop_deployment(name, poll_interval=0.1)
        if fault is None:
            journal = hook.run(open_journal(hook.client.project, name))
            assert journal.newest is not None
            hook.run(journal.write(replace(journal.newest, state=EntryState.PROMOTING, at=time.time() - 9e4)))
        else:
            serving.faults.add(fault)

        begun = time.monotonic()
        with pytest.raises(DeploymentError, match="StartDeploymentOperator"):
            hook.predict(name, instances=[[0]], timeout=60)
        assert time.monotonic() - begun < 30
        serving.faults.clear()

    def test_results_hold_no_value_of_a_variable(self, hook: HsmlHook, register: Callable[..., int]) -> None:
        """A ``@task`` may return each of them: Airflow stores all fields of a dataclass."""
        register("kept", 1)
        search = Search()
        env = {"env_vars": {"TOKEN": SECRET}}
        results: dict[str, Any] = {
            "save_deployment": hook.save_deployment(env, deployment_name="kept", model_name="kept"),
            "start_deployment": hook.start_deployment("kept", poll_interval=0.1),
            "restart_deployment": hook.restart_deployment("kept", poll_interval=0.1),
            "get_deployment": hook.get_deployment("kept"),
            "get_deployment_by_id": hook.get_deployment_by_id(hook.get_deployment("kept").id),
            "get_deployments": hook.get_deployments(),
            "deploy_model": hook.deploy_model("kept", poll_interval=0.1),
            "get_models": hook.get_models("kept"),
            "get_model": hook.get_model("kept"),
        }
        with contextlib.suppress(InvalidInputError):
            results["get_deployment_versions"] = hook.get_deployment_versions("kept")
        results["stop_deployment"] = hook.stop_deployment("kept", poll_interval=0.1)
        results["delete_deployment"] = hook.delete_deployment("kept")
        for name, result in results.items():
            search.add(name, json.dumps(serialize(result), default=str))

        assert search.places_of("kept") >= {name for name, result in results.items() if result is not None}
        assert search.places_of(SECRET) == set()

    def test_what_is_not_there(self, hook: HsmlHook) -> None:
        with pytest.raises(NotFoundError, match="Deployment 'nothere' does not exist in project 'example'; there are:"):
            hook.get_deployment("nothere")
        with pytest.raises(NotFoundError, match="no deployment with id 99999"):
            hook.get_deployment_by_id(99999)
        with pytest.raises(InvalidInputError, match="component: expected one of"):
            hook.get_deployment_logs("nothere", component="sidecar")
        assert hook.stop_deployment("nothere") is None


def test_a_flow_is_closed_when_its_driver_fails_before_the_first_step() -> None:
    """Otherwise Python warns that it was never awaited."""

    async def flow() -> None:
        await Sleep(1)

    hook = HsmlHook("nosuchconnection")
    never_begun = flow()
    with pytest.raises(InvalidInputError):
        hook.run(never_begun)

    assert inspect.getcoroutinestate(never_begun) == inspect.CORO_CLOSED


@pytest.mark.usefixtures("serving")
@pytest.mark.parametrize("name", [None, "", "a b", 3])
def test_a_name_that_is_none_is_no_name_of_every_model(hook: HsmlHook, tmp_path: Path, name: Any) -> None:
    for read in (
        lambda: hook.get_models(name),
        lambda: hook.get_model(name),
        lambda: hook.get_best_model(name, "accuracy", "max"),
        lambda: hook.download_model(name, folder=tmp_path),
        lambda: hook.delete_model_versions(name),
    ):
        with pytest.raises(InvalidInputError, match="Model name"):
            read()


@pytest.mark.usefixtures("serving")
def test_candidates_of_another_model(hook: HsmlHook) -> None:
    candidates = [{"model_name": "other", "model_version": 3}]

    with pytest.raises(InvalidInputError, match="candidates: expected versions of model 'mine', got 'other'"):
        hook.deploy_best_model("mine", "accuracy", "max", candidates=candidates)


@pytest.mark.usefixtures("serving")
@pytest.mark.parametrize("project", ["", 0, False])
def test_a_project_that_is_empty_is_not_the_connections(project: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^project: expected the name of a Hopsworks project"):
        HsmlHook(project=project).get_deployments()


VERBS: dict[str, Callable[[HsmlHook], object]] = {
    "stop": lambda hook: hook.stop_deployment("digits", timeout=1, poll_interval=0.5),
    "delete": lambda hook: hook.delete_deployment("digits", timeout=1, poll_interval=0.5),
    "start": lambda hook: hook.start_deployment("digits", timeout=1, poll_interval=0.5),
    "restart": lambda hook: hook.restart_deployment("digits", timeout=1, poll_interval=0.5),
    "save": lambda hook: hook.save_deployment(deployment_name="digits", model_name="digits", timeout=1),
    "deploy": lambda hook: hook.deploy_model("digits", 1, timeout=1, poll_interval=0.5),
    "deploy best": lambda hook: hook.deploy_best_model("digits", "accuracy", "max", timeout=1, poll_interval=0.5),
    "roll back": lambda hook: hook.rollback_deployment("digits", timeout=1, poll_interval=0.5),
    "predict": lambda hook: hook.predict("digits", instances=[[1]], timeout=1),
}


@pytest.mark.parametrize("first", ["getProjectInfo", "serving", "journal", "modelregistries"])
@pytest.mark.parametrize("verb", VERBS)
def test_look_ups_end_by_the_timeout(verb: str, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the server asks for a retry after half a minute, again and again."""

    def answer(request: Request) -> tuple[int, dict[str, str], bytes]:
        if first in request.path or request.command != "GET":
            return 503, {"retry-after": "30"}, b"busy"
        if "getProjectInfo" in request.path:
            return 200, {}, json.dumps({"projectId": 119, "projectName": "example"}).encode()
        if "modelregistries" in request.path:
            model = {"id": "digits_1", "name": "digits", "version": 1, "metrics": {"accuracy": 1}}
            listed = {"count": 1, "items": [model]}
            return 200, {}, json.dumps(model if "digits_1" in request.path else listed).encode()
        if "dataset" in request.path:
            return 404, {}, json.dumps({"errorCode": 110008}).encode()
        return 200, {}, json.dumps(row("Stopped")).encode()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        time.sleep(min(seconds, 1.0))

    slept: list[float] = []
    with serving_at(answer) as url:
        connection = {"conn_type": "hsml", "host": url, "password": "prefix.secret", "extra": {"project": "example"}}
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", json.dumps(connection))
        with contextlib.suppress(HopsworksError):
            VERBS[verb](HsmlHook(sleep=sleep))
    assert sum(slept) < 8
