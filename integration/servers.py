"""PostgreSQL and Redis from Debian, installed if missing, and a bucket; each runs for the duration of a block."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from tests.support.real_airflow import free_port, kill_session

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SECONDS_TO_START = 60


class CannotError(Exception):
    """A required server cannot be installed or started; the message says how to proceed."""


@dataclass(frozen=True, slots=True)
class Address:
    """
    The address of a server on the loopback interface.

    :param version: such as "PostgreSQL 15.18"
    """

    version: str
    port: int
    password: str
    log: Path


def install() -> None:
    """
    Install missing servers.

    :raises CannotError: a server cannot be installed
    """
    needed = {"postgresql": _postgresql("initdb"), "redis-server": shutil.which("redis-server")}
    missing = [package for package, program in needed.items() if program is None]
    if not missing:
        return
    command = f"apt-get install {' '.join(missing)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise CannotError(
            f"Debian's {' and '.join(missing)} cannot be found: run `{command}` as root, or run this program as root."
        )
    print(f"{command} ...", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for each in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
        done = subprocess.run(["apt-get", *each], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotError(
                f"`apt-get {' '.join(each)}` failed; run `{command}` by hand: {done.stderr.strip()[-1000:]}"
            )


def _postgresql(program: str) -> str | None:
    """Return the path of one of PostgreSQL's programs: Debian keeps them off PATH, in a folder for each version."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    return shutil.which(program, path=os.pathsep.join(map(str, reversed(versions)))) or shutil.which(program)


@contextlib.contextmanager
def postgresql() -> Iterator[Address]:
    """Run a new PostgreSQL, whose superuser is ``airflow``."""
    initdb, postgres = _postgresql("initdb"), _postgresql("postgres")
    assert initdb, "call install() first"
    assert postgres, "postgres is installed with initdb"
    who, port, password = _not_root(), free_port(), secrets.token_hex(16)
    with _folder() as folder:
        if who:
            os.chown(folder, who["user"], who["group"])
        (folder / "password").write_text(password)
        data = folder / "data"
        subprocess.run(
            [
                *(initdb, "--pgdata", data, "--username=airflow", f"--pwfile={folder / 'password'}"),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=folder,
            **who,
        )
        command = [postgres, "-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-c", "fsync=off"]
        version = subprocess.check_output([postgres, "--version"], text=True).split()[2]
        with _running(command, port, folder, **who):
            yield Address(f"PostgreSQL {version}", port, password, folder / "log")


@contextlib.contextmanager
def redis() -> Iterator[Address]:
    """Run a new Redis without persistence."""
    port, password = free_port(), secrets.token_hex(16)
    version = subprocess.check_output(["redis-server", "--version"], text=True).split("v=")[1].split()[0]
    settings = {"port": port, "bind": "127.0.0.1", "requirepass": password, "save": '""', "daemonize": "no"}
    with _folder() as folder:
        (folder / "redis.conf").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        with _running(["redis-server", str(folder / "redis.conf")], port, folder):
            yield Address(f"Redis {version}", port, password, folder / "log")


@dataclass(frozen=True, slots=True)
class Bucket:
    """
    A bucket of an S3 server.

    :param version: such as "moto 5.2.5"
    :param connection: the fields of the Airflow connection that reaches it
    :param name: its name
    """

    version: str
    url: str
    connection: dict[str, Any]
    name: str

    def objects(self) -> list[str]:
        """Return the keys of its objects, at most 1000."""
        answer = requests.get(f"{self.url}/{self.name}?list-type=2", timeout=60, verify=True)
        assert answer.ok, answer.text
        return re.findall("<Key>([^<]+)</Key>", answer.text)


@contextlib.contextmanager
def bucket() -> Iterator[Bucket]:
    """Run a new S3 server, moto's, with an empty bucket. It needs no credentials, but Airflow's connection does."""
    port = free_port()
    url, name = f"http://127.0.0.1:{port}", "models"
    connection = {
        "conn_type": "aws",
        "login": "somebody",
        "password": secrets.token_hex(16),
        "extra": json.dumps({"endpoint_url": url, "region_name": "us-east-1"}),
    }
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _folder() as folder, _running(command, port, folder):
        made = requests.put(f"{url}/{name}", timeout=60, verify=True)
        assert made.ok, made.text
        yield Bucket(f"moto {metadata.version('moto')}", url, connection, name)


def _not_root() -> dict[str, Any]:
    """Return the arguments of subprocess that set the user, since PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    users = {user.pw_name: user for user in pwd.getpwall()}
    user = users.get("postgres") or users["nobody"]
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """Create a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="hsml-integration-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextlib.contextmanager
def _running(command: Sequence[str], port: int, folder: Path, **who: Any) -> Iterator[None]:
    """Run a server in a session of its own, so that Ctrl-C reaches only us and we end it in order."""
    log = folder / "log"
    with log.open("w") as output:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            start_new_session=True,
            **who,
        )
    try:
        deadline = time.monotonic() + _SECONDS_TO_START
        while not _listens(port):
            if server.poll() is not None or time.monotonic() > deadline:
                raise CannotError(f"{command[0]} does not start: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield
    finally:
        server.send_signal(signal.SIGINT)  # PostgreSQL ends without waiting for open connections.
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(30)
        server.kill()
        server.wait()
        kill_session(server.pid)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
