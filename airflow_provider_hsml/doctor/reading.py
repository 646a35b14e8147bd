"""
Readers of answers: each returns a short text about the form of an answer.

No reader returns a value that a user or an administrator has chosen, but for the few of ``variable``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain.wire import kind_of

from .known import NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .asking import Reply
    from .known import Known

_PLAIN = re.compile(r"true|false|-?\d{1,12}(\.\d{1,6})?|enabled|disabled|admins_only")
"""Values of variables that are shown."""
_MOST_TYPES = 10


def object_of(reply: Reply) -> Mapping[str, Any]:
    """Return the JSON object of an answer; an empty one if it is none."""
    return reply.data if isinstance(reply.data, dict) else {}


def _rows(data: Any) -> list[Any]:
    rows = data.get("items") or [] if isinstance(data, dict) else data
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def body_kind(reply: Reply) -> str:
    """Return the kind of the body, or the refusal."""
    return kind_of(reply.data) if reply.is_success else reply.outcome


def list_form(reply: Reply, _known: Known) -> str:
    """Return the form of a list, or the refusal."""
    if not reply.is_success:
        return reply.outcome
    if isinstance(reply.data, list):
        return "a bare list"
    if isinstance(reply.data, dict) and "count" in reply.data:
        return "{count, items}" if isinstance(reply.data.get("items"), list) else "{count} without items"
    return keys(reply, _known)


def keys(reply: Reply, _known: Known) -> str:
    """Return the keys of the body."""
    if not reply.is_success:
        return reply.outcome
    return ", ".join(sorted(object_of(reply))) or kind_of(reply.data)


def kind(reply: Reply, key: str) -> str:
    """Return the kind of a value in the body."""
    return kind_of(object_of(reply).get(key)) if reply.is_success else reply.outcome


def word(reply: Reply, key: str, words: Sequence[str]) -> str:
    """Return a value if it is one of some words, else its kind."""
    value = object_of(reply).get(key)
    return str(value) if reply.is_success and value in words else kind(reply, key)


def time_form(reply: Reply, key: str) -> str:
    """Return the form of a time; of a text with each digit as 9."""
    value = object_of(reply).get(key)
    if reply.is_success and isinstance(value, str):
        return f"a text like {re.sub('[0-9]', '9', value)[:40]}"
    return kind(reply, key)


def header_names(reply: Reply, _known: Known) -> str:
    """Return the names of the headers."""
    return ", ".join(sorted(reply.headers)) or "none"


def versions(reply: Reply, known: Known) -> str:
    """Read the version of Hopsworks."""
    named = [row for row in _rows(reply.data) if row.get("software") == "hopsworks"]
    version = named[0].get("version") if named else None
    known.version = str(version)[:50] if version else None
    return f"{list_form(reply, known)} {'that names hopsworks' if version else 'without hopsworks'}"


def project_of(reply: Reply, known: Known) -> str:
    """Read the namespace of the project."""
    if not reply.is_success:
        return reply.outcome
    namespace = object_of(reply).get("namespace")
    known.features[NAMESPACE] = "namespace" in object_of(reply)
    known.namespace = namespace if isinstance(namespace, str) and namespace else None
    return "with namespace" if known.features[NAMESPACE] else "without namespace"


def role(reply: Reply, known: Known) -> str:
    """Return the role of the user in the project."""
    for row in _rows(reply.data):
        project = row.get("project")
        if isinstance(project, dict) and project.get("name") == known.project.name:
            value = row.get("teamRole")
            return value if value in ("Data owner", "Data scientist") else kind_of(value)
    return "the project is not listed" if reply.is_success else reply.outcome


def variable(reply: Reply, _known: Known) -> str:
    """Return a variable: its value if it is a number or a switch."""
    if not reply.is_success:
        return f"absent ({reply.outcome})" if reply.status == 404 else reply.outcome
    value = object_of(reply).get("successMessage")
    return value if isinstance(value, str) and _PLAIN.fullmatch(value) else kind_of(value)


def domain(reply: Reply, known: Known) -> str:
    """Read Knative's domain, which is not shown."""
    value = object_of(reply).get("successMessage")
    known.domain = value if isinstance(value, str) and value else None
    return "set" if known.domain else variable(reply, known)


def registries(reply: Reply, known: Known) -> str:
    """Return the form of the list of registries."""
    own = any(row.get("id") == known.project.id and row.get("name") == known.project.name for row in _rows(reply.data))
    return f"{list_form(reply, known)}{', own one by the project' + chr(39) + 's id' if own else ''}"


def models_page(reply: Reply, known: Known) -> str:
    """Read a page with one model."""
    rows = _rows(reply.data)
    if not rows:
        return list_form(reply, known)
    known.model = rows[0] if isinstance(rows[0].get("id"), str) else None
    count = object_of(reply).get("count")
    counts = kind_of(count) if not isinstance(count, int) else "all" if count > 1 else str(count)
    return f"{'one item' if len(rows) == 1 else f'{len(rows)} items'}, counts {counts}"


def metrics(reply: Reply, known: Known) -> str:
    """Return the form of metrics."""
    value = object_of(reply).get("metrics")
    if not reply.is_success or (isinstance(value, dict) and "attributes" in value):
        return keys(reply, known) if reply.is_success else reply.outcome
    if isinstance(value, dict) and all(isinstance(one, int | float) for one in value.values()):
        return "an object of numbers"
    return "absent" if value is None else kind_of(value)


def model_id(reply: Reply, _known: Known) -> str:
    """Return whether the id of a model is of its name and version."""
    row = object_of(reply)
    if not reply.is_success:
        return reply.outcome
    return "yes" if row.get("id") == f"{row.get('name')}_{row.get('version')}" else kind_of(row.get("id"))


def file_keys(reply: Reply, _known: Known) -> str:
    """Return the keys of a file's attributes."""
    attributes = object_of(reply).get("attributes")
    return ", ".join(sorted(attributes)) if isinstance(attributes, dict) else body_kind(reply)


def deployments(reply: Reply, known: Known) -> str:
    """Read the list of deployments."""
    named = [row for row in _rows(reply.data) if isinstance(row.get("id"), int) and isinstance(row.get("name"), str)]
    known.deployment = named[0] if named else None
    return list_form(reply, known)


def image_tags(reply: Reply, known: Known) -> str:
    """Return the form of the image tags of vLLM."""
    inner = {", ".join(sorted(one)) if isinstance(one, dict) else kind_of(one) for one in object_of(reply).values()}
    return f"objects with {' or '.join(sorted(inner))}" if reply.is_success and inner else keys(reply, known)


def condition(reply: Reply, _known: Known) -> str:
    """Return the keys of a deployment's condition."""
    value = object_of(reply).get("condition")
    return ", ".join(sorted(value)) if isinstance(value, dict) else kind(reply, "condition")


def script_form(reply: Reply, _known: Known) -> str:
    """Return the form of the path of a predictor script."""
    value = object_of(reply).get("predictor")
    if not isinstance(value, str):
        return kind(reply, "predictor")
    return "a whole path" if "/" in value else "a name"


def scaling(reply: Reply, _known: Known) -> str:
    """Return the form of the scaling configuration."""
    if not reply.is_success:
        return reply.outcome
    value = object_of(reply).get("predictorScalingConfig")
    if isinstance(value, dict):
        return "with minInstances" if "minInstances" in value else "without minInstances"
    return "absent" if value is None else kind_of(value)


def deployment_versions(reply: Reply, known: Known) -> str:
    """Return the form of the versions of a deployment."""
    if not reply.is_success:
        return reply.outcome
    rows = _rows(reply.data)
    numbers = [row.get("version") for row in rows]
    is_sorted = all(isinstance(one, int) for one in numbers) and numbers == sorted(numbers, reverse=True)
    active = sum(row.get("active") is True for row in rows)
    order = "newest first" if is_sorted else "not newest first"
    return f"{list_form(reply, known)}, {order}, {'one' if active == 1 else active} active"


def endpoints(reply: Reply, known: Known) -> str:
    """Return the types of the inference endpoints, with the names of their ports."""
    found = [
        f"{row.get('type')} ({', '.join(str(port.get('name')) for port in _rows(row.get('ports')))})"
        for row in _rows(reply.data)[:_MOST_TYPES]
    ]
    return f"{list_form(reply, known)}: {', '.join(found) or 'none'}" if reply.is_success else reply.outcome


def logs(reply: Reply, known: Known) -> str:
    """Return the form of logs."""
    rows = _rows(reply.data)
    if not reply.is_success or not rows:
        return "an empty list" if reply.is_success and reply.data in ([], {"count": 0}) else reply.outcome
    return f"{list_form(reply, known)} of {', '.join(sorted(set().union(*rows)))}"


def feature_stores(reply: Reply, known: Known) -> str:
    """Read the id of the project's feature store."""
    name = f"{known.project.name.lower()}_featurestore"
    own = next((row for row in _rows(reply.data) if row.get("featurestoreName") == name), None)
    number = own.get("featurestoreId") if own else None
    known.feature_store = number if isinstance(number, int) else None
    return f"{list_form(reply, known)}{', own one by name' if own else ''}"


def feature_store(reply: Reply, _known: Known) -> str:
    """Return which of the needed keys a feature store has."""
    needed = [key for key in ("featurestoreId", "featurestoreName") if key in object_of(reply)]
    return f"with {', '.join(needed) or 'neither'}" if reply.is_success else reply.outcome
