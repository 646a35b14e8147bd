"""The settings of a cluster's administrators: variables, quotas, Kafka topics, tag schemas."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.local.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

_VARIABLES = {
    "enable_data_science_profile": "true",
    "kube_kserve_installed": "true",
    "kube_serving_min_num_instances": "-1",
    "kube_serving_max_num_instances": "10",
    "kube_serving_max_cores_allocation": "-1",
    "kube_serving_max_memory_allocation": "-1",
    "kube_serving_max_gpus_allocation": "-1",
    "kube_knative_domain_name": "hopsworks.local",
    "upload_policy": "enabled",
}
_FOR_ADMINISTRATORS = frozenset({"kube_user", "kube_master_url", "kube_ca_certfile", "kube_client_certfile"})
SCHEMA_OF_LOGS = "inferenceschema"
"""The required schema of an inference logger's topic."""


@dataclass(frozen=True, slots=True)
class Quota:
    """
    The limits on the number of deployments and executions of a project. None for no limit.

    :param deployments: in any status
    :param running: started and not stopped; a Failed one counts
    :param executions: of all jobs together, ended ones as well: when they are used up, the project has no credits left
    """

    deployments: int | None = None
    running: int | None = None
    executions: int | None = None


@dataclass(frozen=True, slots=True)
class Administration:
    """
    The settings of a cluster's administrators.

    :param variables: the cluster's variables that differ from the defaults, by name; may be changed while it runs
    :param quota: of each project
    :param kafka_topics: the existing topics of each project, with their schemas
    :param tag_schemas: JSON schemas by the name of the tag; None if every tag may have any value
    """

    variables: dict[str, str] = field(default_factory=dict)
    quota: Quota = Quota()
    kafka_topics: Mapping[str, str] = field(default_factory=dict)
    tag_schemas: Mapping[str, Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "variables", {**_VARIABLES, **self.variables})
        self.bounds()

    def variable(self, name: str) -> str:
        """Return the value of a variable to a user; refuse one that is unknown or for administrators only."""
        if name in _FOR_ADMINISTRATORS:
            raise Refusal(200014, f"Variable {name} is for administrators only.")
        value = self.variables.get(name)
        if value is None:
            raise Refusal(100050, f"Variable {name} not found.")
        return value

    def is_on(self, variable: str) -> bool:
        """Return whether a variable is "true"."""
        return self.variables.get(variable) == "true"

    def bounds(self) -> tuple[int | None, int | None]:
        """Return the minimum and the maximum number of instances; None for no bound."""
        bounds = []
        for end in ("min", "max"):
            name = f"kube_serving_{end}_num_instances"
            try:
                number = int(self.variables.get(name, "-1"))
            except ValueError:
                raise ValueError(f"variable {name}: expected a number, -1 for no bound.") from None
            bounds.append(None if number == -1 else number)
        return bounds[0], bounds[1]
