"""The two SDKs, behind one interface for the calls in which they differ: logging in and handling files."""

from __future__ import annotations

import importlib.metadata
import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Sdk(ABC):
    """An official SDK. The variables HOPSWORKS_HOST, _PORT, _PROJECT and _API_KEY set the cluster."""

    name: ClassVar[str]
    host = os.environ.get("HOPSWORKS_HOST", "")
    port = int(os.environ.get("HOPSWORKS_PORT", "443"))
    project = os.environ.get("HOPSWORKS_PROJECT", "")
    key = os.environ.get("HOPSWORKS_API_KEY", "")

    @property
    def release(self) -> tuple[int, int]:
        """Major and minor version of the SDK that is installed here."""
        major, minor = importlib.metadata.version(self.name).split(".")[:2]
        return int(major), int(minor)

    @abstractmethod
    def log_in(self, key: str | None = None) -> tuple[Any, Any]:
        """Log in and return the handles of the model registry and of model serving."""

    @abstractmethod
    def log_out(self) -> None:
        """End the connection."""

    @property
    @abstractmethod
    def files(self) -> Any:
        """The handle of the project's files."""

    @property
    def feature_store(self) -> Any:
        """The handle of the project's feature store, where the SDK has one."""
        raise NotImplementedError

    @property
    def jobs(self) -> Any:
        """The handle of the project's jobs, where the SDK has one."""
        raise NotImplementedError

    @abstractmethod
    def list_files(self, path: str) -> Sequence[str]:
        """List the names in a folder."""

    @abstractmethod
    def download(self, path: str, to: Path) -> None:
        """Download a file."""


class Hopsworks(Sdk):
    """The package ``hopsworks``."""

    name = "hopsworks"

    def log_in(self, key: str | None = None) -> tuple[Any, Any]:
        import hopsworks

        project = hopsworks.login(
            host=self.host,
            port=self.port,
            project=self.project,
            api_key_value=key or self.key,
            engine="python",
        )
        self._project = project
        return project.get_model_registry(), project.get_model_serving()

    def log_out(self) -> None:
        import hopsworks

        hopsworks.logout()

    @property
    def files(self) -> Any:
        return self._project.get_dataset_api()

    @property
    def feature_store(self) -> Any:
        return self._project.get_feature_store()

    @property
    def jobs(self) -> Any:
        return self._project.get_job_api()

    def list_files(self, path: str) -> list[str]:
        return [each.rpartition("/")[2] for each in self.files.list(path)]

    def download(self, path: str, to: Path) -> None:
        self.files.download(path, str(to), overwrite=True)


class Hsml(Sdk):
    """The package ``hsml``, from before it was merged into ``hopsworks``."""

    name = "hsml"

    def log_in(self, key: str | None = None) -> tuple[Any, Any]:
        import hsml

        self._connection = hsml.connection(
            host=self.host,
            port=self.port,
            project=self.project,
            api_key_value=key or self.key,
            hostname_verification=False,
        )
        return self._connection.get_model_registry(), self._connection.get_model_serving()

    def log_out(self) -> None:
        self._connection.close()

    @property
    def files(self) -> Any:
        from hsml.core.dataset_api import DatasetApi

        return DatasetApi()

    def list_files(self, path: str) -> list[str]:
        return [each["attributes"]["name"] for each in self.files.list(path, sort_by="NAME:asc")["items"]]

    def download(self, path: str, to: Path) -> None:
        self.files.download(path, str(to))


SDKS = {each.name: each for each in (Hopsworks, Hsml)}
