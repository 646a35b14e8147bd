"""Projects, and the cluster's variables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .asking import PROJECT, ApiRoute, Asking, json_answer

if TYPE_CHECKING:
    from starlette.responses import Response

    from airflow_provider_hsml.local.world.world import World


def _versions_of_software(asking: Asking) -> Response:
    return json_answer([{"software": "hopsworks", "version": asking.world.line.release}])


def _variable(asking: Asking) -> Response:
    return json_answer({"successMessage": asking.world.administration.variable(asking.param("name"))})


def _projects(asking: Asking) -> Response:
    user = {"uid": 10000, "username": "local000", "fname": "Local", "lname": "User", "email": "local@localhost"}
    mine = [project for project in asking.world.accounts.projects if not project.is_foreign]
    return json_answer(
        [
            {
                "project": {"id": project.id, "name": project.name, "owner": {"uid": 10000}},
                "user": user,
                "teamRole": asking.world.accounts.role(asking.request.headers.get("authorization", "")),
            }
            for project in mine
        ],
    )


def _project_by_name(asking: Asking) -> Response:
    return json_answer(_project_on_the_wire(asking.world, asking.world.accounts.by_name(asking.param("name")).id))


def _project_by_id(asking: Asking) -> Response:
    return json_answer(_project_on_the_wire(asking.world, asking.param("project")))


def _project_on_the_wire(world: World, project_id: int) -> dict[str, Any]:
    project = world.project(project_id).project
    return {
        "projectId": project.id,
        "projectName": project.name,
        "owner": "local@localhost",
        "description": "A project of the local Model Serving",
        "services": ["DATASETS", "MODELREGISTRY", "SERVING"],
        **({"namespace": project.namespace} if world.line.knows("projectNamespace") else {}),
    }


ROUTES = [
    ApiRoute("GET", "/variables/versions", (), _versions_of_software),
    ApiRoute("GET", "/variables/{name}", ("PROJECT",), _variable),
    ApiRoute("GET", "/project", ("PROJECT",), _projects),
    ApiRoute("GET", "/project/getProjectInfo/{name}", ("PROJECT",), _project_by_name),
    ApiRoute("GET", PROJECT, ("PROJECT",), _project_by_id),
]
