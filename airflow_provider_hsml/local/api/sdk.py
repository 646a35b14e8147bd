"""Routes that only the official SDKs use: certificates at login, a deployment's schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import FileResponse

from airflow_provider_hsml.local.errors import Refusal, malformed

from .asking import PROJECT, ApiRoute, Asking, json_answer

if TYPE_CHECKING:
    from starlette.responses import Response


_SCHEMA_FORMATS = {"schema": ".json", "jsonschema": ".jsonschema.json", "openapi": ".openapi.json"}
_SCHEMA_VARIABLE = "SERVING_SCHEMA_ID"


def _credentials(asking: Asking) -> Response:
    """
    Return the certificates that a client stores at login.

    The chain is that of this server's own certificate authority. Client certificates are not used here, so the stores
    are empty.
    """
    asking.world.project(asking.param("project"))
    bundle = asking.world.ca_bundle
    return json_answer(
        {
            "fileExtension": "jks",
            "kStore": "",
            "tStore": "",
            "password": "",
            "caChain": bundle.read_text() if bundle else "",
            "clientCert": "",
            "clientKey": "",
        }
    )


def _schema_of_deployment(asking: Asking) -> Response:
    """Return a schema document that a client has published for a deployment."""
    kind = asking.query("format", "schema")
    if kind not in _SCHEMA_FORMATS:
        raise malformed(f"format {kind!r} is not known: expected one of {', '.join(_SCHEMA_FORMATS)}.")
    deployment = asking.holdings.deployments.get(asking.param("deployment"))
    variables = dict(text.partition("=")[::2] for text in deployment["predictorEnvVars"] or [])
    schema = asking.query("schemaId") or variables.get(_SCHEMA_VARIABLE)
    if schema is None:
        raise Refusal(240037, f"Deployment {deployment['name']} has no schema.")
    path = f"Deployments/{deployment['name']}/resources/schema/{schema}{_SCHEMA_FORMATS[kind]}"
    if not asking.holdings.files.exists(path):
        raise Refusal(240037, f"Schema {schema} of deployment {deployment['name']} not found.")
    return FileResponse(asking.holdings.files.read(path), media_type="application/json")


ROUTES = [
    ApiRoute("GET", f"{PROJECT}/credentials", ("PROJECT",), _credentials),
    ApiRoute("GET", f"{PROJECT}/serving/{{deployment:int}}/schema", ("SERVING",), _schema_of_deployment, since=(5, 2)),
]
