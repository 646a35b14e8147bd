"""What Airflow and users see of the package: names, arguments, and what an import costs."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from airflow.providers.common.compat.sdk import BaseOperator, BaseSensorOperator

import airflow_provider_hsml
from airflow_provider_hsml import HsmlHook, hopsworks, operators, sensors, triggers
from airflow_provider_hsml.hopsworks.domain.access import EXTRA_KEYS
from airflow_provider_hsml.provider_info import CONNECTION_FIELDS, UI_FIELD_BEHAVIOUR, get_provider_info

pytestmark = pytest.mark.airflow

PACKAGE = Path(airflow_provider_hsml.__file__).parent
TASKS = [getattr(module, name) for module in (operators, sensors) for name in module.__all__]
MARKER = "LOADED="


def loaded_by(code: str) -> set[str]:
    """Run code in a Python of its own, and give the modules that it has loaded at the end."""
    script = f"{code}\nimport json, sys\nprint({MARKER!r} + json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith(MARKER))
    return set(json.loads(line.removeprefix(MARKER)))


class TestProviderInfo:
    def test_is_what_airflow_expects(self) -> None:
        schema = json.loads((files("airflow") / "provider_info.schema.json").read_text())

        jsonschema.validate(get_provider_info(), schema)

    def test_airflow_discovers_it(self) -> None:
        from airflow.providers_manager import ProvidersManager

        provider = ProvidersManager().providers["airflow-provider-hsml"]  # type: ignore[no-untyped-call]

        assert provider.data["connection-types"][0]["connection-type"] == "hsml"
        assert provider.data["asset-uris"] == provider.data["dataset-uris"], "Airflow 2 reads the second"
        assert provider.version == airflow_provider_hsml.__version__

    def test_the_form_has_the_fields_that_are_read(self) -> None:
        assert tuple(CONNECTION_FIELDS) == EXTRA_KEYS
        for field in CONNECTION_FIELDS.values():
            assert "null" in field["schema"]["type"], "Airflow shows a field that cannot be null as required"

    def test_every_field_has_a_placeholder_its_default_where_it_has_one(self) -> None:
        shown = UI_FIELD_BEHAVIOUR["placeholders"]

        assert set(shown) == {"host", "port", "password", *CONNECTION_FIELDS}
        for name, field in CONNECTION_FIELDS.items():
            assert field["description"].endswith("."), name
            if "default" in field["schema"]:
                assert shown[name] == str(field["schema"]["default"]).lower()

    def test_older_airflows_are_told_the_same_of_the_form(self) -> None:
        """Up to 3.1 they ask the hook, and look for both methods in its own class."""
        schema = json.loads((files("airflow") / "customized_form_field_behaviours.schema.json").read_text())
        told = HsmlHook.get_ui_field_behaviour()

        assert {"get_connection_form_widgets", "get_ui_field_behaviour"} <= set(vars(HsmlHook))
        jsonschema.validate(told, schema)
        assert told["hidden_fields"] == UI_FIELD_BEHAVIOUR["hidden-fields"] == ["schema", "login"]
        assert told["relabeling"] == {"password": "API key"}
        assert told["placeholders"] == UI_FIELD_BEHAVIOUR["placeholders"]

    def test_modules_are_there(self) -> None:
        info = get_provider_info()
        named = [
            module
            for kind in ("hooks", "operators", "sensors", "triggers")
            for row in info[kind]
            for module in row["python-modules"]
        ]

        assert len(named) == 4
        for module in named:
            __import__(module)


class TestNames:
    def test_what_there_is(self) -> None:
        for name in airflow_provider_hsml.__all__:
            assert getattr(airflow_provider_hsml, name).__name__ == name
        assert set(airflow_provider_hsml.__all__) <= set(dir(airflow_provider_hsml))

    def test_all_that_the_subpackages_have_is_here(self) -> None:
        """But for what only our own tasks are deferred to."""
        for kind in (operators, sensors, triggers, hopsworks):
            missing = set(kind.__all__) - set(airflow_provider_hsml.__all__)
            inner = {"AwaitModelVersionTrigger", "JobTrigger", "RolloutTrigger"}
            assert missing == (inner if kind is triggers else set())

    def test_what_there_is_not(self) -> None:
        with pytest.raises(AttributeError, match=r"it has .*DeployBestModelOperator"):
            _ = airflow_provider_hsml.DeployModel
        with pytest.raises(AttributeError, match=r"it has .*DeploymentSpec"):
            _ = airflow_provider_hsml.hopsworks.Spec

    def test_the_dataclasses(self) -> None:
        for name in hopsworks.__all__:
            assert getattr(hopsworks, name).__name__ == name


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.__name__)
class TestArguments:
    def test_none_is_named_like_an_attribute_of_airflow(self, task: type) -> None:
        """``dry_run`` or ``on_kill`` as an argument would break killing."""
        base: Any = BaseSensorOperator if issubclass(task, BaseSensorOperator) else BaseOperator
        taken = set(dir(base)) | set(inspect.signature(BaseOperator.__init__).parameters) - {"self", "kwargs"}
        own = set(inspect.signature(task).parameters) - {"kwargs"}

        assert own & taken <= {"task_id"}

    def test_all_are_keyword_only(self, task: type) -> None:
        for argument in inspect.signature(task.__init__).parameters.values():  # type: ignore[misc]
            assert argument.name == "self" or argument.kind in (argument.KEYWORD_ONLY, argument.VAR_KEYWORD)

    def test_what_can_carry_a_template_does(self, task: Any) -> None:
        """All but how to wait, and code to call."""
        plain = {"wait_for_completion", "poll_interval", "timeout", "deferrable", "on_rollback", "on_unverified"}
        own = {
            name
            for kind in task.__mro__
            if kind.__module__.startswith("airflow_provider_hsml.") and "__init__" in vars(kind)
            for name, argument in inspect.signature(kind.__init__).parameters.items()
            if argument.kind is argument.KEYWORD_ONLY
        }

        assert own - plain == set(task.template_fields)

    def test_templated_ones_are_attributes(self, task: Any) -> None:
        required = {
            "deployment_name": "x",
            "model_name": "x",
            "model_path": "x",
            "framework": "PYTHON",
            "metric": "x",
            "direction": "max",
            "job_name": "x",
            "input": "x",
            "result_path": "x",
        }
        names = {
            name
            for kind in task.__mro__
            if "__init__" in vars(kind)
            for name in inspect.signature(kind.__init__).parameters
        }
        made = task(task_id="task", **{name: value for name, value in required.items() if name in names})

        for field in task.template_fields:
            assert hasattr(made, field)


class TestImports:
    def test_a_dag_file_loads_no_http_library(self) -> None:
        base = loaded_by(
            "from airflow.providers.common.compat.sdk import BaseHook, BaseOperator, BaseSensorOperator"
            ", BaseOperatorLink, AirflowException, AirflowFailException, AirflowNotFoundException, PokeReturnValue"
            ", conf, mask_secret"
        )
        ours = loaded_by("import airflow_provider_hsml.operators, airflow_provider_hsml.sensors")
        heavy = {
            "requests",
            "httpx",
            "httpx2",
            "urllib3",
            "sklearn",
            "numpy",
            "pandas",
            "hopsworks",
            "hsml",
            "starlette",
            "uvicorn",
        }

        added = {module.partition(".")[0] for module in ours - base}
        assert not added & heavy
        assert added <= {"airflow_provider_hsml", "difflib", "json", "threading", "ipaddress", "copy"}, added

    def test_a_watcher_loads_no_flow(self) -> None:
        """Not even the asynchronous client: the trigger of a DAG file is checked with ``domain`` alone."""
        loaded = loaded_by(
            "from airflow_provider_hsml.triggers import ModelVersionTrigger; ModelVersionTrigger(model_name='digits')"
        )
        prefix = "airflow_provider_hsml.hopsworks."

        rooms = {module.removeprefix(prefix).partition(".")[0] for module in loaded if module.startswith(prefix)}
        assert rooms == {"domain", "errors", "transport", "untrusted_text"}
        assert f"{prefix}transport.async_client" not in loaded

    def test_the_package_itself_loads_nothing(self) -> None:
        assert {module for module in loaded_by("import airflow_provider_hsml") if module.startswith("airflow")} == {
            "airflow_provider_hsml"
        }

    def test_hopsworks_needs_no_airflow(self) -> None:
        stems = [path.stem for path in (PACKAGE / "hopsworks").glob("[a-z]*") if path.is_dir() or path.suffix == ".py"]
        modules = ", ".join(f"airflow_provider_hsml.hopsworks.{stem}" for stem in stems)

        assert "airflow" not in loaded_by(f"import {modules}")
