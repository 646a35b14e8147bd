"""
A model of what promotions promise, which hypothesis plays against a real local server.

After each step the process is asked who answers, and that is compared with the promise:

- what served before a task serves after it, however the task ended, be it by a kill;
- where the task was not killed, what serves is the version of before, as it was, or the new one, and well;
- there is one deployment, and what answers well is not stopped;
- a version that was rejected is not deployed by its metric again;
- what a stranger has changed is neither overwritten unread nor rolled back.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from airflow_provider_hsml.hopsworks.errors import (
    DeploymentFailedError,
    HopsworksError,
    InvalidInputError,
    RolledBackError,
    SupersededError,
    VerificationError,
)
from airflow_provider_hsml.local import Hold, Looks, LostChange, RequestFault, StartFault
from airflow_provider_hsml.operators import RestartDeploymentOperator
from tests.support.promotion_scene import Fate, Killed, Kind, Scene, Seen, Terminated, Version, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.promotion.record import Record
    from airflow_provider_hsml.local.cluster.faults import Fault

_numbers = itertools.count()
_PACES = st.sampled_from([0, 1, 2, 3])
_METRICS = st.sampled_from([0.95, None, 0.5, 0.7, 0.8, 0.9, 1.0])
_KINDS = st.sampled_from([*Kind, Kind.GOOD, Kind.GOOD])
_GATES = st.sampled_from(
    [
        {},
        {"min_improvement": 0.05},
        {"floor": 0.6},
        {"allow_downgrade": True},
        {"missing": "challenger"},
        {"retry_rejected": True},
    ]
)
_BACK = st.sampled_from([0, 1, 2, 3, 4, 5, 6])
"""How many versions back from the newest."""
_SPECS = st.sampled_from(
    [
        {},
        {},
        {},
        {"scaling": {"min_instances": 2}},
        {"scaling": {"min_instances": 1}},
        {"description": "another"},
        {"env_vars": {"LEVEL": "1"}},
        {"env_vars": {"LEVEL": "2", "MORE": "x"}},
        {"inference_batcher": {"enabled": True}},
    ]
)
_ROLLOUTS = st.sampled_from(["rolling", "rolling", "rolling", "recreate"])
_STRANGERS = st.sampled_from(["STOP", "START", "DELETE", "version", "version", "memory", "memory", "inferenceLogging"])
_FAULTS: st.SearchStrategy[Fault] = st.sampled_from(
    [
        RequestFault("PUT", "**/serving", drop="after"),
        RequestFault("PUT", "**/serving", drop="before"),
        RequestFault("PUT", "**/serving", status=503),
        RequestFault("POST", "**/serving/*", drop="after"),
        RequestFault("POST", "**/serving/*", drop="before"),
        RequestFault("GET", "**/serving", status=502, times=2),
        RequestFault("GET", "**/serving/*", drop="after"),
        RequestFault("POST", "**:predict", status=503),
        RequestFault("POST", "**/upload/**", drop="before"),
        RequestFault("POST", "**/upload/**", drop="after", times=3),
        RequestFault("GET", "**/dataset/**", status=500, times=5),
        RequestFault("*", "**", drop="before", times=6),
        RequestFault("*", "**", status=503, times=12),
        StartFault(),
        StartFault(times=2),
        StartFault(stage="SCHEDULED"),
        StartFault(stage="READY", lasts=0.01),
        LostChange(),
        Hold(status="Running"),
        Hold(status="Updating"),
    ]
)
_IN_A_TASK = [*["alone"] * 4, *["fault"] * 2, *["kill"] * 3, "terminate", *["stranger"] * 2, "another"]
_NOT_CONFIGURED = frozenset(
    {"id", "name", "version", "revision", "deployed", "created", "creator", "status", "condition", "answering"}
    | {"availableInstances", "availableTransformerInstances", "description"}
)


@dataclass
class Task:
    """A task, which can be tried again."""

    what: str
    do: Callable[[Worker, str], Record]
    recreates: bool = False
    key: str = field(default_factory=lambda: f"dag/run-{next(_numbers)}/task/-1")
    defers: bool = False
    resume: Callable[[Worker, dict[str, Any], Any], Record] = Worker.resume_promotion

    def run(self, worker: Worker) -> Record:
        """Run it to its end, whichever processes that takes."""
        return worker.finish(lambda worker: self.do(worker, self.key), self.resume)

    def again(self) -> Task:
        """Return the same task of another run."""
        return Task(self.what, self.do, self.recreates, defers=self.defers, resume=self.resume)


class Store(dict[str, Any]):
    """The state that Airflow keeps for the tries of a task."""

    set = dict.__setitem__

    def delete(self, key: str) -> None:
        self.pop(key, None)


class PromotionMachine(RuleBasedStateMachine):
    """Promotions, failures, kills and strangers of one deployment."""

    scene: ClassVar[Scene]
    steps: ClassVar[Counter[str]] = Counter()
    ends: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.name = f"model{next(_numbers)}"
        self.versions: dict[int, Version] = {}
        self.former: Seen | None = Seen()
        """What was there when all was well and known, which a failed task is to bring back; None: it is not known."""
        self.before = Seen()
        """What was there before the task that runs, or was the last."""
        self.rejected: dict[int, set[str | None]] = {}
        """The keys under which each version was rejected: its resources; None where these do not matter."""
        self.strange: dict[str, Any] = {}
        """Settings that only strangers change, as the last of them left them."""
        self.theirs: list[tuple[str, int | None]] = []
        """What strangers did in the task that runs, or was the last, and the version in the row then."""
        self.others: list[Record | BaseException] = []
        """How tasks ended that ran in the middle of this one."""
        self.previous: int | None = None
        """The version that the last promotion took the place of; None: it is not known."""
        self.is_unverified = self.was_unverified = False
        """Whether the last task, and the one before it, left a change that is not verified."""
        self.brought_back: int | None = None
        """The version that a rollback by hand brings back, which runs or is not verified yet."""
        self.may_be_down = False
        """Whether a task that stops the deployment for its change was broken off."""
        self.is_start_unverified = False
        """
        Whether nothing served before the last start, and no promotion has verified the deployment since.

        To take that back is to stop it. It counts only where ``former`` is not known: a stranger, or a fault on the way
        back, came before that start. The journal has the stopped state as the one to restore, and the model has none.
        """
        self.exists = False
        self.last: Task | None = None
        self.fresh = itertools.count(1)

    @initialize(
        creating=_PACES, stale=_PACES, updating=_PACES, stopping=_PACES, kinds=st.lists(_KINDS, min_size=3, max_size=3)
    )
    def begin(self, creating: int, stale: int, updating: int, stopping: int, kinds: list[Kind]) -> None:
        self.scene.backoff(*(Looks(number) for number in (creating, updating, stale, updating, stopping)))
        self.register(Kind.GOOD, 0.7)
        for kind, metric in zip(kinds, (0.8, 0.9, 0.7), strict=True):
            self.register(kind, metric)

    def teardown(self) -> None:
        self.scene.serving.faults.clear()
        if self.scene.look(self.name).status is not None:
            self.scene.command(self.name, "DELETE")

    # --- Steps --------------------------------------------------------------------------------------------------------
    #
    # Whether the deployment exists may depend on time, and hypothesis needs the same draws each time: so a rule asks
    # for that after its draws, and not in a precondition.

    @rule(kind=_KINDS, metric=_METRICS)
    def register(self, kind: Kind, metric: float | None) -> None:
        answer = 10 * (len(self.versions) + 1)
        version = self.scene.register(self.name, kind, answer, metric)
        self.versions[version.number] = version
        self.steps[f"register {kind.name}"] += 1

    @rule(back=_BACK, spec=_SPECS, rollout=_ROLLOUTS, defers=st.booleans(), data=st.data())
    def deploy(self, back: int, spec: dict[str, Any], rollout: str, data: st.DataObject, *, defers: bool) -> None:
        """Deploy a version by its number."""
        task = self._deployment(self._version(back), spec, rollout)
        self._play(replace(task, defers=defers), self._fate(data, spec))

    @rule(gate=_GATES, spec=_SPECS, defers=st.booleans(), data=st.data())
    def deploy_best(self, gate: dict[str, Any], spec: dict[str, Any], data: st.DataObject, *, defers: bool) -> None:
        self._play(replace(self._deployment_of_the_best(gate, spec), defers=defers), self._fate(data, spec))

    @rule(gate=_GATES)
    def plan(self, gate: dict[str, Any]) -> None:
        """See what would happen, which changes nothing."""
        if not self.exists:
            return

        def do(worker: Worker, key: str) -> Record:
            return worker.deploy_best_model(
                self.name, "accuracy", "max", gate=gate, plan_only=True, run_key=key, timeout=300
            )

        before = self.scene.settle(self.name)
        worker = Worker(self.scene, Fate(), self.name)
        end = self._run(Task("plan", do), worker)
        assert self.scene.settle(self.name) == before
        assert {sent.method for sent in worker.sent} <= {"GET"}
        self.steps["plan"] += 1
        self.ends[_name(end)] += 1

    @rule(to=st.sampled_from(["previous", "previous", "previous", 1, 2, 3]), defers=st.booleans(), data=st.data())
    def roll_back(self, to: int | str, data: st.DataObject, *, defers: bool) -> None:
        """Roll back by hand."""

        def do(worker: Worker, key: str) -> Record:
            return worker.rollback_deployment(self.name, to, run_key=key, timeout=300)

        fate = self._fate(data, {})
        if not self.exists:
            return
        previous = self.previous if to == "previous" else None
        end = self._play(Task("roll back", do, defers=defers), fate)
        if previous is not None and not isinstance(end, BaseException) and not (self.theirs or self.others):
            assert end.model_version == previous, "another version than the one before"

    @rule(rolling=st.booleans(), defers=st.booleans(), data=st.data())
    def restart(self, data: st.DataObject, *, rolling: bool, defers: bool) -> None:
        """Restart the deployment, as the operator does."""
        rolling = rolling and self.scene.serving.world.line.knows("predictorEnvVars")
        operator = RestartDeploymentOperator(task_id="restart", deployment_name=self.name, rolling=rolling, timeout=300)
        stores: defaultdict[str, Store] = defaultdict(Store)

        def do(worker: Worker, key: str) -> Any:
            operator.__dict__["hook"] = worker
            return operator.act({"task_state_store": stores[key]})  # type: ignore[typeddict-item]

        def resume(worker: Worker, left: dict[str, Any], event: Any) -> Any:
            operator.__dict__["hook"] = worker
            return operator.act_after_wait({"task_state_store": Store()}, left, event)  # type: ignore[typeddict-item]

        fate = self._fate(data, {})
        if self.exists:
            self._play(Task("restart", do, not rolling, defers=defers, resume=resume), fate)

    @precondition(lambda self: self.last is not None)
    @rule(is_next_run=st.booleans())
    def retry(self, *, is_next_run: bool) -> None:
        """Run the last task again: as the same, or as the next night's."""
        assert self.last is not None
        again = self.last
        self._play(again.again() if is_next_run else again, Fate())
        self.steps["retry"] += 1

    @rule(how=_STRANGERS, back=_BACK)
    def stranger(self, how: str, back: int) -> None:
        """Somebody changes the deployment by plain REST."""
        if not self.exists:
            return
        before = self.scene.settle(self.name)
        # What was left by who was killed comes to be what was there before that, in the next run.
        is_left = self.former is not None and before.row.get("modelVersion") != self.former.row.get("modelVersion")
        is_known = self.former is not None and not (self.may_be_down or is_left)
        if self._disturb(how, back):
            seen = self.scene.settle(self.name)
            is_fine = seen.version is None or self._is_served(seen)
            self.former = seen if is_known and is_fine else None
            self.previous, self.exists = None, seen.status is not None
        self.steps[f"stranger {how}"] += 1

    # --- What the steps are made of -----------------------------------------------------------------------------------

    def _deployment(self, version: int, spec: dict[str, Any], rollout: str) -> Task:
        def do(worker: Worker, key: str) -> Record:
            return worker.deploy_model(self.name, version, spec=spec, rollout=rollout, run_key=key, timeout=300)

        return Task(f"deploy {version}, {spec}, {rollout}", do, recreates=rollout == "recreate")

    def _deployment_of_the_best(self, gate: dict[str, Any], spec: dict[str, Any]) -> Task:
        def do(worker: Worker, key: str) -> Record:
            record: Record | HopsworksError
            try:
                record = worker.deploy_best_model(
                    self.name, "accuracy", "max", gate=gate, spec=spec, run_key=key, timeout=300
                )
                self._check_rejected(record, gate)
            except HopsworksError as error:
                self._check_rejected(error.record, gate)
                raise
            return record

        return Task(f"deploy best, {gate}, {spec}", do)

    def _check_rejected(self, record: Record | None, gate: dict[str, Any]) -> None:
        # A version that was deployed by its number, or brought back by hand, and is not verified yet: it is settled and
        # not chosen.
        unverified = [self.brought_back, *([self.before.row.get("modelVersion")] if self.was_unverified else [])]
        is_settled = record is not None and record.model_version in unverified
        is_allowed = gate.get("retry_rejected") or self.theirs or is_settled
        if record is None or is_allowed or (record.is_kept and self.before.is_up):
            return
        keys = self.rejected.get(record.model_version or 0, set())
        is_another = bool(self.before.row) and not {None, _resources(self.before)} & keys and len(keys) == 1
        assert not keys or is_another, "a rejected version was deployed again"

    def _fate(self, data: st.DataObject, spec: dict[str, Any]) -> Fate:
        wait = data.draw(st.sampled_from(["", "", "", "unknown", "unreported"]))
        fate = self._what_happens(data, spec)
        fate.wait = wait
        return fate

    def _what_happens(self, data: st.DataObject, spec: dict[str, Any]) -> Fate:
        what = data.draw(st.sampled_from(_IN_A_TASK))
        # A task that is killed before it learns that Hopsworks knows no environment variables is no use to anybody.
        is_unknown = "env_vars" in spec and not self.scene.serving.world.line.knows("predictorEnvVars")
        if what == "alone" or is_unknown:
            return Fate()
        if what == "fault":
            return Fate(faults=data.draw(st.lists(_FAULTS, min_size=1, max_size=3)))
        at, how, back = data.draw(st.integers(1, 70)), data.draw(_STRANGERS), data.draw(_BACK)
        if what == "stranger":
            return Fate(at, happens=lambda: self._disturb(how, back), what=f"{how} {back}")
        if what == "another":
            other = self._deployment(self._version(back), {}, "rolling")
            other = other if how != "version" else self._deployment_of_the_best({}, {})
            return Fate(at, happens=lambda: self._run_beside(other), what=other.what)
        return Fate(at, ends_by=Killed if what == "kill" else Terminated)

    def _version(self, back: int) -> int:
        return 1 + (len(self.versions) - 1 - back) % len(self.versions)

    def _disturb(self, how: str, back: int) -> bool:
        """Be a stranger; tell whether anything changed."""
        with self.scene.serving_well():
            row = self.scene.strangers_row(self.name)
            if row is None:
                return False
            match how:
                case "version":
                    version = self._version(back)
                    path = f"/Projects/{self.scene.project.name}/Models/{self.name}"
                    done = self.scene.change(self.name, modelVersion=version, modelPath=path)
                    done = done and row.get("modelVersion") != version
                case "memory":
                    resources = row["predictorResources"]
                    limits = {**resources["limits"], "memory": 2000 + next(self.fresh)}
                    done = self._set("predictorResources", {**resources, "limits": limits})
                case "inferenceLogging":
                    done = self._set(how, "ALL" if row[how] == "PREDICTIONS" else "PREDICTIONS")
                case _:
                    done = self.scene.command(self.name, how)
                    if done and how == "DELETE":
                        self.strange.clear()
            if done:
                row = self.scene.strangers_row(self.name) or {}
                self.theirs.append((how, row.get("modelVersion")))
        return done

    def _set(self, key: str, value: Any) -> bool:
        done = self.scene.change(self.name, **{key: value})
        if done:
            self.strange[key] = value
        return done

    def _run_beside(self, task: Task) -> None:
        with self.scene.serving_well():
            self.others.append(self._run(task, Worker(self.scene, Fate(), self.name)))

    def _is_brought_back(self, model: ModelVersion) -> None:
        self.brought_back = model.version

    def _is_well(self, seen: Seen) -> bool:
        if seen.version is None:
            return False
        version = self.versions[seen.version]
        return version.kind.is_healthy and seen.answer == version.answer

    def _is_served(self, seen: Seen) -> bool:
        return self._is_well(seen) and seen.version == seen.row["modelVersion"]

    def _run(self, task: Task, worker: Worker) -> Record | BaseException:
        try:
            return task.run(worker)
        except (HopsworksError, Killed, Terminated) as error:
            return error

    def _play(self, task: Task, fate: Fate) -> Record | BaseException:
        """Run a task, and see whether what is there then is what was promised."""
        before = self.before = self.scene.settle(self.name)
        self.was_unverified, self.is_unverified = self.is_unverified, False
        self.last, self.theirs, self.others = task, [], []
        is_rollback = task.what == "roll back"
        on_decided = self._is_brought_back if is_rollback else lambda _model: None
        worker = Worker(self.scene, fate, self.name, defers=task.defers, on_decided=on_decided)
        with self.scene.spoilt(fate.faults) as faults_left:
            end = self._run(task, worker)
            is_faulty = faults_left() != list(fate.faults) or any(isinstance(fault, Hold) for fault in fate.faults)
        after = self.scene.settle(self.name)
        is_left = after == before and isinstance(end, BaseException) and self.was_unverified
        is_unreported = worker.deferrals > 0 and fate.wait == "unreported"
        is_broken_off = isinstance(end, Killed | Terminated) and after != before
        is_said = isinstance(end, HopsworksError) and end.is_unverified
        self.is_unverified = is_left or is_unreported or is_broken_off or is_said
        if not (task.what == "restart" or is_left or (is_rollback and self.is_unverified)):
            self.brought_back = None
        self.steps[task.what.partition(",")[0].partition(" 1")[0].rstrip("0123456789 ")] += 1
        self.ends[_name(end)] += 1
        self.steps["deferred waits"] += worker.deferrals
        story = [
            f"  {before}\n  {task.what}, defers {worker.deferrals} times, {fate}: {_name(end)} {end}",
            f"  beside it: {self.theirs} {self.others}\n  {after}",
            *(f"    {number} {sent}" for number, sent in enumerate(worker.sent, 1)),
            f"  of which we know: {self.former}",
        ]
        note("\n".join(story))
        try:
            self._judge(task, before, after, end, worker, is_faulty=is_faulty)
        except AssertionError:
            # Hypothesis plays it again, and says nothing of what does not fail the same way then.
            print("\n".join(story))
            raise
        self.exists = after.status is not None
        return end

    # --- The promise --------------------------------------------------------------------------------------------------

    def _judge(
        self, task: Task, before: Seen, after: Seen, end: Record | BaseException, worker: Worker, *, is_faulty: bool
    ) -> None:
        names = [row["name"] for row in self.scene.holdings.deployments.all_shown()]
        assert names in ([], [self.name]), "one deployment at the most"
        self.may_be_down = self.may_be_down or task.recreates
        if task.what == "restart":
            self._judge_restart(before, after, end, is_faulty=is_faulty)
            return
        nothing_served = self._did_nothing_serve(before)
        ends = [end, *self.others]
        # Where nothing served before, a rollback leaves nothing that is up: then what is up is of a later change.
        verifies = (RolledBackError,) if before.is_up else ()
        is_ended = any(not isinstance(one, BaseException) or isinstance(one, verifies) for one in ends)
        self.is_start_unverified = after.is_up and not is_ended and (self.is_start_unverified or not before.is_up)
        if task.what == "roll back":
            self.strange.clear()  # It is what was asked for.
        if not (self.may_be_down or self.theirs):
            # What nobody has verified is stopped where nothing served before it: so it is taken back.
            assert nothing_served or not any(map(self._is_well, worker.stopped)), "what answers was stopped"
            served = before if self.former is None else self.former
            if self._is_well(served) and not nothing_served:
                assert after.version is not None, "something served before, nothing does now"
        if self.theirs:
            self._judge_disturbed(after, worker)
        elif self.others:
            self._judge_with_others(after, end, worker, is_faulty=is_faulty)
        else:
            self._check_strange(after)
            self._judge_alone(task, before, after, end, worker, is_faulty=is_faulty)

    def _did_nothing_serve(self, before: Seen) -> bool:
        """Tell whether nothing served before the first of the changes that nobody has verified."""
        if self.former is not None:
            return not self.former.is_up
        return self.is_start_unverified or not before.is_up

    def _judge_restart(self, before: Seen, after: Seen, end: Record | BaseException, *, is_faulty: bool) -> None:
        """A restart changes no version; it is not the promotions' to undo."""
        self.previous, self.is_unverified = None, self.was_unverified
        if self.theirs or self.others:
            self.former, self.strange = None, {}
            return
        self._check_strange(after)
        if isinstance(end, BaseException) or is_faulty:
            self.former = None
            assert self.may_be_down or not self._is_well(before) or after.version is not None, "a restart took it down"
            return
        assert after.version == before.row["modelVersion"], "another version than before"
        assert not self._is_served(before) or after.answer == before.answer, "it answers otherwise than before"
        self.former = after if self.former == before else None
        self.may_be_down = False

    def _judge_alone(
        self,
        task: Task,
        before: Seen,
        after: Seen,
        end: Record | BaseException,
        worker: Worker,
        *,
        is_faulty: bool,
    ) -> None:
        if not isinstance(end, BaseException):
            self._judge_success(after, end, is_faulty=is_faulty)
            return
        # A rollback that another client interrupted is resumed, or refused where another version serves by now.
        is_refused = task.what == "roll back" and isinstance(end, SupersededError) and not worker.has_changed_anything
        assert is_faulty or is_refused or not isinstance(end, SupersededError), f"nobody else was there: {end}"
        self.previous = None
        if (isinstance(end, InvalidInputError) or is_refused) and after == before:
            return  # What an earlier run has left is still there for the next one.
        assert not isinstance(end, InvalidInputError) or self.former != before, "what is refused changes nothing"
        if not is_definite(end) and not is_faulty and worker.has_noted_the_end and self._is_served(after):
            self.former, self.may_be_down = after, False
        elif isinstance(end, RolledBackError):
            self._judge_taken_back(task, before, after, end, worker, is_faulty=is_faulty)
            if worker.has_noted_the_end and task.what != "roll back" and not is_faulty and self._is_served(after):
                self.previous = after.version  # It is what it was before the last promotion.
        elif is_definite(end) and is_faulty and not self._is_served(after):
            self.former = None  # What a fault on the way back has left, no task can mend.
        elif is_definite(end) and not is_faulty and self.former is not None and self.former.version is not None:
            assert _who(after) == _who(self.former), "not what served before"
        elif not is_definite(end) and worker.has_settled:
            self.former = None  # It is what was settled first: nobody has looked at it before the next change.

    def _judge_taken_back(
        self, task: Task, before: Seen, after: Seen, end: RolledBackError, worker: Worker, *, is_faulty: bool
    ) -> None:
        if "by an earlier try of this task" in str(end):
            assert after == before, "what has failed for good changes nothing"
            return
        if self.former is None:
            return
        self._reject(after, end, is_faulty=is_faulty)
        is_settled = self._was_settled(task, before, after, end, worker)
        former = before if is_settled else self.former
        if former.version is not None:
            assert _who(after) == _who(former), "not what served before"
        elif not is_settled:
            assert after.status in ("Created", "Stopped"), "nothing served before"
        if former.row:
            was, now = _configuration(former), _configuration(after)
            assert now == was, "not as it was"
        self.former, self.may_be_down = after, False

    def _was_settled(self, task: Task, before: Seen, after: Seen, end: RolledBackError, worker: Worker) -> bool:
        """
        Tell whether the unverified change was verified first, so that it is what served before.

        Only a choice of the best settles it, and only if it chooses another version. It may choose the same one then,
        with other settings: a change of settings alone leaves who answers as it was, so that the requests have to tell.
        A deployment that was made and not started is started for it.
        """
        chosen = end.record
        if not (self.was_unverified and chosen and task.what.startswith("deploy best")):
            return False
        is_another = chosen.model_version != before.row.get("modelVersion") or worker.has_settled
        is_another = is_another and chosen.rolled_back is None
        if before.status == "Created":
            return is_another and self._is_served(after) and after.version == before.row["modelVersion"]
        return is_another and self._is_served(before) and _who(after) == _who(before)

    def _judge_success(self, after: Seen, record: Record, *, is_faulty: bool) -> None:
        if record.deployment_id is None:
            return
        if record.action == "rolled_back" and record.model_version is None:
            # It went on with what an earlier run had begun to take back, to where nothing served.
            assert not after.is_up, "nothing served before"
            self.former, self.previous = after, None
            return
        assert after.row["modelVersion"] == record.model_version, f"not what {record.action} says"
        if is_faulty and record.verified_by == "status":
            self.former = None
            return
        assert after.version == record.model_version, f"not what {record.action} says"
        assert self._is_well(after), f"version {after.version} is called {record.action}"
        if record.action == "updated":
            if after != self.former:  # Else an earlier try has done it.
                self.previous = self.former.version if self.former else None
        elif record.action not in ("kept", "unchanged"):
            self.previous = None
        self.former, self.may_be_down = after, False
        self.rejected.pop(after.version or 0, None)

    def _judge_disturbed(self, after: Seen, worker: Worker) -> None:
        writes = [at for at, sent in enumerate(worker.sent, 1) if sent.is_write]
        changes = [at for at in writes if worker.sent[at - 1].query.get("action") not in ("STOP", "START")]
        how, version = self.theirs[-1]
        if not worker.looked_before(next((at for at in writes if at >= worker.fate.at), len(worker.sent))):
            # They came between our last look and our change, where nobody can see them.
            self.strange.clear()
        elif how == "version" and changes and changes[0] < worker.fate.at:
            assert after.row["modelVersion"] == version, "a stranger's version was taken away"
        if any(sent.path.endswith("/rollback") for sent in worker.sent[worker.fate.at - 1 :]):
            # What a version of a deployment holds comes back as a whole.
            self.strange.clear()
        self._check_strange(after)
        self.former = self.previous = None

    def _judge_with_others(self, after: Seen, end: Record | BaseException, worker: Worker, *, is_faulty: bool) -> None:
        self._check_strange(after)
        ends = [end, *self.others]
        if not isinstance(end, BaseException) and end.deployment_id is not None and not is_faulty:
            # Who comes after the last look changes what has been verified, and nobody can see it.
            is_seen = any(sent.is_look for sent in worker.sent[worker.fate.at :])
            assert not is_seen or after.version == end.model_version, f"not what {end.action} says"
            assert not is_seen or self._is_well(after), f"version {after.version} is called {end.action}"
        if self.former is not None and self.former.version is not None and all(map(is_definite, ends)):
            assert self._is_well(after), "what serves is not well"
        self.former = after if not isinstance(end, BaseException) and self._is_well(after) else None
        self.previous = None

    def _check_strange(self, after: Seen) -> None:
        now = {key: after.row.get(key) for key in self.strange}
        assert now == self.strange, "a stranger's change is gone"

    def _reject(self, after: Seen, end: RolledBackError, *, is_faulty: bool) -> None:
        why, version = end.__cause__, end.record.model_version if end.record else None
        served = self.former.row.get("modelVersion") if self.former else None
        if not isinstance(why, VerificationError | DeploymentFailedError) or why.transient or is_faulty:
            return
        if version is not None and version != served:
            key = _resources(after) if isinstance(why, DeploymentFailedError) else None
            self.rejected.setdefault(version, set()).add(key)


def is_definite(end: Record | BaseException) -> bool:
    """Tell whether a task knew what it left."""
    return not isinstance(end, BaseException) or (isinstance(end, HopsworksError) and not end.transient)


def _name(end: Any) -> str:
    if isinstance(end, dict):
        return "restarted"
    return type(end).__name__ if isinstance(end, BaseException) else f"{end.action} by {end.verified_by}"


def _who(seen: Seen) -> tuple[int | None, Any]:
    return seen.version, seen.answer


def _resources(seen: Seen) -> str:
    return json.dumps(seen.row["predictorResources"], sort_keys=True)


def _configuration(seen: Seen) -> dict[str, Any]:
    return {key: value for key, value in seen.row.items() if key not in _NOT_CONFIGURED}
