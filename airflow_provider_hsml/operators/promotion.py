"""Putting model versions into production."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.errors import HopsworksError, InvalidInputError
from airflow_provider_hsml.parsing import BY_DEPLOYMENT, BY_MODEL

from .base import WaitingOperator
from .hiding import SpecOperator
from .recording import RecordingOperator, as_xcom, run_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_hsml.hopsworks.domain.gate import Gate
    from airflow_provider_hsml.hopsworks.domain.spec import DeploymentSpec
    from airflow_provider_hsml.hopsworks.domain.verification import Verification
    from airflow_provider_hsml.hopsworks.promotion.record import Record

    OnRollback = Callable[[Context], Any]


class _PromotingOperator(SpecOperator, RecordingOperator):
    """What the operators that put a model version into a deployment have in common."""

    map_index_template_default = f"{{% if task.deployment_name %}}{BY_DEPLOYMENT}{{% else %}}{BY_MODEL}{{% endif %}}"

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
        on_rollback: OnRollback | Sequence[OnRollback] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._written(arguments.deployment_name, "deployment_name", deployment_name)
        self._written(arguments.choice, "rollout", rollout, allowed=("rolling", "recreate"))
        self._written(arguments.boolean, "plan_only", plan_only)
        self._written(arguments.choice, "when_killed", when_killed, allowed=("leave", "stop"))
        self.deployment_name = deployment_name
        self.model_project = model_project
        self.rollout = rollout
        self.plan_only = plan_only
        self.when_killed = when_killed
        # Airflow renders, wires and masks a mapping, but not a dataclass.
        self.spec = spec.given() if is_dataclass(spec) else spec
        verification = verification.given() if is_dataclass(verification) else verification
        self.expect = None
        if isinstance(verification, Mapping):
            # What is rendered comes from outside in part, and this names code that is run.
            self.expect = verification.get("expect")
            verification = {name: value for name, value in verification.items() if name != "expect"}
        self.verification = verification
        if verification is not None:
            self._check_can_verify()
        self.on_rollback: Sequence[Any] = ()
        if on_rollback is not None:
            self.on_rollback = on_rollback if isinstance(on_rollback, list | tuple) else (on_rollback,)
        if not all(map(callable, self.on_rollback)):
            message = f"Task {self.task_id!r}: on_rollback: expected a callable or a list of them, got {on_rollback!r}."
            raise ValueError(message)

    def _promote(self, context: Context, promote: Callable[..., Record], *args: Any, **kwargs: Any) -> Record:
        """Promote; a rollback is told to ``on_rollback``."""
        try:
            return super()._promote(context, promote, *args, **kwargs)
        except HopsworksError as error:
            if error.record is not None and error.record.action == "rolled_back":
                self._tell_rollback(context, error.record)
            raise

    def _tell_rollback(self, context: Context, record: Record) -> None:
        """Call ``on_rollback``; an exception in it changes nothing any more."""
        told = cast("dict[str, Any]", context)  # Filled in place: in Airflow 2 it is more than a dict.
        told["promotion"] = as_xcom(record)
        for call in self.on_rollback:
            try:
                call(context)
            except Exception:
                self.log.exception("on_rollback: %r failed", call)

    def _check_can_verify(self) -> None:
        """
        Refuse what excludes a verification, as far as it is written in the DAG file.

        :raises ValueError: which argument
        """
        if not self.wait_for_completion:
            message = f"Task {self.task_id!r}: verification needs wait_for_completion=True."
            raise ValueError(message)
        if isinstance(self.spec, Mapping) and self.spec.get("api_protocol") == "GRPC":
            message = f"Task {self.task_id!r}: verification cannot ask a deployment of api_protocol GRPC. Leave it out."
            raise ValueError(message)
        if self.expect is not None:
            self._given(arguments.text, "verification.expect", self.expect)

    def _verification(self) -> Verification | None:
        """Read the verification; ``expect`` is what is written in the DAG file, and nothing else."""
        if self.verification in (None, "") and self.expect is None:
            return None
        from airflow_provider_hsml.hopsworks import Verification  # noqa: PLC0415 - a DAG is parsed without it, and sooner

        read = Verification.read(self.verification or {}, "verification")
        if read.expect is not None or not self._is_expect_written():
            message = (
                "verification.expect: it names code to run, so it is taken from the DAG file only: write "
                "'verification' there as a mapping, not as a template, an XCom or an argument of expand."
            )
            raise InvalidInputError(message)
        return replace(read, expect=self.expect)

    def _is_expect_written(self) -> bool:
        """Tell whether ``expect`` is not one that a mapped argument brought."""
        if self.expect is None or not self.has_dag():  # type: ignore[no-untyped-call]
            return True
        partial = getattr(self.dag.get_task(self.task_id), "partial_kwargs", None)
        if partial is None:  # It is not mapped.
            return True
        written = partial.get("verification")
        expect = written.get("expect") if isinstance(written, Mapping) else getattr(written, "expect", None)
        return bool(expect == self.expect)

    def _how(self, context: Context) -> dict[str, Any]:
        return {
            "run_key": run_key(context),
            "deployment_name": self.deployment_name or None,
            "spec": self._whole_spec(),
            "verification": self._verification(),
            "model_project": self.model_project,
            "rollout": self.rollout,
            "plan_only": self.plan_only,
            "when_killed": self.when_killed,
            **self._waits(),
        }


class DeployModelOperator(_PromotingOperator):
    """
    Serve one version of a model, or a script without a model, and see that it really does.

    Creates, updates or starts the deployment, attaches to a rollout under way, or does nothing, by what is there.

    Use it when the version is known; ``DeployBestModelOperator`` chooses one by a metric.

    Returns the promotion record, each of its keys also under its own: ``deployment_name``, ``deployment_id``,
    ``action`` (created, updated, started, attached, unchanged; planned; rolled_back, superseded, failed), ``reason``,
    ``model_name``, ``model_version``, ``model_project``, ``previous_model_version``, ``metric``, ``metric_value``,
    ``previous_metric_value``, ``verified_by``, ``status``, ``inference_url``, ``url``, ``is_kept``, ``plan``. The whole
    is also pushed under the key ``promotion``, and is there when the task is skipped or fails.

    :param model_name: the model in the registry; None to serve the ``script_file`` in ``spec`` alone, which needs
        ``deployment_name``
    :param model_version: its number, or ``"latest"``
    :param deployment_name: letters and digits; None for the model's name without other characters
    :param spec: how to configure the deployment; what is not given keeps what is live, or Hopsworks' default
    :param model_project: another project that owns the model and shares its registry with this one: train in one
        project, serve from another
    :param verification: what the new version has to show, and for how long it is watched, a ``Verification`` or a
        mapping of its fields; None: what was registered with it. ``expect`` in it is not templated
    :param rollout: ``rolling``: the old instances answer until the new ones do; ``recreate``: it is stopped for the
        change, where there is no room for both (one GPU)
    :param plan_only: decide and say what would change, and change nothing: ``action`` is ``planned``, and ``plan`` in
        the record has the difference
    :param plan: the record of a task with ``plan_only``: what was planned is done and nothing else, and it is refused
        when the deployment is not what it was then
    :param when_killed: what becomes of a deployment that this task is creating when a person kills it: ``leave`` it to
        come up, or ``stop`` it. What served before goes on serving in any case
    :param on_rollback: called with Airflow's context after a promotion failed and was taken back: a function, a
        notifier, or a list of them; the record is under ``promotion`` in the context
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
        "plan",
    )
    template_fields_renderers = {"spec": "json", "verification": "json", "plan": "json"}  # noqa: RUF012

    def __init__(
        self,
        *,
        model_name: str | None = None,
        model_version: int | str = "latest",
        plan: Mapping[str, Any] | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if model_name is None and not (self.deployment_name and self.spec):
            message = (
                f"Task {self.task_id!r}: without model_name it needs deployment_name, and spec with a script_file."
            )
            raise ValueError(message)
        self._written(arguments.model_name, "model_name", model_name)
        if model_version != "latest":
            self._written(arguments.integer, "model_version", model_version, least=1)
        self.model_name = model_name
        self.model_version = model_version
        self.plan = plan

    def act(self, context: Context) -> dict[str, Any]:
        """
        Deploy it.

        :param context: Airflow's
        """
        record = self._promote(
            context,
            self.hook.deploy_model,
            self.model_name,
            self.model_version,
            plan=self.plan or None,
            **self._how(context),
        )
        return self._finish(context, record)


class DeployBestModelOperator(_PromotingOperator):
    """
    Serve the best version of a model by a metric, if it beats the one being served, and see that it really does.

    The challenger is the best admissible candidate: with a finite metric, newer than the served version, within the
    gate's floor and guards. A tie keeps what is served. Calling it again with nothing new changes nothing.
    ``docs/promotion.md`` has the table of cases.

    Returns the promotion record, as ``DeployModelOperator`` does; ``is_kept`` says that no candidate took the place of
    the served version, and ``action`` is ``kept`` when nothing else changed either. The record is pushed before the
    task is skipped or fails.

    :param model_name: the model in the registry
    :param metric: name of the metric to compare by
    :param direction: ``max`` or ``min``: which end is the good one
    :param candidates: versions to choose from: numbers, or results of ``RegisterModelOperator``; None for all
    :param deployment_name: letters and digits; None for the model's name without other characters
    :param spec: how to configure the deployment; applied also when the served version is kept
    :param gate: what the challenger has to show, a ``Gate`` or a mapping of its fields; None: be better
    :param if_not_better: what becomes of the task when no candidate takes the place of what is served: ``keep``
        (success), ``skip`` or ``fail``
    :param model_project: another project that owns the model and shares its registry with this one: train in one
        project, serve from another
    :param verification: what the new version has to show, and for how long it is watched, a ``Verification`` or a
        mapping of its fields; None: what was registered with it. ``expect`` in it is not templated
    :param rollout: ``rolling``: the old instances answer until the new ones do; ``recreate``: it is stopped for the
        change, where there is no room for both (one GPU)
    :param plan_only: decide and say what would change, and change nothing: ``action`` is ``planned``, and ``plan`` in
        the record has the difference
    :param when_killed: what becomes of a deployment that this task is creating when a person kills it: ``leave`` it to
        come up, or ``stop`` it. What served before goes on serving in any case
    :param on_rollback: called with Airflow's context after a promotion failed and was taken back: a function, a
        notifier, or a list of them; the record is under ``promotion`` in the context
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
    )
    template_fields_renderers = {  # noqa: RUF012
        "spec": "json",
        "candidates": "json",
        "gate": "json",
        "verification": "json",
    }

    def __init__(
        self,
        *,
        model_name: str,
        metric: str,
        direction: str = "max",
        candidates: Sequence[int | Mapping[str, Any]] | None = None,
        gate: Gate | Mapping[str, Any] | str | None = None,
        if_not_better: str = "keep",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._written(arguments.model_name, "model_name", model_name)
        self._written(arguments.choice, "direction", direction, allowed=("max", "min"))
        self._written(arguments.choice, "if_not_better", if_not_better, allowed=("keep", "skip", "fail"))
        self.model_name = model_name
        self.metric = metric
        self.direction = direction
        self.candidates = candidates
        self.gate = gate.given() if is_dataclass(gate) else gate
        self.if_not_better = if_not_better

    def act(self, context: Context) -> dict[str, Any]:
        """
        Decide, and deploy.

        :param context: Airflow's
        """
        arguments.choice("if_not_better", self.if_not_better, ("keep", "skip", "fail"))
        record = self._promote(
            context,
            self.hook.deploy_best_model,
            self.model_name,
            self.metric,
            self.direction,
            candidates=self.candidates,
            gate=self.gate,
            **self._how(context),
        )
        return self._end(context, record)

    def _end(self, context: Context, record: Record) -> dict[str, Any]:
        """End as ``if_not_better`` says."""
        plain = self._finish(context, record)
        if record.is_kept and self.if_not_better == "skip":
            raise AirflowSkipException(record.reason)
        if record.is_kept and self.if_not_better == "fail":
            raise AirflowFailException(record.reason)
        return plain
