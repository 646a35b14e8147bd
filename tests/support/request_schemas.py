"""A deployment with a request schema, as Hopsworks' SDK leaves it: default predictor, documents, variables."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import deployment_schema
from airflow_provider_hsml.hopsworks.domain.deployment_schema import DeploymentSchema
from airflow_provider_hsml.local import FeatureView

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.local import LocalServing

SAMPLES = Path(__file__).parents[1] / "samples" / "schemas"
FILES: dict[str, dict[str, str]] = json.loads((SAMPLES / "files.json").read_text())["files"]
"""What the SDK writes for each training dataset of one view."""
DOCUMENT: dict[str, Any] = json.loads(FILES["td2"]["schema"])
ENTITIES = [{"cc_num": number, "amount": 10.0 * number, "age": 30 + number} for number in (1, 2)]
VIEW = FeatureView(
    name="transactions_view",
    features={"amount": "double", "age": "bigint"},
    labels={"is_fraud": "int"},
    serving_keys={"cc_num": "bigint"},
    training_datasets=(2, 3, 4),
    entities=ENTITIES,
)
ROW = {"cc_num": 1, "amount": 2.5}
STUB = "default_predictor.py"


@dataclass
class Scene:
    """A model of a feature view, and its deployment."""

    hook: HsmlHook
    serving: LocalServing
    name: str
    model_file: Callable[..., Path]
    schema: DeploymentSchema = field(default_factory=lambda: DeploymentSchema.read(DOCUMENT, "sample"))

    def register(self, dataset: int | None, answer: Any = 1, **more: Any) -> int:
        """Register a version that was trained on a training dataset, and give its number."""
        given = {"feature_view": VIEW.name, "training_dataset_version": dataset, "input_example": [ROW]} | more
        return self.hook.register_model(
            model_name=self.name, model_path=self.model_file(answer=answer), framework="PYTHON", **given
        ).version

    def write(self, path: str, content: str | bytes) -> None:
        """Write a file of the deployment."""
        files = self.serving.world.project(self.serving.project_id).files
        files.write(
            f"Deployments/{self.name}/resources/{path}", content if isinstance(content, bytes) else content.encode()
        )

    def written(self, schema_id: str) -> dict[str, str]:
        """Give the documents of a schema, by their endings."""
        files = self.serving.world.project(self.serving.project_id).files
        folder = f"Deployments/{self.name}/resources/schema/{schema_id}"
        endings = {form: f"{folder}{ending}" for form, ending in deployment_schema.FORMATS.items()}
        return {form: files.read(path).read_text() for form, path in endings.items() if files.exists(path)}

    def publish(self, **changes: Any) -> DeploymentSchema:
        """Write the documents of a schema, as the SDK does before its PUT."""
        self.schema = DeploymentSchema.read({**DOCUMENT, **changes}, "sample")
        self.write(f"schema/{self.schema.id}.json", self.schema.render())
        self.write(f"schema/{self.schema.id}.jsonschema.json", FILES["td2"]["jsonschema"])
        self.write(f"schema/{self.schema.id}.openapi.json", self.theirs("td2")["openapi"])
        return self.schema

    def theirs(self, sample: str) -> dict[str, str]:
        """Give the documents that the SDK writes for this deployment."""
        openapi = FILES[sample]["openapi"].replace("models/fraud:", f"models/{self.name}:")
        openapi = openapi.replace("deployment fraud", f"deployment {self.name}")
        return {form: FILES[sample][form] for form in ("schema", "jsonschema")} | {"openapi": openapi}

    def deploy(self, version: int, *, script: str = STUB, own: tuple[str, ...] = (), **fields: Any) -> None:
        """Create and start the deployment of a version, with the schema that was published last."""
        project = self.hook.client.project
        path = f"/Projects/{project.name}/Deployments/{self.name}/resources/predictor/{script}"
        self.write(f"predictor/{script}", "# the SDK's stub")
        body: dict[str, Any] = {
            "name": self.name,
            "modelName": self.name,
            "modelPath": f"/Projects/{project.name}/Models/{self.name}",
            "modelVersion": version,
            "modelFramework": "PYTHON",
            "modelServer": "PYTHON",
            "servingTool": "KSERVE",
            "requestedInstances": 1,
            "predictor": path,
            "predictorEnvVars": [*own],
            **fields,
        }
        deployment_schema.write_variables(body, self.schema.variables())
        self.hook.client.send(api.put_deployment(project, body))
        self.hook.start_deployment(self.name, timeout=30, poll_interval=0.05)

    def variables(self, component: str = "predictor") -> dict[str, str]:
        """Give the variables of the live deployment."""
        found = self.hook.client.send(api.get_deployment(self.hook.client.project, self.name))
        assert found is not None
        return deployment_schema.variables_of(found.raw, component)

    @property
    def status(self) -> str:
        """The deployment's status."""
        return self.hook.get_deployment_state(self.name)


def declare(serving: LocalServing, **changes: Any) -> None:
    """Declare the feature view of the scene."""
    serving.world.declare(replace(VIEW, **changes))
