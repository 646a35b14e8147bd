"""Files of object storage, through Airflow's own ``ObjectStoragePath``: no dependency of ours."""

from __future__ import annotations

import contextlib
import posixpath
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def on_this_machine(what: str, path: object) -> Iterator[object]:
    """
    Give a path of this machine. Files of object storage are fetched into a temporary folder first, piece by piece.

    :param what: the argument's name
    :param path: a URL of object storage (``s3://connection@bucket/folder``, ``file:///...``); anything else is given
        back as it is
    :raises InvalidInputError: there is nothing there, or Airflow cannot read such URLs here
    """
    if not isinstance(path, str) or "://" not in path or path.startswith("hopsfs:"):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="airflow-provider-hsml-") as folder:
        yield _fetched(what, path, Path(folder))


def _fetched(what: str, url: str, folder: Path) -> Path:
    from airflow.providers.common.compat.sdk import ObjectStoragePath  # noqa: PLC0415 - needed by few

    names: list[str] = []
    try:
        source = ObjectStoragePath(url)
        files, root = source.fs, source.path.rstrip("/")
        with contextlib.suppress(FileNotFoundError):
            names = files.find(root)
    except (ImportError, TypeError, ValueError) as error:
        # TypeError: Airflow 3.0 beside a universal_pathlib that is too new for it.
        message = (
            f"{what} {url!r}: Airflow cannot read such URLs here ({error}). Install the provider of that storage, or "
            "give a path of this machine."
        )
        raise InvalidInputError(message) from error
    if not names:
        message = f"{what} {url!r}: there is no such file, and nothing in a folder of that name."
        raise InvalidInputError(message)
    target = folder / posixpath.basename(root)
    for name in names:
        inner = posixpath.relpath(name.lstrip("/"), root.lstrip("/"))
        if inner.startswith(".."):
            message = f"{what} {url!r}: it holds {name!r}, which would be written outside of its folder."
            raise InvalidInputError(message)
        place = target if inner == "." else target / inner
        place.parent.mkdir(parents=True, exist_ok=True)
        files.get_file(name, str(place))
    return target
