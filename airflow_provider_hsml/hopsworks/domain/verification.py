"""
The verification of a new version: ``Verification`` as users write it, and its parser into ``Checks``.

Parsing happens before anything is changed, and imports the function of ``expect``: a mistake must not show up after
production has changed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from airflow_provider_hsml.hopsworks.errors import InvalidInputError

from . import arguments
from .arguments import Arguments
from .dotted_path import import_function, is_dotted_path
from .judge import TOLERANCE, Checks, Expectation
from .plain import rows

_PATH = re.compile(r"(/[A-Za-z0-9._~:@!$&'()*+,;=-]*)+")


@dataclass(frozen=True, slots=True)
class Verification(Arguments):
    """
    How a deploying task verifies that the new version answers, and how it handles a failure.

    A mapping with the same keys works as well. Use one where Airflow maps or templates the argument.
    """

    instances: Any = None
    """Rows to send. Without ``instances``, ``inputs`` and ``payload``: the rows of ``expected``, else the model's
    registered input example. At most one of the three."""
    inputs: Any = None
    """One row or several, as the argument of that name in Hopsworks' SDK."""
    payload: Any = None
    """The whole body, with exactly one of the keys ``instances`` and ``inputs``."""
    expect: str | None = None
    """The check of the predictions: ``finite``, ``same_length`` (as many as rows), ``equal`` (to the recorded
    ``expected``), or the dotted path of a function. The function is called with the predictions and the rows; an
    exception, or a false result other than None, fails the probe. Never templated."""
    tolerance: float | str = TOLERANCE
    """Allowed difference of numbers from the recorded ones, relative and absolute, 1e-6 by default. Text and integers
    must be equal."""
    version_path: str | None = None
    """A dotted path in the answer that must hold the model version: ``"model_version"``, ``"metadata.version"``."""
    health_path: str | None = None
    """For deployments without predictions: the path of a GET at the ingress, below the deployment's address:
    ``"/health"``. It has to return a 2xx. The default for vLLM is ``"/v1/models"``."""
    max_latency_ms: float | str | None = None
    """Milliseconds that a probe may take, measured by the worker, network included."""
    bake_seconds: float | str = 0
    """Seconds of further probes after the rollout is live and verified, in addition to ``timeout``."""
    probe_interval: float | str = 5
    """Seconds between two probes of the bake."""
    max_error_rate: float | str = 0
    """Share of the bake's probes that may fail: 0.01 is one percent."""
    on_failure: str = "rollback"
    """``rollback`` to the previous version, or ``leave`` the deployment as it is. The task fails in both cases."""

    def checks(self) -> Checks:
        """
        Parse and check the fields, and import the function of ``expect``.

        :raises InvalidInputError: a field is wrong; the message names it
        """
        expect = None if self.expect is None else _expectation(expect_name("verification.expect", self.expect))
        return replace(self.literal_checks(), expect=expect)

    def literal_checks(self) -> Checks:
        """
        Parse and check all fields but ``expect``, whose function is imported only when the task runs.

        :raises InvalidInputError: a field is wrong; the message names it
        """
        body = request_body("verification.", instances=self.instances, inputs=self.inputs, payload=self.payload)
        if body is not None and self.health_path is not None:
            arguments.refuse("verification.health_path", "health_path alone, or rows to send", self.health_path)
        path, limit = self.version_path, self.max_latency_ms
        rate = arguments.number("verification.max_error_rate", self.max_error_rate, least=0)
        if rate > 1:
            arguments.refuse("verification.max_error_rate", "a share, 0 to 1", self.max_error_rate)
        on_failure = arguments.choice("verification.on_failure", self.on_failure, ("rollback", "leave"))
        return Checks(
            body=body,
            tolerance=arguments.number("verification.tolerance", self.tolerance, least=0),
            version_path=None if path is None else arguments.text("verification.version_path", path),
            health_path=None if self.health_path is None else check_path(self.health_path),
            max_latency_ms=None if limit is None else arguments.number("verification.max_latency_ms", limit, least=0),
            bake_seconds=arguments.seconds("verification.bake_seconds", self.bake_seconds),
            probe_interval=arguments.seconds("verification.probe_interval", self.probe_interval, least=0.01),
            max_error_rate=rate,
            rolls_back=on_failure == "rollback",
        )


def _is_finite(predictions: Any, _rows: Any) -> bool:
    """Return whether there are predictions without NaN, infinity and null, which some servers write for NaN."""
    if isinstance(predictions, list):
        return all(_is_finite(one, None) for one in predictions)
    if isinstance(predictions, Mapping):
        return all(_is_finite(one, None) for one in predictions.values())
    return predictions is not None and not (isinstance(predictions, float) and not math.isfinite(predictions))


def _is_same_length(predictions: Any, rows: Any) -> bool:
    """Return whether there are as many predictions as rows; the rows may be columns."""
    columns = [column for column in rows.values() if isinstance(column, list)] if isinstance(rows, Mapping) else [rows]
    return isinstance(predictions, list) and [len(predictions)] == [len(column) for column in columns[:1]]


_EXPECTATIONS = {
    "finite": Expectation("finite", _is_finite),
    "same_length": Expectation("same_length", _is_same_length),
    "equal": Expectation("equal"),
}


AS_MANY_AND_FINITE = Expectation(
    "same_length and finite",
    lambda predictions, rows: _is_same_length(predictions, rows) and _is_finite(predictions, rows),
)
"""The check of predictions that change by themselves, as those of online features do."""


_STORED = (
    "tolerance",
    "version_path",
    "health_path",
    "max_latency_ms",
    "bake_seconds",
    "probe_interval",
    "max_error_rate",
)
"""The fields of ``Checks`` that are stored as they are."""
_EXPECT = f"one of {', '.join(_EXPECTATIONS)}, or the dotted path of a function"


def expect_name(what: str, value: object) -> str:
    """
    Read ``expect``, without importing anything.

    :param what: the argument's name, for messages
    :raises InvalidInputError: it is none of the words, and no dotted path
    """
    name = arguments.text(what, value)
    if name not in _EXPECTATIONS and not is_dotted_path(name):
        arguments.refuse(what, _EXPECT, name)
    return name


def built_in(name: object) -> Expectation | None:
    """
    Return a built-in expectation by its name. A trigger knows no others: its arguments name no code.

    :param name: None when there is no expectation
    """
    return None if name is None else _EXPECTATIONS[arguments.choice("expect", name, _EXPECTATIONS)]


def checks_to_json(checks: Checks) -> dict[str, Any]:
    """
    Return checks as plain JSON, without the rows to send.

    :param checks: the checks
    """
    return {
        "expect": checks.expect.name if checks.expect else None,
        "on_failure": "rollback" if checks.rolls_back else "leave",
        **{name: getattr(checks, name) for name in _STORED},
    }


def checks_from_json(data: Mapping[str, Any], expect: Expectation | None = None) -> Checks:
    """
    Read checks that ``checks_to_json`` wrote. They import nothing: stored text names no code.

    :param data: the checks; further keys are ignored
    :param expect: the expectation of this run, which is used if the checks name the same one
    :raises InvalidInputError: the checks name a function that this run does not have
    """
    verification = Verification(**{name: data[name] for name in ("on_failure", *_STORED)})
    is_same = expect is not None and expect.name == data["expect"]
    return replace(verification.literal_checks(), expect=expect if is_same else built_in(data["expect"]))


def _expectation(name: str) -> Expectation:
    """Return a built-in expectation by its name, or import a function by its dotted path."""
    if name in _EXPECTATIONS:
        return _EXPECTATIONS[name]
    function = import_function("verification.expect", _EXPECT, name)
    return Expectation(name, function, is_user_function=True)


def check_path(path: object) -> str:
    """
    Return a path below a deployment's address if it is valid.

    :param path: for example ``"/health"``
    :raises InvalidInputError: the path is invalid, or leads outside the deployment's address
    """
    if not isinstance(path, str) or not _PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        message = (
            f"health_path: expected a path like '/health', without '..', query or spaces, got {arguments.shown(path)}."
        )
        raise InvalidInputError(message)
    return path


def request_body(
    subject: str,
    *,
    instances: Any = None,
    inputs: Any = None,
    payload: Any = None,
    encode: Callable[[Any], Any] | None = None,
) -> dict[str, Any] | None:
    """
    Build the body of a prediction request from one of three arguments; None when all are None.

    :param subject: the beginning of the arguments' names, for messages: ``verification.``
    :param instances: a list of rows, an array or a frame
    :param inputs: one row or several, wrapped as the SDK wraps it
    :param payload: the whole body, with exactly one of the keys ``instances`` and ``inputs``
    :param encode: encodes the values that JSON does not have, as a schema of requests takes them; None: as ``plain``
    :raises InvalidInputError: more than one is set, or the body is no valid request
    """
    arguments.only_one(subject, instances=instances, inputs=inputs, payload=payload)
    if encode is not None:
        instances, inputs, payload = encode(instances), encode(inputs), encode(payload)
    if inputs is not None:
        return {"instances": wrapped(rows(f"{subject}inputs", inputs))}
    if instances is not None:
        read = rows(f"{subject}instances", instances)
        if not isinstance(read, list):
            arguments.refuse(f"{subject}instances", "a list with at least one row", type(instances).__name__)
        return {"instances": read}
    if payload is None:
        return None
    what = f"{subject}payload"
    body = arguments.json_mapping(what, payload, '{"instances": [...]}')
    keys = {"instances", "inputs"} & set(body)
    if len(keys) != 1:
        message = f"{what}: expected exactly one of the keys 'instances' and 'inputs', got {sorted(body)}."
        raise InvalidInputError(message)
    # Rows in a payload may have any form that the model takes, but there have to be some.
    key = keys.pop()
    if body[key] in (None, [], {}, ""):
        message = f"{what}.{key}: expected at least one row, got no rows.\nCheck why there are none."
        raise InvalidInputError(message)
    return body


def wrapped(inputs: Any) -> list[Any]:
    """
    Return the SDK's argument ``inputs`` as a list of rows.

    A mapping or a flat list is one row; a list of those is several.
    """
    if not isinstance(inputs, list):
        return [inputs if isinstance(inputs, Mapping) else [inputs]]
    return inputs if inputs and all(isinstance(row, list | Mapping) for row in inputs) else [inputs]
