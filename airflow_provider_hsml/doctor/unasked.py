"""Open questions that the doctor does not ask, each with the reason, so that the report names them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .check import Question, Verdict, always

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .check import Finding
    from .known import Known

_SECTION = "Never asked"
_TABLE = (
    ("key-wrong", "Which code has a wrong API key?", "401/320012 or 401/320013", "the doctor has only one key"),
    ("quota", "Which codes have exhausted quotas?", "400/240003 or 400/240026", "it would use up the quota"),
    ("idle", "When is a deployment without requests Idle?", "after minutes", "it takes too long"),
    ("unschedulable", "Which statuses has a deployment without room?", "Failed", "it would need all resources"),
    ("vllm-path", "Which path has a vLLM deployment up to 4.6?", "/openai/v1/...", "it needs a large model and a GPU"),
    ("grpc", "How is a gRPC deployment called?", "by host, from 4.8 on by path", "this provider speaks no gRPC"),
    ("request-id", "Is x-request-id kept on the way to a model?", "only at the ingress", "this provider sends none"),
    ("credentials", "Which keys have the project's certificates?", "caChain and others", "the answer is a secret"),
    (
        "schema-stale",
        "What is the reason of a pod with a stale schema?",
        "Failed to run: ...",
        "it needs a feature view",
    ),
    ("view-keys", "Which keys of featureView are read in PUT model?", "name, version", "it needs a feature view"),
    ("monitoring-off", "Does a disabled configuration stop its job?", "no", "it needs a configuration of monitoring"),
    ("execution-variables", "Has an execution its envVars?", "unknown", "it needs a job"),
    ("kafka", "Which scope do Kafka topics need?", "KAFKA", "this provider reads no topics"),
)


def unasked(known: Known) -> Iterator[Finding]:
    """Return a finding for each open question that is never asked."""
    for name, question, expected, reason in _TABLE:
        asked = Question(id=name, section=_SECTION, question=question, expected=always(expected))
        yield asked.finding(reason, Verdict.NOT_ASKED, known.line)
