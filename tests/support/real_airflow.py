"""A real Airflow with a database of its own, whose programs are started and killed one by one."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import requests

from tests.support import commands

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from airflow_provider_hsml.local import LocalServing


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def kill_session(leader: int) -> None:
    """Kill what is left of a session: tasks lead process groups of their own."""

    def left() -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.NoSuchProcess):
                if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                    yield process

    while killed := list(left()):
        for process in killed:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(killed, timeout=10)


@dataclass
class Airflow:
    """Airflow, and a local Model Serving."""

    home: Path
    serving: LocalServing
    environment: dict[str, str]
    port: int

    @classmethod
    def beside(cls, serving: LocalServing, home: Path, dags: Path, **more: str) -> Airflow:
        """Make one that runs what is in a folder."""
        port = free_port()
        environment = commands.environment(
            home,
            AIRFLOW__CORE__DAGS_FOLDER=str(dags),
            AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False",
            AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT=str(free_port()),
            AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT=str(free_port()),
            AIRFLOW__API__WORKERS="1",
            AIRFLOW__API__HOST="127.0.0.1",
            AIRFLOW__API__PORT=str(port),
            AIRFLOW__CORE__EXECUTION_API_SERVER_URL=f"http://127.0.0.1:{port}/execution/",
            # The first answer to a task takes the server seconds, and many on a busy machine.
            AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT="60",
            AIRFLOW__CORE__PARALLELISM="4",
            PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL="5",
            AIRFLOW_CONN_HSML_DEFAULT=serving.connection,
            # Programs that are started at once would each make keys of their own, and refuse those of the others.
            AIRFLOW__API_AUTH__JWT_SECRET="secret" * 11,
            AIRFLOW__CORE__FERNET_KEY=base64.urlsafe_b64encode(b"secret" * 5 + b"=" * 2).decode(),
        )
        return cls(home, serving, environment | more, port)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the database."""
        with contextlib.closing(sqlite3.connect(self.home / "airflow.db", timeout=30)) as connection:
            return connection.execute(query).fetchall()

    def answers(self) -> bool:
        """Whether the server that tasks talk to is up."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def api(self) -> Callable[[str, str, Any], Any]:
        """Make what asks Airflow's API, as the administrator that SIMPLE_AUTH_MANAGER_ALL_ADMINS makes of everybody."""
        base = f"http://127.0.0.1:{self.port}"
        token = requests.get(f"{base}/auth/token", timeout=30, verify=True).json()["access_token"]

        def tell(method: str, path: str, body: Any = None) -> Any:
            headers = {"Authorization": f"Bearer {token}"}
            answer = requests.request(
                method, f"{base}/api/v2/{path}", json=body, headers=headers, timeout=60, verify=True
            )
            assert answer.ok, answer.text
            return answer.json()

        return tell

    @contextlib.contextmanager
    def started(
        self, *command: str, log_name: str | None = None, through: Sequence[str] = (), cwd: Path | None = None
    ) -> Iterator[None]:
        """
        Run one of Airflow's programs for a while, and kill it then with all that it has started.

        :param through: the beginning of a command that becomes the program
        """
        with (self.home / f"{log_name or command[0]}.log").open("a") as log:
            program = subprocess.Popen(
                [*through, sys.executable, "-m", "airflow", *command],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                cwd=cwd,
                start_new_session=True,
            )
            try:
                yield
            finally:
                program.kill()
                program.wait()
                kill_session(program.pid)

    def until(self, holds: Callable[[], object], seconds: float = 120, every: float = 0.2) -> None:
        """Wait until something holds; the programs' logs say why it does not."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                raise AssertionError("\n".join(path.read_text()[-5000:] for path in self.home.glob("*.log")))
            time.sleep(every)
