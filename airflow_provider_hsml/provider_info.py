"""The provider's metadata, which Airflow discovers."""

from __future__ import annotations

from typing import Any

_PACKAGE = "airflow_provider_hsml"

CONNECTION_FIELDS: dict[str, dict[str, Any]] = {
    "project": {
        "label": "Project",
        "description": "Name of the Hopsworks project.",
        "schema": {"type": ["string", "null"]},
    },
    "ca_bundle": {
        "label": "CA bundle",
        "description": "Path of a PEM file to trust, if a private CA has signed the certificate of Hopsworks.",
        "schema": {"type": ["string", "null"]},
    },
    "verify": {
        "label": "Verify TLS",
        "description": "Whether to verify the server's certificate, true or false. A CA bundle is better than false.",
        "schema": {"type": ["boolean", "null"], "default": True},
    },
    "inference_route": {
        "label": "Inference route",
        "description": "hopsworks: predictions go through the REST API. istio: directly to the ingress.",
        "schema": {"type": ["string", "null"], "enum": ["hopsworks", "istio"], "default": "hopsworks"},
    },
    "ingress_url": {
        "label": "Ingress URL",
        "description": "Address of the ingress, for the route istio. "
        "If empty: the address that the server reports, if it is on the same host.",
        "schema": {"type": ["string", "null"]},
    },
    "request_timeout": {
        "label": "Request timeout",
        "description": "Seconds for one request, until the whole response has arrived.",
        "schema": {"type": ["number", "null"], "default": 60, "minimum": 1},
    },
    "write_timeout": {
        "label": "Write timeout",
        "description": "Seconds for the whole of a PUT, an upload, a copy or the start of a job. "
        "Older servers copy the model's files during a PUT.",
        "schema": {"type": ["number", "null"], "default": 300, "minimum": 1},
    },
    "max_response_mb": {
        "label": "Largest prediction response",
        "description": "MB, after unpacking. A larger response of a model is an error.",
        "schema": {"type": ["number", "null"], "default": 64, "minimum": 1},
    },
    "allow_http": {
        "label": "Allow http",
        "description": "Whether to allow plain http to a host that is not this machine, true or false. "
        "Others on the network can then read the API key.",
        "schema": {"type": ["boolean", "null"], "default": False},
    },
}
"""
The table of the connection fields beyond host, port and password, from which the form is built. Airflow stores them in
``extra``. A test keeps the names in ``hopsworks.domain.access.EXTRA_KEYS`` equal to these.
"""

UI_FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["schema", "login"],
    "relabeling": {"password": "API key"},
    "placeholders": {
        "host": "c.app.hopsworks.ai",
        "port": "443",
        "password": "scopes PROJECT, SERVING, MODELREGISTRY, DATASET_*",
        "project": "name_of_the_project",
        "ca_bundle": "/etc/ssl/hopsworks-ca.pem",
        "verify": "true",
        "inference_route": "hopsworks",
        "ingress_url": "https://ingress.example.com",
        "request_timeout": "60",
        "write_timeout": "300",
        "max_response_mb": "64",
        "allow_http": "false",
    },
}
"""The hidden and relabeled fields of the form. Airflow 3 shows no placeholders of the fields above."""


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata in the form of Airflow's ``provider_info.schema.json``."""
    name = "Hopsworks Model Serving"
    return {
        "package-name": "airflow-provider-hsml",
        "name": name,
        "description": "Take trained models to verified deployments on Hopsworks Model Serving.",
        "integrations": [
            {"integration-name": name, "external-doc-url": "https://docs.hopsworks.ai/", "tags": ["service"]}
        ],
        "hooks": [{"integration-name": name, "python-modules": [f"{_PACKAGE}.hooks"]}],
        "operators": [{"integration-name": name, "python-modules": [f"{_PACKAGE}.operators"]}],
        "sensors": [{"integration-name": name, "python-modules": [f"{_PACKAGE}.sensors"]}],
        "triggers": [{"integration-name": name, "python-modules": [f"{_PACKAGE}.triggers"]}],
        "extra-links": [
            f"{_PACKAGE}.links.{link}" for link in ("DeploymentLink", "ExecutionLink", "ModelVersionLink", "ReportLink")
        ],
        # The URIs of asset events are "hopsworks://<project>/...": Airflow 3 reads the first key, Airflow 2 the second.
        "asset-uris": [{"schemes": ["hopsworks"], "handler": None}],
        "dataset-uris": [{"schemes": ["hopsworks"], "handler": None}],
        "connection-types": [
            {
                "connection-type": "hsml",
                "hook-name": name,
                "hook-class-name": f"{_PACKAGE}.hooks.HsmlHook",
                "ui-field-behaviour": UI_FIELD_BEHAVIOUR,
                "conn-fields": CONNECTION_FIELDS,
            }
        ],
    }
