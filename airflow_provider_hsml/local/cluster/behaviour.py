"""The settings of the cluster that tests choose: durations of transitions, and the ways of a real cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, order=True)
class Looks:
    """
    A pace in polls, not in seconds: the transition ends after clients have polled the deployment this often.

    :param number: the number of GETs that see the old state
    """

    number: float

    def __truediv__(self, divisor: float) -> Looks:
        """Return a part of the transition."""
        return Looks(self.number / divisor)


@dataclass(frozen=True, slots=True)
class Speeds:
    """
    The least duration of each transition, in seconds; the time of the model server itself comes on top.

    The first five may be ``Looks`` as well: the transition ends after so many polls of the deployment.

    The defaults are for unit tests with a callable engine. ``hsml-local serve`` uses ``Speeds.of_a_cluster()``.

    :param creating: from PUT until Created
    :param starting: from START until Running
    :param stale: after a PUT or a rollback, until status and instances begin to change
        (only in a profile with ``row_first``)
    :param updating: from then until Running
    :param routing: from the first Running after a START until the ingress has a route
    :param handing_over: from Running after an update until the old instances stop answering
    :param putting: until a PUT is carried out and answered (only in a profile with ``slow_put``)
    :param reading_logs: the duration of reading logs (only in a profile with ``logs_lock``)
    :param stopping: from STOP until Stopped
    :param idle_after: without a request, until a deployment with a minimum of 0 instances is Idle
    :param load_timeout: until a deployment whose model is not ready is Failed
    :param drain_timeout: for a replaced instance to finish its requests
    :param job_starting: from the start of an execution of a job until it is RUNNING
    :param job_logs: from the end of an execution, which is shown, until its log files exist
    """

    creating: float | Looks = 0.02
    starting: float | Looks = 0.04
    stale: float | Looks = 0.2
    updating: float | Looks = 0.04
    stopping: float | Looks = 0.04
    routing: float = 0.04
    handing_over: float = 0.1
    putting: float = 0.0
    reading_logs: float = 0.01
    idle_after: float = 1.0
    load_timeout: float = 180.0
    drain_timeout: float = 30.0
    job_starting: float = 0.02
    job_logs: float = 0.0

    @classmethod
    def every(cls, pace: float | Looks) -> Speeds:
        """
        Return speeds with one pace for every transition.

        :param pace: seconds, 0 for at once; or ``Looks``
        """
        seconds = 0.0 if isinstance(pace, Looks) else pace
        return cls(pace, pace, pace, pace, pace, routing=seconds, handing_over=seconds, job_starting=seconds)

    @classmethod
    def of_a_cluster(cls) -> Speeds:
        """Return speeds that people can watch, and that expose careless clients: stale for 2 s after a change."""
        return cls(
            creating=0.5,
            starting=0.6,
            stale=2.0,
            updating=0.6,
            routing=1.0,
            handing_over=1.0,
            putting=0.3,
            reading_logs=0.2,
            stopping=0.5,
            idle_after=60.0,
            job_starting=1.0,
            job_logs=1.0,
        )


@dataclass(frozen=True, slots=True)
class Profile:
    """
    The ways of a real cluster that the server imitates: those in which a careless client fails.

    :param row_first: PUT and rollback write version, revision and modelVersion at once, while status and instances
        stay the old ones for ``Speeds.stale`` seconds
    :param stale_status: the status meanwhile: Running (Kubernetes deployments), or Idle with 0 instances (Knative),
        though the old instances answer
    :param shows_updating: whether Updating is ever shown; the Standard mode of KServe may never show it
    :param put_without_state: PUT answers with status, condition, instances and paths null
    :param random_revisions: revisions are random, not counted up
    :param gpus: the GPUs of the cluster; a deployment stays unschedulable until enough of them are free; None: no limit
    :param late_route: Running is shown ``Speeds.routing`` seconds before the ingress has a route
    :param shared_hand_over: while new instances replace old ones both answer, from before Running is shown until
        ``Speeds.handing_over`` seconds after it
    :param hand_over_503_every: during a hand-over every n-th request gets a 503; 0: none
    :param proxy_connections: the predictions that go through the proxy at once, of all clients together; further ones
        wait; 0: no limit
    :param logs_lock: reading logs takes ``Speeds.reading_logs`` seconds, and changes meanwhile are refused
    :param slow_put: a PUT takes ``Speeds.putting`` seconds; meanwhile GET shows the old settings, and other changes are
        refused
    :param list_cost: seconds that a list of deployments takes for each deployment of the project
    """

    row_first: bool = True
    stale_status: Literal["Running", "Idle"] = "Running"
    shows_updating: bool = True
    put_without_state: bool = True
    random_revisions: bool = True
    gpus: int | None = 1
    late_route: bool = True
    shared_hand_over: bool = True
    hand_over_503_every: int = 0
    proxy_connections: int = 10
    logs_lock: bool = True
    slow_put: bool = True
    list_cost: float = 0.02

    @classmethod
    def named(cls, name: str) -> Profile:
        """
        Return a profile by its name.

        :param name: ``real`` (all of these ways) or ``plain`` (none of them)
        """
        if name == "real":
            return cls()
        if name == "plain":
            return cls(
                row_first=False,
                put_without_state=False,
                random_revisions=False,
                gpus=None,
                late_route=False,
                shared_hand_over=False,
                proxy_connections=0,
                logs_lock=False,
                slow_put=False,
                list_cost=0.0,
            )
        raise ValueError(f"profile {name!r} is not known: expected 'real', 'plain' or a Profile")


@dataclass(slots=True)
class Behaviour:
    """The speeds and the profile in force. The parts of the cluster share one, and read it anew for each change."""

    speeds: Speeds
    profile: Profile
