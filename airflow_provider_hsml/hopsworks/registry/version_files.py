"""The metadata files beside a model version's own: its recorded answers, its input example, its age."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import lookup
from .sources import list_all

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.domain.project import Project


class VersionFiles:
    """The listings of one task: each version is listed once, since the files of a registered version do not change."""

    def __init__(self) -> None:
        self._sizes: dict[str, Mapping[str, int | None]] = {}

    async def sizes(self, project: Project, model: ModelVersion) -> Mapping[str, int | None]:
        """Return the names of a version's metadata files with their sizes."""
        folder = lookup.model_folder(project, model)
        if folder not in self._sizes:
            # Each version has a file or a folder: one answer that there is none is not enough to verify without them.
            entries = await list_all(project, folder) or await list_all(project, folder)
            self._sizes[folder] = {entry.name: entry.size for entry in entries if not entry.is_folder}
        return self._sizes[folder]
