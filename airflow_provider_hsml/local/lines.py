"""
Hopsworks release lines (3.7, 4.6, 5.2): one ``Line`` for each that the server can emulate, a table of differences.

Code for behaviour that differs between releases checks an attribute of the line, never a version number.
"""

from __future__ import annotations

from dataclasses import dataclass

_FIELD_SINCE: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("apiProtocol", "environmentDTO", "projectNamespace"), (4, 0)),
    "configFile": (4, 2),
    **dict.fromkeys(("version", "predictorScalingConfig", "transformerScalingConfig"), (4, 6)),
    **dict.fromkeys(("predictorEnvVars", "transformerEnvVars", "vllmVariant", "vllmImageTag"), (4, 8)),
    **dict.fromkeys(("tags", "missingMandatoryTags", "tracing", "gitUrl", "gitProvider", "gitBranch"), (5, 0)),
    **dict.fromkeys(("gitCurrentCommit", "gitResolvedBranch"), (5, 0)),
    "gitAutoRedeploy": (5, 1),
    **dict.fromkeys(("predictorEnvironment", "transformerEnvironment", "featureLogging", "knativeMode"), (5, 2)),
}
"""The line that introduced a field of a deployment; fields that are missing here are older than 3.7."""
_SCALING_SINCE: dict[str, tuple[int, int]] = dict.fromkeys(
    (
        *("autoscaler", "scaleDownStabilizationWindowSeconds", "scaleUpStabilizationWindowSeconds"),
        *("additionalScaleMetrics", "idleScaleToZero", "idleCooldownSeconds", "coldStartTimeoutSeconds"),
    ),
    (5, 2),
)
"""The same for the fields of a scaling configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """
    The properties of a release line of Hopsworks.

    :param number: (major, minor)
    :param has_artifacts: a deployment serves a numbered artifact of its model, below the model's version
    :param is_model_free: deployments without a model are supported
    :param servers: the supported model servers
    :param frameworks: the supported frameworks
    :param counts_lists: lists are ``{count, items}``, not bare
    :param locks_rollouts: STOP, PUT and DELETE are refused during a rollout
    :param lower_case_names: names of KServe deployments must be in lower case
    :param one_model_file: a scikit-learn model with more than one file to load is refused by PUT, not by START
    :param has_files_folder: a model's files are in ``Files`` below its version, not in the version's own folder
    :param limit_cores: the default limit of CPU cores
    :param endpoint_types: the types of inference endpoints
    :param ingress_by_path: the ingress routes by path; otherwise by the Host header only
    """

    number: tuple[int, int]
    has_artifacts: bool = False
    is_model_free: bool = True
    servers: tuple[str, ...] = ("TENSORFLOW_SERVING", "PYTHON", "VLLM")
    frameworks: tuple[str, ...] = ("TENSORFLOW", "TORCH", "PYTHON", "SKLEARN", "LLM")
    counts_lists: bool = False
    locks_rollouts: bool = False
    lower_case_names: bool = False
    one_model_file: bool = False
    has_files_folder: bool = True
    limit_cores: float = 2
    endpoint_types: tuple[str, ...] = ("LOAD_BALANCER", "KUBE_CLUSTER")
    ingress_by_path: bool = True

    @property
    def release(self) -> str:
        """The version that the server reports."""
        return f"{self.number[0]}.{self.number[1]}.0"

    @property
    def has_versions(self) -> bool:
        """Whether a deployment keeps its earlier versions for a rollback."""
        return self.number >= (5, 2)

    def knows(self, field: str) -> bool:
        """Return whether a deployment has this field."""
        if field == "artifactVersion":
            return self.has_artifacts
        return _FIELD_SINCE.get(field, (0, 0)) <= self.number

    def knows_scaling(self, field: str) -> bool:
        """Return whether a scaling configuration has this field."""
        return _SCALING_SINCE.get(field, (0, 0)) <= self.number


LINES = {
    "3.7": Line(
        number=(3, 7),
        has_artifacts=True,
        is_model_free=False,
        servers=("TENSORFLOW_SERVING", "PYTHON"),
        frameworks=("TENSORFLOW", "TORCH", "PYTHON", "SKLEARN"),
        locks_rollouts=True,
        lower_case_names=True,
        one_model_file=True,
        has_files_folder=False,
        limit_cores=1,
        endpoint_types=("LOAD_BALANCER", "NODE"),
        ingress_by_path=False,
    ),
    "4.6": Line(number=(4, 6), counts_lists=True, ingress_by_path=False),
    "5.2": Line(number=(5, 2)),
}
"""The lines, by the version that users pass."""
