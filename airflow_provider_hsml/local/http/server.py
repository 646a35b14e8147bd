"""``LocalServing``: the local Model Serving in this process, for tests, and for the command ``hsml-local serve``."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import uvicorn

from airflow_provider_hsml.local.api.asking import PREFIX
from airflow_provider_hsml.local.cluster.behaviour import Profile, Speeds
from airflow_provider_hsml.local.cluster.engines import CallableEngine
from airflow_provider_hsml.local.cluster.environments import Environments, NamedEnvironments
from airflow_provider_hsml.local.cluster.faults import Faults
from airflow_provider_hsml.local.cluster.kserve_engine import KServeEngine
from airflow_provider_hsml.local.limits import LimitMiddleware
from airflow_provider_hsml.local.lines import LINES
from airflow_provider_hsml.local.proxy.ingress import Ingress
from airflow_provider_hsml.local.store import Store
from airflow_provider_hsml.local.world.accounts import SCOPES, Accounts, keep_key, kept_key
from airflow_provider_hsml.local.world.administration import Administration
from airflow_provider_hsml.local.world.world import Root, World

from .app import make_app
from .fault_middleware import Connections, FaultMiddleware
from .journal import Journal, JournalMiddleware
from .tls import certificate

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from types import TracebackType

    from starlette.types import ASGIApp

    from airflow_provider_hsml.local.cluster.engines import Engine, ModelFiles, PredictFunction
    from airflow_provider_hsml.local.world.administration import Quota

HOST = "127.0.0.1"
_START_SECONDS = 30.0


class LocalServing:
    """
    A local Model Serving, for as long as the ``with`` block lasts.

    It listens on 127.0.0.1 when the block begins, and has ended, with all model servers, when the block is left::

        with LocalServing(engine=lambda model: lambda rows: [model.version for _ in rows]) as serving:
            monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", serving.connection)

    :param root: the folder that keeps everything; None: a temporary one, deleted at the end
    :param port: 0 for one that is free
    :param project: the project that keys belong to, or several
    :param api_key: None: the one kept in the root, made at the first start
    :param tls: HTTPS with a CA of its own, whose bundle is ``ca_bundle``
    :param hopsworks_version: whose ways it has: "3.7", "4.6" or "5.2"
    :param engine: "kserve" (KServe's model server, in processes of its own), or a callable that is given a
        ``ModelFiles`` and returns the function that gets the value of ``instances`` and returns a list
    :param profile: "real" (a cluster's ways, in which a careless client is wrong), "plain", or a ``Profile``
    :param speeds: how long transitions last; None: tens of milliseconds with a callable, a cluster's with KServe
    :param keys: further keys, with the scopes each has
    :param roles: the role that a key gives in its projects, "Data owner" (the default) or "Data scientist"
    :param tokens: such as Hopsworks gives its own jobs, for ``Bearer``; predictions are refused with one
    :param foreign_projects: names of projects in which the keys' user has no role
    :param shared_registries: names of projects that share their ``Models``, with those that they share it with
    :param variables: the cluster's variables that are not to have their defaults, by name
    :param quota: how many deployments a project may have
    :param kafka_topics: that there are in each project, with their schemas (``inferenceschema`` is the loggers')
    :param tag_schemas: JSON schemas by the name of the tag; None: every tag may have any value
    :param cache: where the model server's environments are built; None: the user's cache folder
    :param ingress_port: of the ingress, which is plain HTTP; 0 for one that is free
    :param control: whether faults, speeds and the journal are to be had over HTTP, too, below ``/_local``
    :raises RootInUseError: another server has the root
    :raises OSError: the port is in use, or the root cannot be written
    """

    def __init__(  # noqa: PLR0917 - the promised signature
        self,
        root: str | Path | None = None,
        port: int = 0,
        project: str | Sequence[str] = "demo",
        api_key: str | None = None,
        tls: bool = False,  # noqa: FBT001, FBT002 - the promised signature
        hopsworks_version: str = "5.2",
        engine: Literal["kserve"] | Callable[[ModelFiles], PredictFunction] = "kserve",
        profile: str | Profile = "real",
        *,
        speeds: Speeds | None = None,
        keys: Mapping[str, Collection[str]] | None = None,
        roles: Mapping[str, str] | None = None,
        tokens: Collection[str] = (),
        foreign_projects: Sequence[str] = (),
        shared_registries: Mapping[str, Collection[str]] | None = None,
        variables: Mapping[str, str] | None = None,
        quota: Quota | None = None,
        kafka_topics: Mapping[str, str] | None = None,
        tag_schemas: Mapping[str, Mapping[str, Any]] | None = None,
        cache: str | Path | None = None,
        ingress_port: int = 0,
        control: bool = False,
    ) -> None:
        if hopsworks_version not in LINES:
            raise ValueError(
                f"hopsworks_version {hopsworks_version!r} is not built: expected one of {', '.join(LINES)}.",
            )
        for name, number in (("port", port), ("ingress_port", ingress_port)):
            if not 0 <= number <= 65535:
                raise ValueError(f"{name} {number} is none: expected 0 (one that is free) to 65535.")
        self.requests = Journal()
        """What was asked so far."""
        self.faults = Faults()
        """What goes wrong on command."""
        self._root_given = None if root is None else Path(root).expanduser().resolve()
        self._port = port
        self._ingress_port = ingress_port
        self._projects = [project] if isinstance(project, str) else list(project)
        self._foreign = list(foreign_projects)
        self._key_given = api_key
        self._keys = dict(keys or {})
        self._roles = dict(roles or {})
        self._tokens = tokens
        self._shared = dict(shared_registries or {})
        self._tls = tls
        self._version = hopsworks_version
        self._line = LINES[hopsworks_version]
        self._administration = Administration.of(variables, quota, kafka_topics, tag_schemas)
        self._engine = engine
        self._profile = Profile.named(profile) if isinstance(profile, str) else profile
        self._speeds = speeds or (Speeds.of_a_cluster() if engine == "kserve" else Speeds())
        self._cache = None if cache is None else Path(cache).expanduser()
        self._control = control
        self._servers: list[uvicorn.Server] = []

    # What is known from the start on.
    url: str
    """``http://127.0.0.1:<port>``."""
    ingress_url: str
    """``http://127.0.0.1:<port>`` of the ingress."""
    root: Path
    api_key: str
    api_key_file: Path
    ca_bundle: Path | None
    world: World
    """All that there is, without HTTP."""

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
        return self._projects[0]

    @property
    def project_id(self) -> int:
        """Its id."""
        return self.world.accounts.projects[0].id

    @property
    def connection(self) -> str:
        """The JSON text for ``AIRFLOW_CONN_HSML_DEFAULT``. It holds the API key."""
        return json.dumps(self.connection_fields(self.api_key))

    def connection_fields(self, password: str) -> dict[str, object]:
        """Give the fields of the Airflow connection, with this password."""
        extra: dict[str, object] = {"project": self.project}
        if self.ca_bundle is not None:
            extra["ca_bundle"] = str(self.ca_bundle)
        scheme = "https" if self._tls else "http"
        port = int(self.url.rpartition(":")[2])
        return {
            "conn_type": "hsml",
            "host": HOST if self._tls else f"{scheme}://{HOST}",
            "port": port,
            "password": password,
            "extra": extra,
        }

    def start(self) -> None:
        """Start it, and return when it answers."""
        self.root = self._root_given or Path(tempfile.mkdtemp(prefix="hsml-local-"))
        lock = Root(self.root)
        listening: list[socket.socket] = []
        try:
            listening.append(_listen("port", self._port))
            listening.append(_listen("ingress-port", self._ingress_port))
            port, ingress_port = (bound.getsockname()[1] for bound in listening)
            self.url = f"{'https' if self._tls else 'http'}://{HOST}:{port}"
            self.ingress_url = f"http://{HOST}:{ingress_port}"
            lock.say_who(f"the server at {self.url} (process {os.getpid()})")
            lock.keep_version(self._version)
            self.api_key = self._api_key()
            chain: Path | None = None
            self.ca_bundle = None
            if self._tls:
                self.ca_bundle, chain = certificate(self.root / "tls")
            self.world = self._make_world(ingress_port)
        except BaseException:
            for bound in listening:
                bound.close()
            lock.release()
            self._clear()
            raise
        self._lock, self._listening = lock, listening
        api = make_app(self.world, self.requests if self._control else None)
        self._servers = [self._server(api, PREFIX, chain), self._server(Ingress(self.world), "")]
        self._thread = threading.Thread(target=asyncio.run, args=[self._serve()], name="hsml-local", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not all(server.started for server in self._servers):
            if not self._thread.is_alive() or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"The local Model Serving did not start at {self.url}: see its log.")
            time.sleep(0.005)

    def stop(self) -> None:
        """End it and all that it runs, and return when it has ended. Once is enough."""
        servers, self._servers = self._servers, []
        if not servers:
            return
        for server in servers:
            server.should_exit = True
        self._thread.join()
        for bound in self._listening:
            bound.close()
        self.world.close()
        self._lock.release()
        self._clear()

    async def _serve(self) -> None:
        """
        Run both listeners until they are told to end.

        Not with ``uvicorn.Server.run``: it would take uvloop where it finds it, which was seen to hang when it is
        closed in a thread.
        """
        pairs = zip(self._servers, self._listening, strict=True)
        await asyncio.gather(*(server.serve(sockets=[bound]) for server, bound in pairs))
        await self.world.engine.aclose()

    def _server(self, app: ASGIApp, prefix: str, certificate_chain: Path | None = None) -> uvicorn.Server:
        """Make a listener: what it answers is noted, may be spoilt by a fault, and has its limits."""
        connections = Connections()
        spoilt = FaultMiddleware(LimitMiddleware(app), self.faults, connections, prefix)
        return uvicorn.Server(
            uvicorn.Config(
                JournalMiddleware(spoilt, self.requests, prefix),
                http=connections.protocol(),
                log_config=None,
                access_log=False,
                ws="none",
                lifespan="off",
                server_header=False,
                proxy_headers=False,
                ssl_certfile=certificate_chain,
                # A client that keeps its TLS connection open is not waited for longer than this.
                timeout_graceful_shutdown=2,
                timeout_keep_alive=60,
            )
        )

    def reset(self, *, everything: bool = False) -> None:
        """
        Forget the requests, end all faults and holds, and set the speeds back.

        :param everything: delete all deployments, models and files as well
        """
        self.world.reset(everything=everything)
        self.requests.clear()

    def _clear(self) -> None:
        """Delete the root, if it was made for this run only."""
        if self._root_given is None:
            shutil.rmtree(self.root, ignore_errors=True)

    def _api_key(self) -> str:
        self.api_key_file = self.root / "api.key"
        if self._key_given is None:
            return kept_key(self.api_key_file)
        keep_key(self.api_key_file, self._key_given)
        return self._key_given

    def _make_world(self, ingress_port: int) -> World:
        store = Store(self.root / "state.sqlite3")
        try:
            # As in Hopsworks, scripts get a key to call back with; it is not the user's.
            serving_key = kept_key(self.root / "secrets" / "api.key")
            keys = {self.api_key: SCOPES, serving_key: SCOPES, **self._keys}
            accounts = Accounts(self._projects, self._foreign, keys, self._roles, self._shared, tokens=self._tokens)
            return World(
                self.root,
                accounts,
                store,
                self._make_engine(store, serving_key),
                speeds=self._speeds,
                profile=self._profile,
                faults=self.faults,
                line=self._line,
                administration=self._administration,
                ca_bundle=self.ca_bundle,
                ingress_port=ingress_port,
            )
        except BaseException:
            store.close()
            raise

    def _make_engine(self, store: Store, serving_key: str) -> Engine:
        if callable(self._engine):
            return CallableEngine(self._engine)
        environments = NamedEnvironments(Environments(self._cache), self.root / "environments")
        secrets = str(self.root / "secrets")
        told = {
            "REST_ENDPOINT": self.url,
            "API_KEY": serving_key,
            "SECRETS_DIR": secrets,
            "MATERIAL_DIRECTORY": secrets,
            "REQUESTS_VERIFY": "true",
        } | ({"DOMAIN_CA_TRUSTSTORE_PEM": str(self.ca_bundle)} if self.ca_bundle else {})
        return KServeEngine(environments, store, self.root, told)


def _listen(option: str, port: int) -> socket.socket:
    try:
        # Made anew from its descriptor, it knows its protocol: without, asyncio does not switch Nagle's algorithm off,
        # and the body of an answer waits 40 ms for the client to acknowledge the head.
        return socket.socket(fileno=socket.create_server((HOST, port), backlog=256).detach())
    except OSError as error:
        text = f"port {port} cannot be used ({error.strerror}): end what has it, or give another --{option}."
        raise OSError(error.errno, text) from error
