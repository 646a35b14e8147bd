"""
The table of the doctor's checks that only read, by section of the contract.

An expectation that is certain has one answer. Where public sources leave a question open, each answer with which the
provider works is expected, and the report shows which one it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import reading
from .asking import look, look_at, send
from .check import Check, NotAskedError, always
from .known import TAGS, VERSIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from .asking import Look, Reply
    from .known import Known

NOBODY = "hsmldoctornosuchname"
"""A name that no project, model, deployment, file, job or variable has."""
NUMBER = 2147483647
"""An id that nothing has."""
_NO_ROUTE = ("404/120004", "404 without an errorCode", "404 with an empty body")
"""The answers of a Hopsworks that lacks a route."""
_ALLOWED, _NOT_ALLOWED = "allowed", "not allowed (403/320004)"
_COUNTED = ("{count, items}", "{count} without items")


# --- How requests are made --------------------------------------------------------------------------------------------


def _project(*segments: str | int, **query: str) -> Callable[[Known], Look]:
    return lambda known: look("project", known.project.id, *segments, query=query)


def _registry(*segments: str | int, **query: str) -> Callable[[Known], Look]:
    return lambda known: look("project", known.project.id, "modelregistries", known.project.id, *segments, query=query)


def _model(*segments: str, **query: str) -> Callable[[Known], Look]:
    def ask(known: Known) -> Look:
        if known.model is None:
            message = "the project has no model; --write makes one"
            raise NotAskedError(message)
        return _registry("models", str(known.model["id"]), *segments, **query)(known)

    return ask


def _deployment(*segments: str, **query: str) -> Callable[[Known], Look]:
    def ask(known: Known) -> Look:
        if known.deployment is None:
            message = "the project has no deployment; --write makes one"
            raise NotAskedError(message)
        return _project("serving", known.deployment["id"], *segments, **query)(known)

    return ask


def _store(*segments: str | int, **query: str) -> Callable[[Known], Look]:
    def ask(known: Known) -> Look:
        if known.feature_store is None:
            message = "the id of the project's feature store is not known"
            raise NotAskedError(message)
        return _project("featurestores", known.feature_store, *segments, **query)(known)

    return ask


def _at_ingress(known: Known) -> Look:
    if known.ingress is None:
        raise NotAskedError(known.no_ingress)
    if known.namespace is not None and known.line >= (4, 8):
        return look_at(known.ingress, "v1", known.namespace, NOBODY, "v1", "models", NOBODY)
    host = f"{NOBODY}.{known.namespace or known.project.name.replace('_', '-')}.{known.domain or 'local'}".lower()
    return look_at(known.ingress, "v1", "models", NOBODY, host=host)


def _predict(known: Known, target: str) -> Look:
    body = {"instances": [[0]]}
    return send("POST", "project", known.project.id, "inference", "models", target, body=body)


# --- Checks that are alike --------------------------------------------------------------------------------------------


def _scope(name: str, need: str, ask: Callable[[Known], Look], *, is_needed: bool) -> Check:
    def read(reply: Reply, _known: Known) -> str:
        return _NOT_ALLOWED if reply.lacks_scope else _ALLOWED if reply.is_success else reply.outcome

    return Check(
        id=f"scope-{name.lower()}",
        section="API key",
        question=f"May the key {need} (scope {name})?",
        ask=ask,
        read=read,
        expected=always(*((_ALLOWED,) if is_needed else (_ALLOWED, _NOT_ALLOWED))),
    )


def _variable(name: str, *values: str, read: Callable[[Reply, Known], str] = reading.variable) -> Check:
    return Check(
        id=f"variable-{name.replace('_', '-')}",
        section="Variables of the cluster",
        question=f"What is the variable {name}?",
        ask=lambda _known: look("variables", name),
        read=read,
        expected=always(*values),
    )


def _field(name: str, since: tuple[int, int], *, until: tuple[int, int] | None = None) -> Check:
    expected = {(0, 0): ("absent" if since > (0, 0) else "present",), since: ("present",)}
    if until is not None:
        expected[until] = ("absent",)
    return Check(
        id=f"deployment-field-{name.lower()}",
        section="Deployments: one deployment",
        question=f"Has a deployment the field {name}?",
        ask=_deployment(),
        of_one=True,
        read=lambda reply, _known: "present" if name in reading.object_of(reply) else "absent",
        expected=expected,
    )


def _sub(name: str, since: tuple[int, int], feature: str = "") -> Check:
    """Return the check of a route below a deployment, asked of a deployment that does not exist."""

    def read(reply: Reply, known: Known) -> str:
        if feature:
            known.features[feature] = reply.code == 240000 or reply.is_success
        return reply.outcome

    return Check(
        id=f"route-{name}",
        section="Deployments: routes by version",
        question=f"Is there the route serving/<id>/{name}? Asked of a deployment that does not exist.",
        ask=_project("serving", NUMBER, name),
        read=read,
        expected={(0, 0): _NO_ROUTE, since: ("404/240000",)} if since > (0, 0) else always("404/240000"),
    )


# --- The table --------------------------------------------------------------------------------------------------------

_CLUSTER = [
    Check(
        id="software-versions",
        section="Server and project",
        question="In which form does Hopsworks say its version?",
        ask=lambda _known: look("variables", "versions"),
        read=reading.versions,
        expected=always("a bare list that names hopsworks"),
    ),
    Check(
        id="project-namespace",
        section="Server and project",
        question="Does the project look-up name the Kubernetes namespace?",
        ask=lambda known: look("project", "getProjectInfo", known.project.name),
        read=reading.project_of,
        expected={(0, 0): ("without namespace",), (4, 0): ("with namespace",)},
    ),
    _sub("versions", (5, 2), VERSIONS),
    _sub("tags", (5, 0), TAGS),
    _sub("schema", (5, 2)),
    _sub("logs", (0, 0)),
    Check(
        id="line",
        section="Server and project",
        question="Do the routes fit the line of the version that Hopsworks says?",
        ask=lambda _known: look("variables", "versions"),
        read=lambda _reply, known: known.contradiction or "yes",
        expected=always("yes"),
    ),
    Check(
        id="project-absent",
        section="Server and project",
        question="How is a project refused that does not exist?",
        ask=lambda _known: look("project", "getProjectInfo", NOBODY),
        expected=always("404/150004"),
    ),
    Check(
        id="projects",
        section="Server and project",
        question="In which form are projects listed?",
        ask=lambda _known: look("project"),
        read=reading.list_form,
        expected=always("a bare list"),
    ),
    Check(
        id="role",
        section="API key",
        question="What is the role of the key's user in the project?",
        ask=lambda _known: look("project"),
        read=reading.role,
        expected=always("Data owner"),
    ),
    Check(
        id="route-absent",
        section="Errors",
        question="How is a route refused that does not exist?",
        ask=_project(NOBODY),
        expected=always(*_NO_ROUTE),
    ),
    Check(
        id="error-body",
        section="Errors",
        question="Which keys has the body of a refusal? Without usrMsg, no text of a model comes through.",
        ask=_project("serving", NUMBER),
        read=lambda reply, _known: ", ".join(sorted(reading.object_of(reply))),
        expected=always("*errorCode*errorMsg*usrMsg*", "*errorCode*errorMsg*"),
    ),
    Check(
        id="error-headers",
        section="Errors",
        question="Which headers has a refusal?",
        ask=_project("serving", NUMBER),
        read=reading.header_names,
        expected=always("*content-type*"),
    ),
    Check(
        id="servingconf",
        section="Server and project",
        question="Is there the route servingconf, without a project?",
        ask=lambda _known: look("servingconf"),
        read=lambda reply, _known: ", ".join(sorted(reading.object_of(reply))),
        expected=always("*kafkaTopicSchema*"),
    ),
]

_KEY = [
    _scope("SERVING", "read deployments", _project("serving", model=NOBODY), is_needed=True),
    _scope("MODELREGISTRY", "read models", _project("modelregistries"), is_needed=True),
    _scope("DATASET_VIEW", "read files", _project("dataset", "Models"), is_needed=False),
    _scope("JOB", "read jobs", _project("jobs", limit="1"), is_needed=False),
    _scope("FEATURESTORE", "read the feature store", _project("featurestores"), is_needed=False),
]

_NUMBERS = ("-1", "*[0-9]", "absent (404/100050)")
_VARIABLES = [
    Check(
        id="variable-absent",
        section="Variables of the cluster",
        question="How is a variable refused that does not exist?",
        ask=lambda _known: look("variables", NOBODY),
        expected=always("404/100050"),
    ),
    _variable("enable_data_science_profile", "true"),
    _variable("kube_kserve_installed", "true", "false"),
    _variable("kube_serving_min_num_instances", *_NUMBERS),
    _variable("kube_serving_max_num_instances", *_NUMBERS),
    _variable("kube_serving_max_cores_allocation", *_NUMBERS),
    _variable("kube_serving_max_memory_allocation", *_NUMBERS),
    _variable("kube_serving_max_gpus_allocation", *_NUMBERS),
    _variable("upload_policy", "enabled", "admins_only", "absent (404/100050)"),
    _variable("kube_knative_domain_name", "set", "absent (404/100050)", read=reading.domain),
]

_MODELS = [
    Check(
        id="registries",
        section="Model registry",
        question="In which form are registries listed, and has the project's own one the project's id?",
        ask=_project("modelregistries"),
        read=reading.registries,
        expected=always("{count, items}, own one by the project's id"),
    ),
    Check(
        id="registry-absent",
        section="Model registry",
        question="How is a registry refused that does not exist?",
        ask=_project("modelregistries", NUMBER),
        expected=always("400/360006"),
    ),
    Check(
        id="models-limit",
        section="Model registry",
        question="Is 'count' the number of all models, also with limit=1?",
        ask=_registry("models", limit="1"),
        read=reading.models_page,
        expected=always("one item, counts all", "one item, counts 1", "{count} without items"),
    ),
    Check(
        id="models-none",
        section="Model registry",
        question="How does an empty list of models look?",
        ask=_registry("models", filter_by=f"name_eq:{NOBODY}"),
        read=reading.list_form,
        expected=always("{count} without items"),
    ),
    Check(
        id="model-absent",
        section="Model registry",
        question="How is a model version refused that does not exist?",
        ask=_registry("models", f"{NOBODY}_1"),
        expected=always("404/360000"),
    ),
    Check(
        id="model-id-malformed",
        section="Model registry",
        question="How is an id refused that has no version?",
        ask=_registry("models", NOBODY),
        expected=always("500/120000", "422/120001"),
    ),
    Check(
        id="models-filter-unknown",
        section="Model registry",
        question="How is an unknown filter refused?",
        ask=_registry("models", filter_by="nosuchfilter:1"),
        expected=always("422/120001", "404/310000"),
    ),
    Check(
        id="models-order-unknown",
        section="Model registry",
        question="How is an unknown order of sorting refused?",
        ask=_registry("models", sort_by="accuracy:sideways"),
        expected=always("404*", "422/120001"),
    ),
    Check(
        id="model-metrics",
        section="Model registry: one model",
        question="In which form are the metrics of a model version?",
        ask=_model(),
        of_one=True,
        read=reading.metrics,
        expected=always("an object of numbers", "absent"),
    ),
    Check(
        id="model-created",
        section="Model registry: one model",
        question="In which form is the time of a model version's creation?",
        ask=_model(),
        of_one=True,
        read=lambda reply, _known: reading.kind(reply, "created"),
        expected=always("a number"),
    ),
    Check(
        id="model-id",
        section="Model registry: one model",
        question="Is the id of a model version <name>_<version>?",
        ask=_model(),
        of_one=True,
        read=reading.model_id,
        expected=always("yes"),
    ),
    Check(
        id="model-training-dataset",
        section="Model registry: one model",
        question="What is trainingDatasetVersion of a model version without a training dataset?",
        ask=_model(),
        of_one=True,
        read=lambda reply, _known: reading.kind(reply, "trainingDatasetVersion"),
        expected=always("a number", "null"),
    ),
    Check(
        id="model-tags",
        section="Model registry: one model",
        question="In which form are the tags of a model version?",
        ask=_model("tags"),
        of_one=True,
        read=reading.list_form,
        expected=always(*_COUNTED),
    ),
    Check(
        id="model-tag-absent",
        section="Model registry: one model",
        question="How is a tag refused that a model version does not have?",
        ask=_model("tags", NOBODY),
        of_one=True,
        expected=always("404/370002", "404/370000"),
    ),
    Check(
        id="model-provenance",
        section="Provenance",
        question="Which keys has the provenance of a model version, and is the scope MODELREGISTRY enough?",
        ask=_model("provenance", "links", expand="provenance_artifacts", upstreamLvls="2", downstreamLvls="0"),
        of_one=True,
        read=reading.keys,
        expected={(0, 0): ("*",), (5, 0): ("*downstream*node*upstream*", "count")},
    ),
    Check(
        id="model-monitoring",
        section="Monitoring",
        question="Is there the route models/<id>/featuremonitoring?",
        ask=_model("featuremonitoring"),
        of_one=True,
        read=reading.list_form,
        expected={(0, 0): ("*",), (5, 2): _COUNTED},
    ),
]

_FILES = [
    Check(
        id="file-models",
        section="Files",
        question="Which keys describe the folder Models?",
        ask=_project("dataset", "Models"),
        read=reading.file_keys,
        expected=always("*dir*name*path*"),
    ),
    Check(
        id="file-absent",
        section="Files",
        question="How is a file refused that does not exist?",
        ask=_project("dataset", f"Resources/{NOBODY}"),
        expected=always("400/110018", "400/110011", "404/110008"),
    ),
    Check(
        id="dataset-absent",
        section="Files",
        question="How is a top folder refused that does not exist?",
        ask=_project("dataset", NOBODY),
        expected=always("400/110018", "400/110011", "404/110008"),
    ),
    Check(
        id="file-listing",
        section="Files",
        question="In which form is a folder listed?",
        ask=_project("dataset", "Models", action="listing", offset="0", limit="1"),
        read=reading.list_form,
        expected=always(*_COUNTED),
    ),
    Check(
        id="file-deployments",
        section="Files",
        question="Is there the folder Deployments, which the SDK uploads scripts to?",
        ask=_project("dataset", "Deployments"),
        read=lambda reply, _known: "yes" if reply.is_success else f"no ({reply.outcome})",
        expected=always("yes", "no (400/110018)", "no (400/110011)", "no (404/110008)"),
    ),
]

_STATUSES = ("Creating", "Created", "Starting", "Failed", "Running", "Idle", "Updating", "Stopping", "Stopped")
_DEPLOYMENTS = [
    Check(
        id="deployments",
        section="Deployments",
        question="In which form are deployments listed?",
        ask=_project("serving"),
        read=reading.deployments,
        expected=always("a bare list", *_COUNTED),
    ),
    Check(
        id="deployment-absent-by-name",
        section="Deployments",
        question="How is a name refused that no deployment has?",
        ask=_project("serving", name=NOBODY),
        expected=always("404/240000"),
    ),
    Check(
        id="deployment-absent-by-id",
        section="Deployments",
        question="How is an id refused that no deployment has?",
        ask=_project("serving", NUMBER),
        expected=always("404/240000"),
    ),
    Check(
        id="deployments-version-alone",
        section="Deployments",
        question="How is the filter modelVersion refused without model?",
        ask=_project("serving", modelVersion="1"),
        expected=always("422/120001"),
    ),
    Check(
        id="deployments-status-unknown",
        section="Deployments",
        question="How is the filter of an unknown status refused?",
        ask=_project("serving", status="Nosuchstatus"),
        expected=always("404*", "422*"),
    ),
    Check(
        id="vllm-tags",
        section="Deployments",
        question="In which form are the image tags of vLLM?",
        ask=_project("serving", "vllmImageTags"),
        read=reading.image_tags,
        expected={(0, 0): (*_NO_ROUTE, "404/*"), (5, 0): ("objects with default, tags",)},
    ),
    Check(
        id="deployment-by-name",
        section="Deployments: one deployment",
        question="Is the answer for a name one object?",
        ask=lambda known: _project("serving", name=_name_of(known))(known),
        of_one=True,
        read=lambda reply, _known: reading.body_kind(reply),
        expected=always("an object"),
    ),
    Check(
        id="deployment-status",
        section="Deployments: one deployment",
        question="What is the status of a deployment?",
        ask=_deployment(),
        of_one=True,
        read=lambda reply, _known: reading.word(reply, "status", _STATUSES),
        expected=always(*_STATUSES),
    ),
    Check(
        id="deployment-condition",
        section="Deployments: one deployment",
        question="In which form is the condition of a deployment?",
        ask=_deployment(),
        of_one=True,
        read=reading.condition,
        expected=always("reason, status, type", "reason, type", "type", "status, type", "null"),
    ),
    Check(
        id="deployment-created",
        section="Deployments: one deployment",
        question="In which form is the time of a deployment's creation?",
        ask=_deployment(),
        of_one=True,
        read=lambda reply, _known: reading.time_form(reply, "created"),
        expected=always("a number", "a text like *"),
    ),
    Check(
        id="deployment-deployed",
        section="Deployments: one deployment",
        question="In which form is the time of the last start?",
        ask=_deployment(),
        of_one=True,
        read=lambda reply, _known: reading.time_form(reply, "deployed"),
        expected=always("a number", "a text like *", "null"),
    ),
    Check(
        id="deployment-revision",
        section="Deployments: one deployment",
        question="In which form is the revision?",
        ask=_deployment(),
        of_one=True,
        read=lambda reply, _known: reading.kind(reply, "revision"),
        expected=always("a text", "a number", "null"),
    ),
    Check(
        id="deployment-available",
        section="Deployments: one deployment",
        question="Is availableInstances a number?",
        ask=_deployment(),
        of_one=True,
        read=lambda reply, _known: reading.kind(reply, "availableInstances"),
        expected=always("a number"),
    ),
    Check(
        id="deployment-predictor",
        section="Deployments: one deployment",
        question="Is the script returned as a whole path or as a name?",
        ask=_deployment(),
        of_one=True,
        read=reading.script_form,
        expected=always("a whole path", "a name", "null"),
    ),
    Check(
        id="deployment-scaling",
        section="Deployments: one deployment",
        question="Has predictorScalingConfig the key minInstances?",
        ask=_deployment(),
        of_one=True,
        read=reading.scaling,
        expected={(0, 0): ("absent",), (4, 6): ("with minInstances",)},
    ),
    _field("artifactVersion", (0, 0), until=(4, 6)),
    _field("projectNamespace", (4, 0)),
    _field("apiProtocol", (4, 0)),
    _field("version", (4, 6)),
    _field("predictorEnvVars", (4, 8)),
    _field("knativeMode", (5, 2)),
    Check(
        id="deployment-versions",
        section="Deployments: one deployment",
        question="In which form are the versions of a deployment?",
        ask=_deployment("versions", offset="0", limit="10"),
        of_one=True,
        read=reading.deployment_versions,
        expected={(0, 0): _NO_ROUTE, (5, 2): ("{count, items}, newest first, one active",)},
    ),
    Check(
        id="deployment-tags",
        section="Deployments: one deployment",
        question="In which form are the tags of a deployment?",
        ask=_deployment("tags"),
        of_one=True,
        read=reading.list_form,
        expected={(0, 0): _NO_ROUTE, (5, 0): _COUNTED},
    ),
    Check(
        id="deployment-schema",
        section="Request schemas",
        question="How is the schema answered for an id that does not exist?",
        ask=_deployment("schema", format="schema", schemaId="0000000000000000"),
        of_one=True,
        expected={(0, 0): _NO_ROUTE, (5, 2): ("404/240037",)},
    ),
]

_INFERENCE = [
    Check(
        id="proxy-absent",
        section="Inference proxy",
        question="How are predictions of a deployment refused that does not exist?",
        ask=lambda known: _predict(known, f"{NOBODY}:predict"),
        expected=always("404/250000"),
    ),
    Check(
        id="proxy-no-verb",
        section="Inference proxy",
        question="How is a request without ':predict' refused?",
        ask=lambda known: _predict(known, NOBODY),
        expected=always("400/250005"),
    ),
    Check(
        id="endpoints",
        section="Ingress",
        question="Which inference endpoints are listed?",
        ask=_project("inference", "endpoints"),
        read=reading.endpoints,
        expected=always("*LOAD_BALANCER*", "*NODE*", "*KUBE_CLUSTER*"),
    ),
    Check(
        id="ingress-absent",
        section="Ingress",
        question="How does the ingress answer for a deployment that does not exist?",
        ask=_at_ingress,
        expected=always("404 with an empty body"),
    ),
    Check(
        id="ingress-headers",
        section="Ingress",
        question="Which headers has an answer of the ingress?",
        ask=_at_ingress,
        read=reading.header_names,
        expected=always("*server*"),
    ),
]

_JOBS = [
    Check(
        id="jobs",
        section="Jobs",
        question="In which form are jobs listed?",
        ask=_project("jobs", offset="0", limit="1"),
        read=reading.list_form,
        expected=always(*_COUNTED),
    ),
    Check(
        id="job-absent",
        section="Jobs",
        question="How is a job refused that does not exist?",
        ask=_project("jobs", NOBODY),
        expected=always("404/130009"),
    ),
    Check(
        id="executions-absent",
        section="Jobs",
        question="How are the executions of a job refused that does not exist?",
        ask=_project("jobs", NOBODY, "executions", sort_by="submissiontime:desc", offset="0", limit="1"),
        expected=always("404/130009"),
    ),
]

_FEATURES = [
    Check(
        id="feature-stores",
        section="Feature store",
        question="In which form are feature stores listed?",
        ask=_project("featurestores"),
        read=reading.feature_stores,
        expected=always("a bare list, own one by name"),
    ),
    Check(
        id="feature-store",
        section="Feature store",
        question="Is the project's feature store found by <project>_featurestore?",
        ask=lambda known: _project("featurestores", f"{known.project.name.lower()}_featurestore")(known),
        read=reading.feature_store,
        expected=always("with featurestoreId, featurestoreName"),
    ),
    Check(
        id="feature-view-absent",
        section="Feature store",
        question="How is a feature view refused that does not exist?",
        ask=_store("featureview", NOBODY, "version", 1),
        expected=always("404/270181"),
    ),
]


def _name_of(known: Known) -> str:
    if known.deployment is None:
        message = "the project has no deployment; --write makes one"
        raise NotAskedError(message)
    name: Any = known.deployment["name"]
    return str(name)


_ALL = (*_CLUSTER, *_KEY, *_VARIABLES, *_MODELS, *_FILES, *_DEPLOYMENTS, *_INFERENCE, *_JOBS, *_FEATURES)
OF_ONE = tuple(one for one in _ALL if one.of_one)
"""The checks of one model and of one deployment: with ``--write``, of the doctor's own."""
CHECKS = tuple(one for one in _ALL if not one.of_one)
"""All other checks, in the order in which they are asked."""
