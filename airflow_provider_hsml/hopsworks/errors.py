"""
What can go wrong between us and Hopsworks.

::

    HopsworksError
    ├── InvalidInput        what was asked for is wrong; found before anything was changed
    │   └── NotFound        ... because it names something that does not exist
    ├── Unsupported         this Hopsworks does not know what was asked for; found by what it did
    ├── NoAnswer            nobody answered, or not to the end
    │   └── Untrusted       TLS: the server's certificate is not trusted; nothing was sent
    ├── NotUnderstood       an answer that is not Hopsworks': HTML, empty, a redirect, a key missing
    ├── Refused             Hopsworks said no, with its errorCode
    ├── ModelRefused        the ingress, or a model asked through it, said no
    ├── NotInTime           the deadline passed
    └── DeploymentError     what became of a deployment
        ├── DeploymentFailed    its instances do not come up
        ├── NotVerified         it serves, but does not answer as it should
        ├── TakenBack           a change failed and was rolled back
        └── Superseded          somebody else changed, stopped or deleted it meanwhile

Two questions decide what happens next, and every error answers both:

- ``transient``: can the same thing succeed later, unchanged? (Airflow should retry the task.)
- ``in_doubt``: may a change that was being sent have been carried out all the same? (Look before sending it again.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_QUOTA = "quota"

# Codes of hopsworks-api with which the server says 'not now': the deployment is moving, or its instances do not answer
# yet.
BUSY_CODES = frozenset({240001, 240002, 240004})
LIFECYCLE_CODE = 240003
SCOPE_MISSING = 320004
_PASSING_CODES = BUSY_CODES | {LIFECYCLE_CODE}
_LASTING_CODES = frozenset({360008})
# The instances cannot be reached yet. 250008 and 250007 carry the model's own refusals too: the text tells them apart.
_UNREACHED_CODES = frozenset({250001, 250002, 250003, 250006, 250012})
_MODEL_4XX, _MODEL_5XX = 250008, 250007
_GATEWAY_TEXTS = ("no healthy upstream", "upstream connect error", "upstream request timeout", "service unavailable")

_HINTS = {
    120012: "A Hopsworks without its data science profile has no Model Serving: ask the administrator to enable it.",
    150004: "Check the project's name in the connection (extra 'project') or in the argument 'project'.",
    160000: "Ask the project's owner to add the API key's user to the project.",
    150068: "Changing deployments needs the role 'Data owner' in the project.",
    200003: "Check the API key in the connection's password.",
    240003: "Look at the deployment's state in the Hopsworks UI.",
    240006: "Register the model version first, or name one that exists.",
    240011: "Choose another deployment name.",
    240013: "A deployment keeps its model server for life: deploy this model under another deployment name.",
    240026: "Stop or delete deployments that are not needed, or ask for a larger quota.",
    250009: "Predictions take an API key, not a token: set HOPSWORKS_API_KEY, or make an Airflow connection.",
    320002: "Check the API key in the connection's password: it may have been deleted.",
    SCOPE_MISSING: "Create an API key with the scopes PROJECT, SERVING and MODELREGISTRY, and with DATASET_VIEW, "
    "DATASET_CREATE and DATASET_DELETE to register models.",
    320012: "Check the API key in the connection's password.",
    320013: "Check the API key in the connection's password: it may have been deleted.",
    370000: "Tags have a schema: ask an administrator to make it, in Hopsworks below Cluster settings, Tag schemas.",
    360009: "Delete or update the deployments that use this model version first.",
}


class HopsworksError(Exception):
    """Any failure in talking to Hopsworks. Catch this one to catch all."""

    transient = False
    in_doubt = False
    retry_after: float | None = None
    """Seconds after which the server asks to try again, where it said so."""
    without_logs: str = ""
    """Its text without lines of logs; empty where it has none."""
    record: Any = None
    """The ``promotion.record.Record`` of the promotion that this error ended; None if it ended none."""

    @property
    def kept_text(self) -> str:
        """Its text as it may be kept, in a record or a journal: nobody knows what a script prints into its log."""
        return self.without_logs or str(self)

    def with_text(self, text: str) -> Self:
        """Return a copy of this error that says ``text``."""
        copy = type(self).__new__(type(self), text)
        copy.__dict__.update(self.__dict__)
        return copy

    def extended(self, line: str) -> Self:
        """Return a copy of this error that says one more line."""
        copy = self.with_text(f"{self}\n{line}")
        copy.without_logs = f"{self.kept_text}\n{line}"
        return copy

    def followed_by(self, kind: type[HopsworksError], what: str) -> HopsworksError:
        """
        Make the error that ends it: of this, and of what came after it. Lines of logs stay in the task's log.

        :param kind: the class of the new one
        :param what: what came after it, a sentence
        """
        return kind(f"{self.kept_text}\n{what}")


class InvalidInputError(HopsworksError):
    """What was asked for is wrong, and was refused before anything was changed."""


class NotFoundError(InvalidInputError):
    """The model, version or deployment that was named does not exist."""


class UnsupportedError(HopsworksError):
    """This Hopsworks does not know something that was asked for, and left it out of what it did."""


class NoResponseError(HopsworksError):
    """Nobody answered: connection refused, name unknown, timeout, or an answer that was cut off."""

    transient = True

    def __init__(self, message: str, *, sent: bool = True) -> None:
        """
        Remember whether the request can have reached the server.

        :param message: what was asked of whom, and how it ended
        :param sent: False when no connection was made at all, so that nothing can have happened there
        """
        super().__init__(message)
        self.sent = sent
        self.in_doubt = sent


class CertificateError(NoResponseError):
    """The server's TLS certificate does not verify. Nothing was sent."""

    transient = False

    def __init__(self, message: str) -> None:
        """
        Say whose certificate it was.

        :param message: the host, and what to do
        """
        super().__init__(message, sent=False)


class UnexpectedResponseError(HopsworksError):
    """An answer, but not one of Hopsworks: from a proxy in between, or of another program."""

    transient = True
    in_doubt = True

    def __init__(self, message: str, *, status: int, retry_after: float | None = None) -> None:
        """
        Keep what little is known of the answer.

        :param message: what was asked, and how the answer began
        :param status: HTTP status
        :param retry_after: seconds, from the header of that name
        """
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class RequestRefusedError(HopsworksError):
    """Hopsworks refused the request and said why, by an error code of its own."""

    def __init__(self, what: str, *, status: int, code: int, text: str, retry_after: float | None = None) -> None:
        """
        Classify the refusal by Hopsworks' error code, which is more reliable than the HTTP status.

        :param what: what was asked, for the message
        :param status: HTTP status
        :param code: Hopsworks' errorCode
        :param text: Hopsworks' own words (usrMsg, else errorMsg)
        :param retry_after: seconds, from the header of that name
        """
        hint = "" if self._is_quota(code, text) else _HINTS.get(code, "")
        reason = text or "no reason given"
        said = f"(HTTP {status}, errorCode {code}): {reason}{'.' if hint and reason[-1] not in '.!?' else ''}"
        super().__init__(f"{what}: refused by Hopsworks {said} {hint}".rstrip())
        self.status = status
        self.code = code
        self.text = text
        self.retry_after = retry_after
        quota = self._is_quota(code, text)
        passing = code in _PASSING_CODES or status >= 500 or status in (408, 429)
        self.not_now = not quota and code in _PASSING_CODES
        """Whether the deployment is moving: nothing was changed, and the same request will do later."""
        self.not_ready = (
            code in _UNREACHED_CODES
            or (code == _MODEL_4XX and not text)
            or (code == _MODEL_5XX and (not text or any(words in text.lower() for words in _GATEWAY_TEXTS)))
        )
        """Whether a prediction did not get to the model: its route or its instances are not there yet."""
        self.transient = self.not_ready or (passing and not quota and code not in _LASTING_CODES)
        self.in_doubt = not self.not_now and (status >= 500 or status in (408, 429))

    @staticmethod
    def _is_quota(code: int, text: str) -> bool:
        return code == LIFECYCLE_CODE and _QUOTA in text.lower()


class InferenceError(HopsworksError):
    """A request at the ingress was refused: by the ingress, or by the model itself, whose status this is then."""

    def __init__(self, what: str, *, status: int, text: str, retry_after: float | None = None) -> None:
        """
        Tell a model that cannot be reached from one that refused.

        :param what: what was asked, for the message
        :param status: HTTP status
        :param text: the beginning of the answer
        :param retry_after: seconds, from the header of that name
        """
        hint = " Check the API key's scope SERVING, and the role of its user in the project."
        said = text or ("there is no route to it" if status == 404 else "no reason given")
        super().__init__(f"{what}: HTTP {status}: {said}{hint if status in (401, 403) else ''}")
        self.status = status
        self.text = text
        self.retry_after = retry_after
        self.not_routed = status == 404 and not text
        """Whether the ingress does not know the deployment, or not yet."""
        self.not_ready = self.not_routed or status in (502, 503, 504)
        """Whether the request did not get to the model."""
        self.transient = self.not_ready or status >= 500 or status in (408, 429)


class DeadlineExceededError(HopsworksError):
    """The deadline passed before what was waited for had happened. A retry attaches to what is under way."""

    transient = True


class DeploymentError(HopsworksError):
    """What became of a deployment, when it is not what was asked for."""


class FailedDeployment(Protocol):
    """The part of a deployment that describes its failure."""

    @property
    def id(self) -> int:
        """Hopsworks' number for it."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def reason(self) -> str:
        """The reason that the server gives, or an empty text."""

    @property
    def failed_component(self) -> str:
        """``predictor`` or ``transformer``."""

    @property
    def is_unschedulable(self) -> bool:
        """Whether the cluster has no room for its instances."""

    @property
    def raw(self) -> Mapping[str, Any]:
        """The whole deployment resource."""


class DeploymentFailedError(DeploymentError):
    """The deployment's instances do not come up. Carries the server's reason and the end of the log."""

    def __init__(self, deployment: FailedDeployment, *, log_tail: Sequence[str] = ()) -> None:
        """
        Put the end of the log into the message, so that nobody has to look for it elsewhere.

        :param deployment: as it was seen last
        :param log_tail: last lines of the component at fault, oldest first
        """
        reason = deployment.reason or "the server gives no reason"
        self.without_logs = f"{deployment}: its instances do not come up: {reason}"
        lines = [self.without_logs]
        lines += [f"Last lines of the {deployment.failed_component}'s log:", *log_tail] if log_tail else []
        super().__init__("\n".join(lines))
        self.deployment = deployment
        self.transient = deployment.is_unschedulable


class VerificationError(DeploymentError):
    """The deployment runs, but its answers are not those that were expected."""


class RolledBackError(DeploymentError):
    """A change failed, and what was there before is there again: trying again would only bring the bad one back."""


class SupersededError(DeploymentError):
    """Somebody else changed, stopped or deleted the deployment while it was being worked on."""
