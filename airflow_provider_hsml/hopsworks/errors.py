"""
The exceptions of this package.

::

    HopsworksError
    ├── InvalidInputError           An argument is wrong. Nothing was changed.
    │   └── NotFoundError           An argument names a model, version, deployment or job that does not exist.
    ├── UnsupportedError            This version of Hopsworks does not support a requested feature.
    ├── NoResponseError             Hopsworks is unreachable, or the connection ended before the whole response.
    │   └── CertificateError        The server's TLS certificate does not verify. Nothing was sent.
    ├── UnexpectedResponseError     The response is not from Hopsworks: HTML, empty, a redirect, a missing key.
    ├── RequestRefusedError         Hopsworks refused the request, with an errorCode.
    ├── InferenceError              The ingress, or the model behind it, refused an inference request.
    ├── DeadlineExceededError       The timeout passed before the expected state was reached.
    ├── JobError                    An execution of a job cannot be followed, or is not known for certain.
    │   └── JobFailedError          An execution of a job has failed, or was stopped.
    └── DeploymentError             A deployment did not reach the requested state.
        ├── DeploymentFailedError   The instances of the deployment do not come up.
        ├── VerificationError       The deployment runs, but its answers are wrong.
        ├── RolledBackError         A change failed and was rolled back.
        └── SupersededError         Another client changed, stopped or deleted the deployment meanwhile.

Two attributes of every error decide how it is handled:

- ``transient``: whether the same request can succeed later, unchanged. Airflow should retry the task.
- ``outcome_unknown``: whether a change may have been carried out although the request failed. Read the current state
  before sending the change again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self

from .untrusted_text import clean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LONGEST_RETRY_AFTER = 30.0
"""Seconds for which a server's Retry-After holds inside a task: a proxy must not stop it for an hour."""
_QUOTA = "quota"
_MOST_OF_REASON = 2048
"""Characters of a reason that are kept, so that the whole message has room for the rest."""

# Codes of hopsworks-api for a deployment that is busy: it is changing its state, or its instances do not answer yet.
BUSY_CODES = frozenset({240001, 240002, 240004})
LIFECYCLE_CODE = 240003
_CREATION_CODE = 240026
_OUT_OF_CREDITS = 150029
SCOPE_MISSING = 320004
_PASSING_CODES = BUSY_CODES | {LIFECYCLE_CODE}
_LASTING_CODES = frozenset({360008})
# The instances cannot be reached yet. 250008 and 250007 are also the codes of the model's own refusals: only the text
# tells these apart.
_UNREACHED_CODES = frozenset({250001, 250002, 250003, 250006, 250012})
MODEL_4XX, MODEL_5XX = 250008, 250007
_GATEWAY_TEXTS = ("no healthy upstream", "upstream connect error", "upstream request timeout", "service unavailable")

_HINTS = {
    120012: "A Hopsworks without its data science profile has no Model Serving: ask the administrator to enable it.",
    130000: "Check the job's configuration in the Hopsworks UI: its file, environment and resources.",
    _OUT_OF_CREDITS: "Ask an administrator of Hopsworks for a larger quota of the project.",
    150004: "Check the project's name in the connection (extra 'project') or in the argument 'project'.",
    160000: "Ask the project's owner to add the API key's user to the project.",
    150068: "Changing deployments needs the role 'Data owner' in the project.",
    200003: "Check the API key in the connection's password.",
    240003: "Check the deployment's state in the Hopsworks UI.",
    240006: "Register the model version first, or name one that exists.",
    240011: "Choose another deployment name.",
    240013: "A deployment keeps its model server for life: deploy this model under another deployment name.",
    _CREATION_CODE: "Stop or delete deployments that are not needed, or ask for a larger quota.",
    250009: "Predictions take an API key, not a token: set HOPSWORKS_API_KEY, or make an Airflow connection.",
    320002: "Check the API key in the connection's password: it may have been deleted.",
    SCOPE_MISSING: "Create an API key with the scopes PROJECT, SERVING and MODELREGISTRY, and with DATASET_VIEW, "
    "DATASET_CREATE and DATASET_DELETE to register models, JOB to run jobs, and FEATURESTORE for feature views.",
    320012: "Check the API key in the connection's password.",
    320013: "Check the API key in the connection's password: it may have been deleted.",
    370000: "Tags have a schema: ask an administrator to make it, in Hopsworks below Cluster settings, Tag schemas.",
    360009: "Delete or update the deployments that use this model version first.",
}


class HopsworksError(Exception):
    """The base class of all errors of this package. Catch it to catch any of them."""

    transient = False
    outcome_unknown = False
    is_out_of_capacity = False
    """Whether a quota is reached or the cluster has no room: the same request can succeed once others free some."""
    requested_delay: float | None = None
    """Seconds after which the server asks for a retry; None when it does not say."""
    without_logs: str = ""
    """The message without the lines of a log; empty when the message has no such lines."""
    is_unverified = False
    """Whether a change of ours is live and could not be verified: it stays pending, and a retry verifies it."""
    is_from_deployment = False
    """Whether the failed request was one to the deployment itself, such as for predictions, not to Hopsworks."""
    failed_probes = 0
    """Probes of a new version that failed."""
    record: Any = None
    """The ``promotion.record.Record`` of the promotion that ended with this error; None for other errors."""

    def __init__(self, message: str = "") -> None:
        """
        Keep the message in a form that is safe to log and to store.

        :param message: what is wrong with which thing, and, on the next line, what to do
        """
        super().__init__(clean(message))

    @property
    def retry_after(self) -> float | None:
        """The requested delay for a wait inside a task, cut to ``LONGEST_RETRY_AFTER``."""
        return None if self.requested_delay is None else min(self.requested_delay, LONGEST_RETRY_AFTER)

    @property
    def kept_text(self) -> str:
        """The message for a record or a journal, without log lines: a script may print secrets into its log."""
        return self.without_logs or str(self)

    def with_text(self, text: str) -> Self:
        """Return a copy of this error with another message."""
        copy = type(self).__new__(type(self), clean(text))
        copy.__dict__.update(self.__dict__)
        return copy

    def extended(self, line: str) -> Self:
        """Return a copy of this error whose message has one more line."""
        copy = self.with_text(f"{self}\n{line}")
        copy.without_logs = clean(f"{self.kept_text}\n{line}")
        return copy

    def followed_by(self, kind: type[HopsworksError], event: str) -> HopsworksError:
        """
        Build the error that reports this failure and a later event. Log lines are left out: the task's log has them.

        :param kind: the class of the new error
        :param event: a sentence about the later event
        """
        error = kind(f"{self.kept_text}\n{event}")
        error.failed_probes = self.failed_probes
        return error


class InvalidInputError(HopsworksError):
    """Raised when an argument is wrong, before anything is changed. Correct the argument: a retry does not help."""


class NotFoundError(InvalidInputError):
    """Raised when an argument names a model, model version, deployment, job or project that does not exist."""


class UnsupportedError(HopsworksError):
    """
    Raised when this version of Hopsworks does not support a requested feature or setting.

    Some servers ignore a setting that they do not know and carry out the rest of the request.
    """


class NoResponseError(HopsworksError):
    """
    Raised when Hopsworks is unreachable or its response is incomplete.

    The connection was refused, the host name does not resolve, a timeout passed, or the response was cut off. Check the
    connection's host and port, and firewalls and proxies in between.
    """

    transient = True

    def __init__(self, message: str, *, sent: bool = True) -> None:
        """
        Record whether the request may have reached the server.

        :param message: the request, the server, and the failure
        :param sent: False when no connection was made at all, so that the request had no effect
        """
        super().__init__(message)
        self.sent = sent
        self.outcome_unknown = sent


class CertificateError(NoResponseError):
    """
    Raised when the server's TLS certificate does not verify. Nothing was sent.

    Put the path of the private authority's PEM file into the connection's *CA bundle*, or correct the host name.
    """

    transient = False

    def __init__(self, message: str) -> None:
        """
        Build the error of a request that was not sent.

        :param message: the host, and a way to trust its certificate
        """
        super().__init__(message, sent=False)


class UnexpectedResponseError(HopsworksError):
    """
    Raised when a response is not one of Hopsworks: a proxy or another program answered, or a key is missing.

    Check the connection's host and port if it persists.
    """

    transient = True
    outcome_unknown = True

    def __init__(self, message: str, *, status: int, retry_after: float | None = None) -> None:
        """
        Record the HTTP status of the response.

        :param message: the request, and the beginning of the response
        :param retry_after: seconds, from the header of that name
        """
        super().__init__(message)
        self.status = status
        self.requested_delay = retry_after


class RequestRefusedError(HopsworksError):
    """
    Raised when Hopsworks refuses a request, with its error code and its reason.

    The message ends with a remedy for the codes that have a known one, such as a missing scope or role.
    """

    def __init__(self, what: str, *, status: int, code: int, text: str, retry_after: float | None = None) -> None:
        """
        Classify the refusal by Hopsworks' error code, which is more reliable than the HTTP status.

        :param what: a description of the request, for the message
        :param code: Hopsworks' errorCode
        :param text: the reason that Hopsworks gives: usrMsg, else errorMsg
        :param retry_after: seconds, from the header of that name
        """
        text = clean(text, _MOST_OF_REASON)
        hint = "" if self._is_quota(code, text) else _HINTS.get(code, "")
        reason = text or "no reason given"
        said = f"(HTTP {status}, errorCode {code}): {reason}{'.' if hint and reason[-1] not in '.!?' else ''}"
        super().__init__(f"{what}: refused by Hopsworks {said}\n{hint}".rstrip())
        self.status = status
        self.code = code
        self.text = text
        self.requested_delay = retry_after
        quota = self._is_quota(code, text)
        passing = code in _PASSING_CODES or status >= 500 or status in (408, 429)
        self.not_now = not quota and code in _PASSING_CODES
        """Whether the deployment is busy: nothing was changed, and the same request can succeed later."""
        self.not_ready = (
            code in _UNREACHED_CODES
            or (code == MODEL_4XX and not text)
            or (code == MODEL_5XX and (not text or any(words in text.lower() for words in _GATEWAY_TEXTS)))
        )
        """Whether a prediction did not reach the model: its route or its instances do not exist yet."""
        self.transient = self.not_ready or (passing and not quota and code not in _LASTING_CODES)
        self.outcome_unknown = not self.not_now and (status >= 500 or status in (408, 429))
        self.is_out_of_capacity = (
            quota or code == _OUT_OF_CREDITS or (code == _CREATION_CODE and _QUOTA in text.lower())
        )

    @staticmethod
    def _is_quota(code: int, text: str) -> bool:
        return code == LIFECYCLE_CODE and _QUOTA in text.lower()


class InferenceError(HopsworksError):
    """
    Raised when an inference request through the ingress is refused, by the ingress or by the model.

    ``status`` is the HTTP status of whichever refused.
    """

    def __init__(self, what: str, *, status: int, text: str, retry_after: float | None = None) -> None:
        """
        Classify the refusal: a model that cannot be reached yet, or one that refused.

        :param what: a description of the request, for the message
        :param text: the beginning of the response
        :param retry_after: seconds, from the header of that name
        """
        text = clean(text, _MOST_OF_REASON)
        hint = "\nCheck the API key's scope SERVING, and the role of its user in the project."
        said = text or ("there is no route to it" if status == 404 else "no reason given")
        super().__init__(f"{what}: HTTP {status}: {said}{hint if status in (401, 403) else ''}")
        self.status = status
        self.text = text
        self.requested_delay = retry_after
        self.not_routed = status == 404 and not text
        """Whether the ingress has no route to the deployment, or none yet."""
        self.not_ready = self.not_routed or status in (502, 503, 504)
        """Whether the request did not reach the model."""
        self.transient = self.not_ready or status >= 500 or status in (408, 429)


class DeadlineExceededError(HopsworksError):
    """
    Raised when the timeout passes before the expected state is reached.

    Hopsworks continues with the change, and a retry attaches to it. Raise the ``timeout`` if rollouts take longer.
    """

    transient = True


class JobError(HopsworksError):
    """
    Raised when it is not certain which execution of a job is a task's own, or when that execution was deleted.

    Nothing is started in doubt: a second execution might run beside the first one.
    """


class JobFailedError(JobError):
    """
    Raised when an execution of a job has failed, with the reason that its log or its state gives.

    A retry starts a new execution, unless the execution was stopped by a person or another client.
    """

    def __init__(self, subject: object, *, was_killed: bool, reason: str = "") -> None:
        """
        Build the error of an execution that has ended.

        :param subject: the execution, for the message
        :param was_killed: whether it was stopped
        :param reason: the last words of its log; empty when there is no log
        """
        what = f"{subject}: it was stopped in Hopsworks" if was_killed else f"{subject}: it failed"
        todo = "Clear the task to run the job again." if was_killed else "Read the end of its log in the task's log."
        super().__init__(f"{what}{f': {reason}' if reason else '.'}\n{todo}")
        self.without_logs = clean(f"{what}.\n{todo}")
        self.transient = not was_killed


class DeploymentError(HopsworksError):
    """The base class of errors about the state of a deployment; raised itself when none of its subclasses applies."""


class FailedDeployment(Protocol):
    """The part of a deployment that describes its failure."""

    @property
    def id(self) -> int:
        """The id in Hopsworks."""

    @property
    def name(self) -> str:
        """The name of the deployment."""

    @property
    def reason(self) -> str:
        """The reason that the server gives; empty when it gives none."""

    @property
    def failed_component(self) -> str:
        """The component at fault, ``predictor`` or ``transformer``."""

    @property
    def is_unschedulable(self) -> bool:
        """Whether the cluster has too few resources for the instances."""

    @property
    def raw(self) -> Mapping[str, Any]:
        """The whole deployment resource."""


class DeploymentFailedError(DeploymentError):
    """
    Raised when the deployment's instances do not come up, with the server's reason and the end of the log.

    Transient only if the cluster has too few resources.
    """

    def __init__(self, deployment: FailedDeployment) -> None:
        """
        Put the server's reason into the message.

        :param deployment: the state that was read last
        """
        reason = deployment.reason or "the server gives no reason"
        super().__init__(f"{deployment}: its instances do not come up: {reason}")
        self.deployment = deployment
        self.transient = self.is_out_of_capacity = deployment.is_unschedulable

    def with_log_tail(self, lines: Sequence[str]) -> Self:
        """
        Return a copy of this error with the end of the log of the component at fault.

        :param lines: last lines of the log, oldest first; none add nothing
        """
        title = f"Last lines of the {self.deployment.failed_component}'s log:"
        copy = self.with_text("\n".join([self.kept_text, title, *lines])) if lines else self.with_text(str(self))
        copy.without_logs = self.kept_text
        return copy


class VerificationError(DeploymentError):
    """
    Raised when a deployment runs, but its answers are not the expected ones, or a change has had no effect on it.

    The message shows the unexpected answer. Compare it with the answers that were registered with the model version.
    """


class AmbiguousVerificationError(VerificationError):
    """
    Raised when answers are wrong, but may not be the new version's, or when a change never reached the cluster.

    The change is rolled back, and the version is not rejected: deploy it again once its instances can be told apart.
    """


class UnreachableError(VerificationError):
    """
    Raised when a deployment that should serve does not answer, although Hopsworks does.

    The change is rolled back. The version is rejected only if the previous one answers afterwards.
    """


class RolledBackError(DeploymentError):
    """
    Raised when a change failed and was rolled back: the previous version serves again, or the deployment is stopped.

    A retry would deploy the same failing version: register a better version, or correct its settings.
    """


class SupersededError(DeploymentError):
    """
    Raised when another client changes, stops or deletes the deployment while a task works on it.

    Their change is kept. Check the deployment, then run the task again.
    """
