"""The versions of the doctor's own model: registered with the lease's id, and deleted without those of anybody else."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.errors import InvalidInputError
from airflow_provider_hsml.hopsworks.registry import sources

if TYPE_CHECKING:
    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.hopsworks.api import FileEntry
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion

NAME = "hsmldoctor"
"""The name of the model, and of the folder of the lease."""
_OWNER = "of airflow-provider-hsml"
"""The end of the descriptions of all versions that a doctor registers."""
_FOLDER = f"Models/{NAME}"
_FILE, _CONTENT = "model.pkl", pickle.dumps({"hsml-doctor": 1})
"""The one file of a version."""


class OwnModel:
    """
    The versions of the doctor's model.

    :param hook: a hook on the connection
    """

    def __init__(self, hook: HsmlHook) -> None:
        self._hook = hook

    def register(self, lease_id: str) -> ModelVersion:
        """Register a version, whose description names the lease."""
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / _FILE).write_bytes(_CONTENT)
            return self._hook.register_model(
                model_name=NAME,
                model_path=folder,
                framework="PYTHON",
                metrics={"doctor": 1.0},
                description=f"Temporary; lease {lease_id} {_OWNER}",
            )

    def check(self) -> None:
        """
        Check that the model and its folder hold nothing but what doctors have made.

        :raises InvalidInputError: there is a version, a file or a folder of somebody else
        """
        versions = self._hook.get_models(NAME)
        theirs = [f"version {one.version}" for one in versions if not _is_of(one)]
        theirs += [
            f"{_FOLDER}/{entry.name}"
            for entry in self._entries()
            if entry.name not in {str(one.version) for one in versions} and not self._is_unregistered(entry)
        ]
        if theirs:
            message = (
                f"Model {NAME!r}: no hsml-doctor has made {', '.join(theirs)}. Nothing was deleted.\n"
                "Run the doctor without --write, or in another project."
            )
            raise InvalidInputError(message)

    def remove(self, lease_id: str = "", *, is_alone: bool) -> None:
        """
        Delete versions of doctors, and the folder of the model if nothing else is in it.

        :param lease_id: of the lease whose versions are deleted; empty for those of all doctors
        :param is_alone: whether no other doctor is at work: files without a registered version are deleted as well
        """
        project, kept = self._hook.client.project, set()
        for one in self._hook.get_models(NAME):
            if _is_of(one, lease_id):
                self._hook.delete_model(NAME, one.version)
                self._hook.client.send(api.delete_path(project, f"{_FOLDER}/{one.version}"))
            else:
                kept.add(str(one.version))
        if not is_alone:
            return
        for entry in self._entries():
            if entry.name not in kept and self._is_unregistered(entry):
                self._hook.client.send(api.delete_path(project, f"{_FOLDER}/{entry.name}"))
        if not self._entries():
            self._hook.client.send(api.delete_path(project, _FOLDER))

    def _entries(self) -> list[FileEntry]:
        return self._hook.run(sources.list_all(self._hook.client.project, _FOLDER))

    def _is_unregistered(self, entry: FileEntry) -> bool:
        """Whether a folder is one of a version that a doctor was about to register, by the file in it."""
        if not (entry.is_folder and entry.name.isdecimal()):
            return False
        files = self._hook.run(sources.walk(self._hook.client.project, f"{_FOLDER}/{entry.name}"))
        return all(
            path in (_FILE, f"Files/{_FILE}") and file.size in (0, len(_CONTENT)) for path, file in files.items()
        )


def _is_of(version: ModelVersion, lease_id: str = "") -> bool:
    """Whether a doctor has registered a version: any one, or that of a lease."""
    return (version.description or "").endswith(f"{lease_id} {_OWNER}")
