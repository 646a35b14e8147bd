"""Operators that promote a model version to a deployment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.errors import HopsworksError, InvalidInputError
from airflow_provider_hsml.parsing import BY_DEPLOYMENT, BY_MODEL, as_mappings

from .base import WaitingOperator
from .promotion_record import PromotionRecordOperator, as_xcom, audit, run_key
from .spec_masking import SpecOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_hsml.hopsworks.domain.gate import Gate
    from airflow_provider_hsml.hopsworks.domain.spec import DeploymentSpec
    from airflow_provider_hsml.hopsworks.domain.verification import Verification
    from airflow_provider_hsml.hopsworks.promotion.record import Record

    OnFailedPromotion = Callable[[Context], Any]


# A DAG file that passes none of these arguments does not pay for the imports of their readers.


def _check_spec(what: str, value: object) -> None:
    from airflow_provider_hsml.hopsworks.domain.spec import check_literals  # noqa: PLC0415 - as above

    check_literals(what, value)


def _check_gate(what: str, value: object) -> None:
    from airflow_provider_hsml.hopsworks.domain.gate import Gate  # noqa: PLC0415 - as above

    Gate.read(value, what).literal_rules()


def _check_verification(what: str, value: object) -> None:
    from airflow_provider_hsml.hopsworks.domain.verification import Verification  # noqa: PLC0415 - as above

    read = Verification.read(value, what)
    read.literal_checks()
    if read.expect is not None:
        _check_expect(f"{what}.expect", read.expect)


def _check_only_one(what: str, value: Mapping[str, Any]) -> None:
    arguments.only_one(what, **value)


def _check_expect(what: str, value: object) -> None:
    from airflow_provider_hsml.hopsworks.domain.verification import expect_name  # noqa: PLC0415 - as above

    expect_name(what, value)


class _PromotingOperator(SpecOperator, PromotionRecordOperator):
    """The base of the operators that promote a model version to a deployment."""

    map_index_template_default = f"{{% if task.deployment_name %}}{BY_DEPLOYMENT}{{% else %}}{BY_MODEL}{{% endif %}}"
    structured: ClassVar = {"spec": _check_spec, "verification": _check_verification}

    def __init__(
        self,
        *,
        deployment_name: str | None = None,
        spec: DeploymentSpec | Mapping[str, Any] | str | None = None,
        model_project: str | None = None,
        verification: Verification | Mapping[str, Any] | str | None = None,
        rollout: str = "rolling",
        plan_only: bool | str = False,
        when_killed: str = "leave",
        unschedulable_grace: float | str = 300.0,
        preflight: bool | str = False,
        on_rollback: OnFailedPromotion | Sequence[OnFailedPromotion] | None = None,
        on_unverified: OnFailedPromotion | Sequence[OnFailedPromotion] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._check_literal(arguments.deployment_name, "deployment_name", deployment_name)
        self._check_literal(arguments.choice, "rollout", rollout, allowed=("rolling", "recreate"))
        self._check_literal(arguments.boolean, "plan_only", plan_only)
        self._check_literal(arguments.choice, "when_killed", when_killed, allowed=("leave", "stop"))
        self._check_literal(arguments.seconds, "unschedulable_grace", unschedulable_grace)
        self._check_literal(arguments.preflight, "preflight", preflight)
        self.deployment_name = deployment_name
        self.model_project = model_project
        self.rollout = rollout
        self.plan_only = plan_only
        self.when_killed = when_killed
        self.unschedulable_grace = unschedulable_grace
        self.preflight = preflight
        self._check_can_try()
        # Airflow renders a mapping, resolves XComs in it and masks it, but does none of that for a dataclass.
        self.spec = as_mappings(spec)
        verification = as_mappings(verification)
        self.expect = None
        if isinstance(verification, Mapping):
            # expect names code to run, so it must not come from a template, whose values are from outside.
            self.expect = verification.get("expect")
            verification = {name: value for name, value in verification.items() if name != "expect"}
        self.verification = verification
        self._check_structured("spec", self.spec)
        if verification is not None:
            self._check_can_verify()
        self.on_rollback = self._callables("on_rollback", on_rollback)
        self.on_unverified = self._callables("on_unverified", on_unverified)

    def _callables(self, name: str, value: Any) -> Sequence[Any]:
        """Read a callable, or a list of them."""
        callables: Sequence[Any] = value if isinstance(value, list | tuple) else () if value is None else (value,)
        if not all(map(callable, callables)):
            message = f"{name}: expected a callable or a list of them, got {value!r}."
            raise self._invalid(message)
        return callables

    def _promote(self, context: Context, promote: Callable[..., Record], *args: Any, **kwargs: Any) -> Record:
        """
        Promote, and call the functions that are told of a failure.

        ``on_rollback`` after a rollback or a failed preflight, ``on_unverified`` after a change that stays pending.
        """
        try:
            record = super()._promote(context, promote, *args, **kwargs)
        except HopsworksError as error:
            if error.record is not None:
                self._notify(context, error.record)
            raise
        self._notify(context, record)
        return record

    def _notify(self, context: Context, record: Record) -> None:
        """Call the functions for what this task and, before it, an earlier run's change came to."""
        promotion = as_xcom(record)
        for one in (promotion["rolled_back"], promotion):
            if one is not None:
                self._call(context, one)

    def _call(self, context: Context, promotion: dict[str, Any]) -> None:
        """Call the functions for a promotion's action. Their exceptions are only logged."""
        action = "rolled_back" if promotion.get("preflight") == "failed" else promotion["action"]
        name = {"rolled_back": "on_rollback", "unverified": "on_unverified"}.get(action)
        if name is None:
            return
        extended = cast("dict[str, Any]", context)  # Extended in place: in Airflow 2 it is more than a dict.
        extended["promotion"] = promotion
        for call in getattr(self, name):
            try:
                call(context)
            except Exception:
                self.log.exception("%s: %r failed", name, call)

    def _check_can_try(self) -> None:
        """
        Check that no other argument in the DAG file excludes a preflight.

        :raises ValueError: naming the argument that does
        """
        is_word = isinstance(self.preflight, str) and self.preflight == "if_possible"
        if self.preflight is not True and not is_word:
            return
        if not self.wait_for_completion:
            message = "preflight needs wait_for_completion=True."
            raise self._invalid(message)
        if self.plan_only is True:
            message = "preflight and plan_only=True: a plan tries nothing.\nGive preflight to the task that applies it."
            raise self._invalid(message)

    def _check_can_verify(self) -> None:
        """
        Check that no other argument in the DAG file excludes a verification.

        :raises ValueError: naming the argument that does
        """
        if not self.wait_for_completion:
            message = "verification needs wait_for_completion=True."
            raise self._invalid(message)
        if isinstance(self.spec, Mapping) and self.spec.get("api_protocol") == "GRPC":
            message = "verification cannot ask a deployment of api_protocol GRPC.\nLeave it out."
            raise self._invalid(message)
        given = self.verification if isinstance(self.verification, Mapping) else {}
        rows = {name: given.get(name) for name in ("instances", "inputs", "payload")}
        self._check_argument(_check_only_one, "verification.", rows)
        self._check_structured("verification", self.verification)
        if self.expect is not None:
            self._check_argument(_check_expect, "verification.expect", self.expect)

    def _verification(self) -> Verification | None:
        """Read ``verification``. Its ``expect`` is taken from the DAG file only."""
        if self.verification is None and self.expect is None:
            return None
        from airflow_provider_hsml.hopsworks import Verification  # noqa: PLC0415 - not needed to parse a DAG

        read = Verification.read(self.verification, "verification")
        if read.expect is not None or not self._is_expect_written():
            message = (
                "verification.expect: this names code to run, so it is taken from the DAG file only: write "
                "'verification' there as a mapping, not as a template, an XCom or an argument of expand."
            )
            raise InvalidInputError(message)
        return replace(read, expect=self.expect)

    def _is_expect_written(self) -> bool:
        """Whether ``expect`` is written in the DAG file, and does not come from a mapped argument."""
        if self.expect is None or not self.has_dag():  # type: ignore[no-untyped-call]
            return True
        task = self.dag.get_task(self.task_id)
        partial = getattr(task, "partial_kwargs", None)
        if partial is None:  # The task is not mapped.
            return True
        defaults = {**self.dag.default_args, **(task.task_group.default_args if task.task_group else {})}
        written = partial.get("verification", defaults.get("verification"))
        expect = written.get("expect") if isinstance(written, Mapping) else getattr(written, "expect", None)
        return bool(expect == self.expect)

    def _promotion_arguments(self, context: Context) -> dict[str, Any]:
        return {
            "run_key": run_key(context),
            "audit": audit(context, self.approved_by),
            "deployment_name": self.deployment_name,
            "spec": self._unmasked_spec(),
            "verification": self._verification(),
            "model_project": self.model_project,
            "rollout": self.rollout,
            "plan_only": self.plan_only,
            "when_killed": self.when_killed,
            "unschedulable_grace": self.unschedulable_grace,
            "preflight": self.preflight,
            **self._wait_arguments(),
        }


class DeployModelOperator(_PromotingOperator):
    """
    Deploy one version of a model, or a script without a model, and verify that it serves.

    Use it when the version is known; ``DeployBestModelOperator`` chooses one by a metric. Depending on the current
    state, it creates, updates or starts the deployment, attaches to a rollout in progress, or does nothing. If the
    verification fails, the task fails, and the deployment is rolled back unless ``on_failure`` of the verification
    is ``"leave"``.

    Returns the promotion record, with each key also as an XCom of its own: ``deployment_name``, ``deployment_id``,
    ``action`` (created, updated, started, attached, unchanged; planned; rolled_back, superseded, failed), ``reason``,
    ``model_name``, ``model_version``, ``model_project``, ``previous_model_version``, ``metric``, ``metric_value``,
    ``previous_metric_value``, ``verified_by``, ``status``, ``inference_url``, ``url``, ``is_kept``, ``plan``. The
    whole record is also pushed under the key ``promotion``, even when the task is skipped or fails.

    :param model_name: the model in the registry; None to serve the ``script_file`` in ``spec`` without a model, which
        needs ``deployment_name``
    :param model_version: the version's number, or ``"latest"``
    :param deployment_name: letters and digits; None for the model's name without other characters
    :param spec: the deployment's configuration; fields that are not set keep the live value, or Hopsworks' default
    :param model_project: another project that owns the model and shares its registry with this one: train in one
        project, serve from another
    :param verification: the checks that the new version has to pass, and how long it is monitored: a ``Verification``
        or a mapping of its fields; None: the checks registered with the version. Its ``expect`` is not templated
    :param rollout: ``rolling``: the old instances answer until the new ones do; ``recreate``: the deployment is stopped
        for the change, when the cluster has no room for both (one GPU)
    :param plan_only: decide, and change nothing: ``action`` is ``planned``, and the record's ``plan`` has the
        differences
    :param plan: the record of a task with ``plan_only``: exactly that plan is applied. The task fails if the deployment
        was changed after the plan was made
    :param approved_by: who approved the plan, for the record and the journal: a template of the approving task's result
    :param when_killed: if a person kills the task while it creates a deployment: ``leave`` the deployment to start up,
        or ``stop`` it. An existing deployment keeps serving in any case
    :param unschedulable_grace: seconds for which a cluster without room for the instances may find some: autoscaling
        of GPU nodes takes longer than the default of 300
    :param preflight: try the change in a temporary deployment first, which is deleted before the live one is touched: a
        version that fails there answers no user, and is rejected. ``True``, or ``"if_possible"`` to go on without where
        there is no room for one. It runs in the worker, also with ``deferrable=True``, and takes as long as a rollout
    :param on_rollback: a function, a notifier, or a list of them, called with Airflow's context after a promotion
        failed and was rolled back, also one of an earlier run, and after a failed preflight; its record is under
        ``promotion`` in the context
    :param on_unverified: the same, called after a promotion whose change is live but could not be verified
    """

    template_fields: Sequence[str] = (
        *WaitingOperator.template_fields,
        "model_name",
        "model_version",
        "deployment_name",
        "spec",
        "verification",
        "model_project",
        "rollout",
        "plan_only",
        "when_killed",
        "unschedulable_grace",
        "preflight",
        "plan",
        "approved_by",
    )
    template_fields_renderers = {"spec": "json", "verification": "json", "plan": "json"}  # noqa: RUF012

    def __init__(
        self,
        *,
        model_name: str | None = None,
        model_version: int | str = "latest",
        plan: Mapping[str, Any] | str | None = None,
        approved_by: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if model_name is None and not (self.deployment_name and self.spec) and not self._is_from_mapped:
            message = (
                f"Task {self.task_id!r}: without model_name it needs deployment_name, and spec with a script_file."
            )
            raise ValueError(message)
        self._check_literal(arguments.model_name, "model_name", model_name)
        if model_version != "latest":
            self._check_literal(arguments.integer, "model_version", model_version, least=1)
        self.model_name = model_name
        self.model_version = model_version
        self.plan = plan
        self.approved_by = approved_by

    def act(self, context: Context) -> dict[str, Any]:
        """Deploy the version."""
        record = self._promote(
            context,
            self.hook.deploy_model,
            self.model_name,
            self.model_version,
            plan=self.plan,
            **self._promotion_arguments(context),
        )
        return self._push_record(context, record)


class DeployBestModelOperator(_PromotingOperator):
    """
    Deploy the best version of a model by a metric, if it is better than the serving version, and verify that it serves.

    Use it after training, to promote a new version only when it is better. The challenger is the best admissible
    candidate: with a finite metric, newer than the served version, within the gate's floor and guards. A tie keeps the
    served version. A second run without new versions changes nothing. A failed verification ends as with
    ``DeployModelOperator``. ``docs/promotion.md`` has the table of cases.

    Returns the promotion record, as ``DeployModelOperator`` does. ``is_kept`` is true when no candidate replaced the
    served version; ``action`` is ``kept`` when nothing else changed either. The record is pushed before the task is
    skipped or fails.

    :param model_name: the model in the registry
    :param metric: name of the metric to compare by
    :param direction: ``max`` or ``min``: which end is better
    :param candidates: versions to choose from: numbers, or results of ``RegisterModelOperator``; None for all
    :param deployment_name: letters and digits; None for the model's name without other characters
    :param spec: the deployment's configuration, which is applied also when the served version is kept
    :param gate: the conditions for the challenger, a ``Gate`` or a mapping of its fields; None: a better metric
        suffices
    :param if_not_better: how the task ends when no candidate replaces the served version: ``keep`` (success), ``skip``
        or ``fail``
    :param model_project: another project that owns the model and shares its registry with this one: train in one
        project, serve from another
    :param verification: the checks that the new version has to pass, and how long it is monitored: a ``Verification``
        or a mapping of its fields; None: the checks registered with the version. Its ``expect`` is not templated
    :param rollout: ``rolling``: the old instances answer until the new ones do; ``recreate``: the deployment is stopped
        for the change, when the cluster has no room for both (one GPU)
    :param plan_only: decide, and change nothing: ``action`` is ``planned``, and the record's ``plan`` has the
        differences
    :param when_killed: if a person kills the task while it creates a deployment: ``leave`` the deployment to start up,
        or ``stop`` it. An existing deployment keeps serving in any case
    :param unschedulable_grace: seconds for which a cluster without room for the instances may find some: autoscaling
        of GPU nodes takes longer than the default of 300
    :param preflight: try the change in a temporary deployment first, which is deleted before the live one is touched: a
        version that fails there answers no user, and is rejected. ``True``, or ``"if_possible"`` to go on without where
        there is no room for one. It runs in the worker, also with ``deferrable=True``, and takes as long as a rollout
    :param on_rollback: a function, a notifier, or a list of them, called with Airflow's context after a promotion
        failed and was rolled back, also one of an earlier run, and after a failed preflight; its record is under
        ``promotion`` in the context
    :param on_unverified: the same, called after a promotion whose change is live but could not be verified
    """

    template_fields: Sequence[str] = (
        *WaitingOperator.template_fields,
        "model_name",
        "metric",
        "direction",
        "candidates",
        "deployment_name",
        "spec",
        "gate",
        "verification",
        "if_not_better",
        "model_project",
        "rollout",
        "plan_only",
        "when_killed",
        "unschedulable_grace",
        "preflight",
    )
    template_fields_renderers = {  # noqa: RUF012
        "spec": "json",
        "candidates": "json",
        "gate": "json",
        "verification": "json",
    }

    structured: ClassVar = {**_PromotingOperator.structured, "gate": _check_gate}
    records: ClassVar = (("gate", "measured"),)

    def __init__(
        self,
        *,
        model_name: str,
        metric: str,
        direction: str,
        candidates: Sequence[int | Mapping[str, Any]] | None = None,
        gate: Gate | Mapping[str, Any] | str | None = None,
        if_not_better: str = "keep",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._check_literal(arguments.model_name, "model_name", model_name)
        self._check_literal(arguments.choice, "direction", direction, allowed=("max", "min"))
        self._check_literal(arguments.choice, "if_not_better", if_not_better, allowed=("keep", "skip", "fail"))
        self.model_name = model_name
        self.metric = metric
        self.direction = direction
        self.candidates = candidates
        self.gate = as_mappings(gate)
        self._check_structured("gate", self.gate)
        self.if_not_better = if_not_better

    def act(self, context: Context) -> dict[str, Any]:
        """Choose the version, and deploy it."""
        arguments.choice("if_not_better", self.if_not_better, ("keep", "skip", "fail"))
        record = self._promote(
            context,
            self.hook.deploy_best_model,
            self.model_name,
            self.metric,
            self.direction,
            candidates=self.candidates,
            gate=self.gate,
            **self._promotion_arguments(context),
        )
        return self._end(context, record)

    def _end(self, context: Context, record: Record) -> dict[str, Any]:
        """End the task as ``if_not_better`` says."""
        plain = self._push_record(context, record)
        if record.is_kept and self.if_not_better == "skip":
            raise AirflowSkipException(record.reason)
        if record.is_kept and self.if_not_better == "fail":
            raise AirflowFailException(record.reason)
        return plain
