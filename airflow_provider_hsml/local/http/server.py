"""``LocalServing``: the local Model Serving in this process, for tests, and for the command ``hsml-local serve``."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

from airflow_provider_hsml.local.api.asking import PREFIX
from airflow_provider_hsml.local.cluster.behaviour import Profile, Speeds
from airflow_provider_hsml.local.cluster.engines import CallableEngine
from airflow_provider_hsml.local.cluster.environments import (
    JOB_ENVIRONMENTS,
    Environments,
    NamedEnvironments,
    job_requirements,
)
from airflow_provider_hsml.local.cluster.faults import Faults
from airflow_provider_hsml.local.cluster.job_runner import JobRunner
from airflow_provider_hsml.local.cluster.kserve_engine import KServeEngine
from airflow_provider_hsml.local.lines import LINES
from airflow_provider_hsml.local.options import DEFAULT_PROJECT, AccessOptions, ServerOptions
from airflow_provider_hsml.local.proxy.ingress import Ingress
from airflow_provider_hsml.local.store import Store
from airflow_provider_hsml.local.world.accounts import (
    SCOPES,
    Accounts,
    check_keys,
    check_projects,
    keep_key,
    kept_key,
)
from airflow_provider_hsml.local.world.administration import Administration
from airflow_provider_hsml.local.world.key_stores import keep_key_stores
from airflow_provider_hsml.local.world.world import Root, World

from .app import make_app
from .journal import Journal
from .listeners import HOST, Listeners, make_server
from .tls import certificate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from airflow_provider_hsml.local.cluster.engines import Engine, ModelFiles, PredictFunction

_EngineChoice: TypeAlias = "Literal['kserve'] | Callable[[ModelFiles], PredictFunction]"


@dataclasses.dataclass(frozen=True, slots=True)
class _Settings:
    """The checked arguments of ``LocalServing``."""

    root: Path | None
    port: int
    projects: list[str]
    api_key: str | None
    tls: bool
    hopsworks_version: str
    engine: _EngineChoice
    profile: Profile
    speeds: Speeds
    access: AccessOptions
    administration: Administration
    options: ServerOptions


class LocalServing:
    """
    A local Model Serving, for as long as the ``with`` block lasts.

    It listens on 127.0.0.1 when the block begins, and has ended, with all model servers, when the block is left::

        with LocalServing(engine=lambda model: lambda rows: [model.version for _ in rows]) as serving:
            monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", serving.connection)

    :param root: the folder that keeps everything; None: a temporary one, deleted at the end
    :param port: 0: a free one
    :param project: the project of the keys, or several
    :param api_key: None: the one kept in the root, made at the first start
    :param tls: HTTPS with a CA of its own, whose bundle is ``ca_bundle``
    :param hopsworks_version: the line of Hopsworks to imitate: "3.7", "4.6" or "5.2"
    :param engine: "kserve" (KServe's model server, in processes of its own), or a callable that takes a ``ModelFiles``
        and returns a function from the value of ``instances`` to a list. With a callable, jobs run with the interpreter
        of this process; else in an environment of their own
    :param profile: "real" (the ways of a cluster, in which a careless client fails), "plain", or a ``Profile``
    :param speeds: durations of transitions; None: tens of milliseconds with a callable, a cluster's with KServe
    :param access: further keys, their roles, and other projects; None: none of them
    :param administration: variables, quotas, topics and tag schemas of the cluster; None: Hopsworks' defaults
    :param options: the ingress's port, control over HTTP, and the cache of environments; None: the defaults
    :raises ValueError: an argument is not valid, such as a project or a key that no client can use
    :raises RootInUseError: another server has the root
    :raises OSError: the port is in use, or the root cannot be written
    """

    def __init__(  # noqa: PLR0917 - the promised signature
        self,
        root: str | Path | None = None,
        port: int = 0,
        project: str | Sequence[str] = DEFAULT_PROJECT,
        api_key: str | None = None,
        tls: bool = False,  # noqa: FBT001, FBT002 - the promised signature
        hopsworks_version: str = "5.2",
        engine: Literal["kserve"] | Callable[[ModelFiles], PredictFunction] = "kserve",
        profile: str | Profile = "real",
        *,
        speeds: Speeds | None = None,
        access: AccessOptions | None = None,
        administration: Administration | None = None,
        options: ServerOptions | None = None,
    ) -> None:
        if hopsworks_version not in LINES:
            raise ValueError(
                f"hopsworks_version {hopsworks_version!r} is not built: expected one of {', '.join(LINES)}.",
            )
        options = options or ServerOptions()
        for name, number in (("port", port), ("ingress_port", options.ingress_port)):
            if not 0 <= number <= 65535:
                raise ValueError(f"{name} {number} is out of range: expected 0 (a free port) to 65535.")
        access = access or AccessOptions()
        projects = [project] if isinstance(project, str) else list(project)
        # Before anything is written: a key is kept in the root, and a project's name is the name of a folder.
        check_projects([*projects, *access.foreign_projects])
        api_key = None if api_key is None else api_key.strip()
        check_keys("api_key", [] if api_key is None else [api_key])
        check_keys("access.keys", access.keys)
        check_keys("access.tokens", access.tokens)
        self.requests = Journal(keep_bodies=options.keep_bodies)
        """The requests so far."""
        self.faults = Faults()
        """The failures on command."""
        self._settings = _Settings(
            root=None if root is None else Path(root).expanduser().resolve(),
            port=port,
            projects=projects,
            api_key=api_key,
            tls=tls,
            hopsworks_version=hopsworks_version,
            engine=engine,
            profile=Profile.named(profile) if isinstance(profile, str) else profile,
            speeds=speeds or (Speeds.of_a_cluster() if engine == "kserve" else Speeds()),
            access=access,
            # A copy: the variables of a running server may be changed.
            administration=dataclasses.replace(administration or Administration()),
            options=options,
        )
        self._listeners: Listeners | None = None

    # Known once the server has started.
    url: str
    """``http://127.0.0.1:<port>``."""
    ingress_url: str
    """``http://127.0.0.1:<port>`` of the ingress."""
    root: Path
    api_key: str
    ca_bundle: Path | None
    world: World
    """Projects, models, deployments and the cluster, without HTTP."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def project(self) -> str:
        """The name of the (first) project."""
        return self._settings.projects[0]

    @property
    def project_id(self) -> int:
        """The id of the (first) project."""
        return self.world.accounts.projects[0].id

    @property
    def api_key_file(self) -> Path:
        """The file that keeps the API key."""
        return self.root / "api.key"

    @property
    def connection(self) -> str:
        """The JSON text for ``AIRFLOW_CONN_HSML_DEFAULT``. It holds the API key."""
        return json.dumps(self.connection_fields(self.api_key))

    def connection_fields(self, password: str) -> dict[str, object]:
        """Return the fields of the Airflow connection, with this password."""
        extra: dict[str, object] = {"project": self.project}
        if self.ca_bundle is not None:
            extra["ca_bundle"] = str(self.ca_bundle)
        port = int(self.url.rpartition(":")[2])
        return {
            "conn_type": "hsml",
            "host": HOST if self._settings.tls else f"http://{HOST}",
            "port": port,
            "password": password,
            "extra": extra,
        }

    def start(self) -> None:
        """Start the server, and return when it answers."""
        settings = self._settings
        self.root = settings.root or Path(tempfile.mkdtemp(prefix="hsml-local-"))
        lock = Root(self.root)
        listeners: Listeners | None = None
        chain: Path | None = None
        try:
            listeners = Listeners(settings.port, settings.options.ingress_port)
            self.url = f"{'https' if settings.tls else 'http'}://{HOST}:{listeners.port}"
            self.ingress_url = f"http://{HOST}:{listeners.ingress_port}"
            lock.say_who(f"the server at {self.url} (process {os.getpid()})")
            lock.keep_version(settings.hopsworks_version)
            self.api_key = self._load_api_key()
            self.ca_bundle = None
            if settings.tls:
                self.ca_bundle, chain = certificate(self.root / "tls")
            self.world = self._make_world(listeners.ingress_port)
        except BaseException:
            if listeners is not None:
                listeners.close()
            lock.release()
            self._clear()
            raise
        self._lock = lock
        api = make_app(self.world, self.requests if settings.options.control else None)
        servers = [
            make_server(api, PREFIX, self.requests, self.faults, chain),
            make_server(Ingress(self.world), "", self.requests, self.faults),
        ]
        self._listeners = listeners
        try:
            listeners.start(servers, self.world.engine)
        except RuntimeError:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server and all model servers, and return when they have ended. A second call does nothing."""
        listeners, self._listeners = self._listeners, None
        if listeners is None:
            return
        listeners.stop()
        self.world.close()
        self._lock.release()
        self._clear()

    def reset(self, *, everything: bool = False) -> None:
        """
        Forget the requests, end all faults and holds, and restore the first speeds.

        :param everything: delete all deployments, models, jobs and files as well
        """
        self.world.reset(everything=everything)
        self.requests.clear()

    def _clear(self) -> None:
        """Delete the root, if it was made for this run only."""
        if self._settings.root is None:
            shutil.rmtree(self.root, ignore_errors=True)

    def _load_api_key(self) -> str:
        if self._settings.api_key is None:
            return kept_key(self.api_key_file)
        keep_key(self.api_key_file, self._settings.api_key)
        return self._settings.api_key

    def _make_world(self, ingress_port: int) -> World:
        settings, access = self._settings, self._settings.access
        store = Store(self.root / "state.sqlite3")
        try:
            # As in Hopsworks, scripts get a key for their own calls; it is not the user's.
            serving_key = kept_key(self.root / "secrets" / "api.key")
            for project in (*settings.projects, *access.foreign_projects):
                keep_key_stores(self.root / "secrets", project)
            keys = {self.api_key: SCOPES, serving_key: SCOPES, **access.keys}
            accounts = Accounts(
                settings.projects,
                access.foreign_projects,
                keys,
                access.roles,
                access.shared_registries,
                tokens=access.tokens,
            )
            env = _script_env(self.url, serving_key, str(self.root / "secrets"), self.ca_bundle)
            return World(
                self.root,
                accounts,
                store,
                self._make_engine(store, env),
                job_runner=_make_job_runner(settings, self.root, store, env),
                speeds=settings.speeds,
                profile=settings.profile,
                faults=self.faults,
                line=LINES[settings.hopsworks_version],
                administration=settings.administration,
                ca_bundle=self.ca_bundle,
                ingress_port=ingress_port,
            )
        except BaseException:
            store.close()
            raise

    def _make_engine(self, store: Store, env: dict[str, str]) -> Engine:
        engine = self._settings.engine
        if callable(engine):
            return CallableEngine(engine)
        named = NamedEnvironments(_environments(self._settings), self.root / "environments")
        return KServeEngine(named, store, self.root, env)


def _environments(settings: _Settings) -> Environments:
    """Return the environments that are built on this machine."""
    cache = settings.options.cache
    return Environments(None if cache is None else Path(cache).expanduser())


def _make_job_runner(settings: _Settings, root: Path, store: Store, env: dict[str, str]) -> JobRunner:
    """
    Return what runs the jobs.

    A server whose models are callables builds no environment: its jobs use this interpreter.
    """
    named = NamedEnvironments(
        _environments(settings), root / "environments" / "jobs", JOB_ENVIRONMENTS, job_requirements
    )
    python = (lambda *_: Path(sys.executable)) if callable(settings.engine) else named.python
    return JobRunner(python, store, root / "executions", env)


def _script_env(url: str, serving_key: str, secrets: str, ca_bundle: Path | None) -> dict[str, str]:
    """
    Return the environment variables of scripts: of model servers and of jobs.

    :param secrets: the folder with the key
    """
    return {
        "REST_ENDPOINT": url,
        "HOPSWORKS_PUBLIC_HOST": url.partition("://")[2],
        "API_KEY": serving_key,
        "SERVING_API_KEY": serving_key,
        "SECRETS_DIR": secrets,
        "MATERIAL_DIRECTORY": secrets,
        "REQUESTS_VERIFY": "true",
    } | ({"DOMAIN_CA_TRUSTSTORE_PEM": str(ca_bundle)} if ca_bundle else {})
