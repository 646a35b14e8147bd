"""The questions that only a deployment of the doctor's own answers: how it is created, started, changed and deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .check import Question, always

if TYPE_CHECKING:
    from .check import Expected

_MAKE, _START, _ASK = "Own deployment: create", "Own deployment: start", "Own deployment: predictions"
_UPDATE, _STOP, _END = "Own deployment: update and rollback", "Own deployment: stop", "Own deployment: failure, delete"
_LIVE = ("*Running", "*Idle")


def _question(name: str, section: str, question: str, *answers: str, later: Expected | None = None) -> Question:
    return Question(id=name, section=section, question=question, expected={**always(*answers), **(later or {})})


_TABLE = (
    _question(
        "write-run", _MAKE, "Did the trial with a model and a deployment of the doctor's own run to its end?", "yes"
    ),
    _question(
        "folder-again", _MAKE, "How is the creation of a folder refused that exists?", "400/110047", "400/110012"
    ),
    _question("create", _MAKE, "How is PUT serving without an id answered?", "201"),
    _question("create-status", _MAKE, "Has the answer of PUT a status? It is never read there.", "null", "a text"),
    _question("created", _MAKE, "Which statuses has a new deployment?", "Created", "Creating > Created"),
    _question("created-revision", _MAKE, "Has a deployment a revision before its first start?", "null"),
    _question("create-again", _MAKE, "How is a second deployment of the same name refused?", "400/240011"),
    _question("predict-created", _MAKE, "How are predictions refused before the first start?", "400/250001"),
    _question(
        "stop-created", _MAKE, "Is STOP refused in Created?", "400/240003", later={(4, 0): ("400/240003", "200")}
    ),
    _question("start", _START, "How is START answered?", "200"),
    _question("start-again", _START, "How is a second START refused?", "400/240003"),
    _question(
        "put-starting",
        _START,
        "How is PUT answered while the deployment is Starting?",
        *("500/240002", "500/240004"),
        later={(4, 0): ("500/240002", "500/240004", "201")},
    ),
    _question("started", _START, "Which statuses follow START?", *_LIVE),
    _question("started-answers", _START, "How are predictions answered after START?", "*200 from the first version"),
    _question("started-revision", _START, "In which form is the revision after the first start?", "a text", "a number"),
    _question("proxy-prediction", _ASK, "Do predictions through Hopsworks work?", "200 from the first version"),
    _question(
        "proxy-413",
        _ASK,
        "What does the proxy keep of a model's 413?",
        "400/250008 with the model's text, without retry-after",
    ),
    _question(
        "proxy-429",
        _ASK,
        "What does the proxy keep of a model's 429 with Retry-After?",
        "400/250008 with the model's text, without retry-after",
    ),
    _question(
        "proxy-503",
        _ASK,
        "What does the proxy keep of a model's 503 with Retry-After?",
        "500/250007 with the model's text, without retry-after",
    ),
    _question("ingress-prediction", _ASK, "Do predictions at the ingress work?", "200 from the first version"),
    _question(
        "ingress-413", _ASK, "What does the ingress keep of a model's 413?", "413 with the model's text, *retry-after"
    ),
    _question(
        "ingress-429",
        _ASK,
        "What does the ingress keep of a model's 429 with Retry-After?",
        "429 with the model's text, with retry-after",
    ),
    _question("logs", _ASK, "In which form are logs?", "a bare list of content, instanceName*", "an empty list"),
    _question("put-unchanged", _UPDATE, "Does PUT without a change make a revision?", "201, no new revision"),
    _question(
        "put-description",
        _UPDATE,
        "Does PUT of another description make a revision, and so restart the instances?",
        *("201, a new revision", "201, no new revision"),
    ),
    _question("update", _UPDATE, "How is PUT of another model version answered?", "201"),
    _question("updated", _UPDATE, "Which statuses follow the update?", *_LIVE),
    _question("updated-answers", _UPDATE, "Which version answers after the update?", "*200 from the second version"),
    _question(
        "updated-stale",
        _UPDATE,
        "Is the deployment Running or Idle while the old version still answers?",
        *("yes", "no"),
    ),
    _question("updated-revision", _UPDATE, "Does the update make a revision?", "a new revision"),
    _question(
        "own-versions",
        _UPDATE,
        "In which form are the versions after an update?",
        "{count, items}, newest first, one active",
    ),
    _question("put-outdated", _UPDATE, "How is PUT refused whose 'version' is no longer the active one?", "409/*"),
    _question("rollback", _UPDATE, "How is a rollback to the version before answered?", "20?"),
    _question("rolled-back", _UPDATE, "Which statuses follow the rollback?", *_LIVE),
    _question(
        "rolled-back-answers", _UPDATE, "Which version answers after the rollback?", "*200 from the first version"
    ),
    _question("rollback-updating", _UPDATE, "Is a rollback accepted while Updating?", "20?"),
    _question(
        "stop-updating",
        _UPDATE,
        "Is STOP refused while Updating?",
        "400/240003",
        later={(4, 0): ("400/240003", "200")},
    ),
    _question("stop", _STOP, "How is STOP answered?", "200"),
    _question("stopped", _STOP, "Which statuses follow STOP?", "*Stopped"),
    _question("stop-again", _STOP, "Is STOP refused in Stopped?", "400/240003", later={(4, 0): ("400/240003", "200")}),
    _question("logs-stopped", _STOP, "How are logs refused in Stopped?", "404/240027", "an empty list"),
    _question("predict-stopped", _STOP, "How are predictions refused in Stopped?", "400/250001"),
    _question("model-in-use", _STOP, "How is the deletion of a model version refused that serves?", "400/360009"),
    _question("failed", _END, "Which statuses has a deployment whose script fails?", "*Failed"),
    _question("failed-condition", _END, "What is the condition then?", "STARTED*", "INITIALIZED*"),
    _question("start-failed", _END, "Is START refused in Failed?", "400/240003", later={(4, 0): ("400/240003", "200")}),
    _question("stop-failed", _END, "Is STOP accepted in Failed?", "200"),
    _question("delete", _END, "How is DELETE answered?", "200"),
    _question("deleted", _END, "How is the deployment refused after that?", "404/240000"),
    _question("model-delete-absent", _END, "How is the deletion of a missing version of a model answered?", "204"),
)
QUESTIONS = {one.id: one for one in _TABLE}
"""The questions by id, in the order in which they are asked."""
NEEDS_VERSIONS = frozenset(
    {"own-versions", "put-outdated", "rollback", "rolled-back", "rolled-back-answers", "rollback-updating"}
)
"""The questions that need a Hopsworks that keeps versions of deployments."""
