"""
Show that Celery workers have separate file systems: what one has written, the other one does not find.

A local path that is handed from one worker to the other is an error of ``RegisterModelOperator`` that says what to do.
"""

# mypy: disable-error-code="arg-type, no-untyped-call"
# Airflow types the future return value of a task as XComArg, even where a plain value is expected.

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

from airflow.sdk import DAG, get_current_context, task

from airflow_provider_hsml import HsmlHook
from airflow_provider_hsml.hopsworks.errors import InvalidInputError


@task
def write() -> list[str]:
    """Write a file into each folder that a task may think of, and return the files."""
    folders = {os.environ["AIRFLOW_HOME"], str(Path.home()), str(Path.cwd()), tempfile.gettempdir(), "/tmp"}  # noqa: S108 - ours alone
    name = f"separate-files-{get_current_context()['ti'].task_id}"
    files = sorted(str(Path(folder, name)) for folder in folders)
    for file in files:
        Path(file).write_text(socket.gethostname())
    return files


@task
def find(files: list[str]) -> list[str]:
    """Return the files that exist here."""
    return [file for file in files if Path(file).exists()]


@task
def check(written: list[str], own: list[str], others: list[str]) -> None:
    """Check that the worker that wrote the files finds all of them, and the other one none."""
    assert len(written) == 3, f"expected Airflow's home, the temporary folder and /tmp: {written}"
    assert own == written, f"the worker's own files are lost: {sorted(set(written) - set(own))}"
    assert not others, f"the other worker sees {others}"


@task
def hand_over(files: list[str]) -> None:
    """Register a model by a path of the other worker, which has to fail."""
    try:
        HsmlHook().register_model(model_name="unreachable", model_path=files[0], framework="PYTHON")
    except InvalidInputError as error:
        assert "no such file or folder on this machine" in str(error), error  # noqa: PT017
    else:
        raise AssertionError(f"{files[0]} of the other worker could be registered")


with DAG("separate_files", schedule=None):
    for one, other in (("one", "two"), ("two", "one")):
        written = write.override(task_id=f"write_{one}", queue=one)()
        own = find.override(task_id=f"find_own_{one}", queue=one)(written)
        others = find.override(task_id=f"find_others_{other}", queue=other)(written)
        check.override(task_id=f"check_{one}")(written, own, others)
        hand_over.override(task_id=f"hand_over_{one}", queue=other)(written)
