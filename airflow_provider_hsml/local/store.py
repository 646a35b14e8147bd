"""The persistent state, in SQLite: models, deployments with their versions, jobs, and processes that were started."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE models (project INTEGER, name TEXT, version INTEGER, document TEXT NOT NULL,
                     PRIMARY KEY (project, name, version));
CREATE TABLE deployments (id INTEGER PRIMARY KEY AUTOINCREMENT, project INTEGER, name TEXT, document TEXT NOT NULL,
                          UNIQUE (project, name));
CREATE TABLE versions (deployment INTEGER REFERENCES deployments (id) ON DELETE CASCADE, number INTEGER,
                       document TEXT NOT NULL, PRIMARY KEY (deployment, number));
CREATE TABLE processes (pid INTEGER PRIMARY KEY, started TEXT NOT NULL);
"""
_ADDED = """
CREATE TABLE IF NOT EXISTS jobs (id INTEGER PRIMARY KEY AUTOINCREMENT, project INTEGER, name TEXT,
                                 document TEXT NOT NULL, UNIQUE (project, name));
CREATE TABLE IF NOT EXISTS executions (id INTEGER PRIMARY KEY AUTOINCREMENT,
                                       job INTEGER REFERENCES jobs (id) ON DELETE CASCADE, document TEXT NOT NULL);
"""
"""Tables that files of an earlier version lack. An earlier version can still read a file that has them."""


class StoreTooNewError(Exception):
    """The root was written by a newer airflow-provider-hsml."""


class StoreUnusableError(Exception):
    """The store is damaged, is not an SQLite file, or its disk is full."""


class Store:
    """
    One SQLite file. Every change is written to it before the request is acknowledged.

    Rows are documents (JSON objects); their meaning belongs to ``registry`` and ``deployments``.

    :param file: created if it does not exist; only its owner can read it, since deployments have secrets in variables
    :raises StoreTooNewError: the file was written by a newer version
    :raises StoreUnusableError: the file is damaged or not SQLite, or the disk is full
    """

    def __init__(self, file: Path) -> None:
        self._lock = threading.RLock()
        _make_private(file)
        self._db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(file)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise StoreUnusableError(f"{file} cannot be used ({error}): give another --root.") from error
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, file: Path) -> None:
        """Create the tables if they do not exist; refuse a file that a newer version has written."""
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA foreign_keys = ON")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise StoreTooNewError(
                f"{file} was written by a newer airflow-provider-hsml (its format is {version}, this one reads up to "
                f"{SCHEMA_VERSION}): install that version, or give another --root.",
            )
        if version == 0:
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        self._db.executescript(f"BEGIN IMMEDIATE; {_ADDED} COMMIT;")

    def close(self) -> None:
        """Close the file. All changes have been written already."""
        with self._lock:
            self._db.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block as one atomic transaction, serialized with all others."""
        with self._lock:
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.OperationalError):  # On a full disk SQLite rolls back by itself.
                    self._db.execute("ROLLBACK")
                raise

    # --- Models

    def put_model(self, project: int, name: str, version: int, document: dict[str, Any]) -> None:
        """Insert or replace one version of a model."""
        self._change("INSERT OR REPLACE INTO models VALUES (?, ?, ?, ?)", project, name, version, json.dumps(document))

    def model(self, project: int, name: str, version: int) -> dict[str, Any] | None:
        """Return one version of a model; None if it does not exist."""
        query = "SELECT document FROM models WHERE project = ? AND name = ? AND version = ?"
        row = self._one(query, project, name, version)
        return json.loads(row[0]) if row else None

    def models(self, project: int) -> list[dict[str, Any]]:
        """Return all versions of all models of a project, ordered by name and version."""
        query = "SELECT document FROM models WHERE project = ? ORDER BY name, version"
        return [json.loads(row[0]) for row in self._all(query, project)]

    def delete_model(self, project: int, name: str, version: int) -> None:
        """Delete one version of a model."""
        self._change("DELETE FROM models WHERE project = ? AND name = ? AND version = ?", project, name, version)

    # --- Deployments

    def insert_deployment(self, project: int, name: str, document: dict[str, Any]) -> int | None:
        """Insert a deployment and return its id; None if the project already has one of that name."""
        with self._lock:
            try:
                cursor = self._db.execute(
                    "INSERT INTO deployments (project, name, document) VALUES (?, ?, ?)",
                    (project, name, json.dumps(document)),
                )
            except sqlite3.IntegrityError:
                return None
            return cursor.lastrowid

    def update_deployment(self, deployment: int, document: dict[str, Any]) -> None:
        """Replace a deployment's document."""
        self._change("UPDATE deployments SET document = ? WHERE id = ?", json.dumps(document), deployment)

    def deployments(self, project: int | None = None) -> list[tuple[int, int, str, dict[str, Any]]]:
        """Return (id, project, name, document) of all deployments, or of one project's, ordered by id."""
        query = "SELECT id, project, name, document FROM deployments WHERE project = ? OR ? IS NULL ORDER BY id"
        return [(row[0], row[1], row[2], json.loads(row[3])) for row in self._all(query, project, project)]

    def delete_deployment(self, deployment: int) -> None:
        """Delete a deployment and its versions."""
        self._change("DELETE FROM deployments WHERE id = ?", deployment)

    def put_version(self, deployment: int, number: int, document: dict[str, Any]) -> None:
        """Insert or replace a version of a deployment."""
        self._change("INSERT OR REPLACE INTO versions VALUES (?, ?, ?)", deployment, number, json.dumps(document))

    def versions(self, deployment: int) -> dict[int, dict[str, Any]]:
        """Return the documents of a deployment's versions by number, newest first."""
        query = "SELECT number, document FROM versions WHERE deployment = ? ORDER BY number DESC"
        return {row[0]: json.loads(row[1]) for row in self._all(query, deployment)}

    # --- Jobs

    def put_job(self, project: int, name: str, document: dict[str, Any]) -> int:
        """Insert or replace a job, and return its id, which stays the same."""
        statement = """INSERT INTO jobs (project, name, document) VALUES (?, ?, ?)
                       ON CONFLICT (project, name) DO UPDATE SET document = excluded.document"""
        with self.transaction():
            self._change(statement, project, name, json.dumps(document))
            return int(self._one("SELECT id FROM jobs WHERE project = ? AND name = ?", project, name)[0])

    def jobs(self, project: int) -> dict[str, tuple[int, dict[str, Any]]]:
        """Return id and document of each job of a project by its name, in the order of their creation."""
        rows = self._all("SELECT name, id, document FROM jobs WHERE project = ? ORDER BY id", project)
        return {row[0]: (row[1], json.loads(row[2])) for row in rows}

    def delete_job(self, job: int) -> None:
        """Delete a job and its executions."""
        self._change("DELETE FROM jobs WHERE id = ?", job)

    def insert_execution(self, job: int, document: dict[str, Any]) -> int:
        """Insert an execution of a job, and return its id."""
        with self._lock:
            values = (job, json.dumps(document))
            cursor = self._db.execute("INSERT INTO executions (job, document) VALUES (?, ?)", values)
            assert cursor.lastrowid is not None  # noqa: S101 - a row was inserted
            return cursor.lastrowid

    def update_execution(self, execution: int, document: dict[str, Any]) -> None:
        """Replace an execution's document, if the execution exists."""
        self._change("UPDATE executions SET document = ? WHERE id = ?", json.dumps(document), execution)

    def executions(self, job: int) -> dict[int, dict[str, Any]]:
        """Return the documents of a job's executions by id, newest first."""
        rows = self._all("SELECT id, document FROM executions WHERE job = ? ORDER BY id DESC", job)
        return {row[0]: json.loads(row[1]) for row in rows}

    def delete_execution(self, execution: int) -> None:
        """Delete an execution."""
        self._change("DELETE FROM executions WHERE id = ?", execution)

    # --- Processes

    def note_process(self, pid: int, started: str) -> None:
        """Record a process that was started."""
        self._change("INSERT OR REPLACE INTO processes VALUES (?, ?)", pid, started)

    def forget_process(self, pid: int) -> None:
        """Delete the record of a process that has ended."""
        self._change("DELETE FROM processes WHERE pid = ?", pid)

    def processes(self) -> list[tuple[int, str]]:
        """Return (pid, start time) of the processes that are not known to have ended."""
        return [(row[0], row[1]) for row in self._all("SELECT pid, started FROM processes")]

    def _change(self, statement: str, *values: object) -> None:
        with self._lock:
            self._db.execute(statement, values)

    def _one(self, query: str, *values: object) -> Any:
        with self._lock:
            return self._db.execute(query, values).fetchone()

    def _all(self, query: str, *values: object) -> list[Any]:
        with self._lock:
            return self._db.execute(query, values).fetchall()


def _make_private(file: Path) -> None:
    """Create the file for its owner only. SQLite gives the files beside it, such as ``-wal``, the same permissions."""
    os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
    for existing in file.parent.glob(f"{file.name}*"):
        existing.chmod(0o600)
