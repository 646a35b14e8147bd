"""Files in object storage, read through Airflow's own ``ObjectStoragePath``: no further dependency."""

from __future__ import annotations

import contextlib
import gzip
import os
import posixpath
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.providers.common.compat.sdk import ObjectStoragePath


@contextlib.contextmanager
def local_copy(name: str, path: object) -> Iterator[object]:
    """
    Yield a local path. Files in object storage are downloaded into a temporary folder first, in chunks.

    :param name: the argument's name, for the error message
    :param path: an ``ObjectStoragePath``, or its URL (``s3://connection@bucket/folder``, ``file:///...``); any other
        value is yielded unchanged
    :raises InvalidInputError: there is no such file, or Airflow cannot read such URLs here
    """
    if hasattr(path, "protocol") and hasattr(path, "fs"):
        path = str(path)  # An ObjectStoragePath.
    if isinstance(path, str) and path.startswith("file:///"):
        path = path.removeprefix("file://")
    if not isinstance(path, str) or "://" not in path or path.startswith("hopsfs:"):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="airflow-provider-hsml-") as folder:
        yield _download(name, path, Path(folder))


def writable(name: str, path: object) -> ObjectStoragePath:
    """
    Return the path of a file to write, after checking that it can be written. Its folder is created.

    :param name: the argument's name, for the error message
    :param path: a local path, an ``ObjectStoragePath``, or its URL
    :raises InvalidInputError: it cannot be written to, or Airflow cannot read such URLs here
    """
    from airflow.providers.common.compat.sdk import ObjectStoragePath  # noqa: PLC0415 - rarely needed

    text = arguments.text(name, str(path) if isinstance(path, os.PathLike) or hasattr(path, "protocol") else path)
    local = None
    try:
        target = ObjectStoragePath(text)
        # A link may lead to a file that does not exist yet.
        local = Path(target.path).resolve() if target.protocol in ("", "file", "local") else None
        if target.is_dir() or (local is not None and local.exists() and not local.is_file()):
            arguments.refuse(name, "a file to write, not a folder or a pipe", text)
        target.parent.mkdir(parents=True, exist_ok=True)
        if local is not None:
            is_new = not local.exists()
            with local.open("ab"):
                pass
            if is_new:
                local.unlink()
    except (ImportError, TypeError, ValueError) as error:
        message = (
            f"{name} {text!r}: Airflow cannot use such URLs here ({error}).\nInstall the provider of that storage, or "
            "give a local path."
        )
        raise InvalidInputError(message) from error
    except OSError as error:
        if local is None:
            raise
        message = f"{name} {text!r}: the file cannot be written ({error}).\nGive a path that this task may write to."
        raise InvalidInputError(message) from error
    return target


def is_passing(error: BaseException) -> bool:
    """
    Return whether a failure of storage may pass, so that a retry of the task makes sense.

    :param error: not one about a path that is wrong or forbidden, or about the content of a file
    """
    lasting = (PermissionError, FileNotFoundError, IsADirectoryError, NotADirectoryError, gzip.BadGzipFile)
    if not isinstance(error, OSError) or isinstance(error, lasting):
        return False
    # pyarrow raises a bare OSError for a damaged file.
    return type(error) is not OSError or error.errno is not None


def unreadable(name: str, error: BaseException, where: str = "", argument: str = "input") -> InvalidInputError:
    """
    Return the error for a file that cannot be read; transient if the failure may pass.

    :param name: of the file
    :param error: what was raised
    :param where: how far it was read
    :param argument: the argument's name
    """
    reason = (getattr(error, "strerror", None) or str(error)).partition("\n")[0][:300]
    found = InvalidInputError(
        f"{argument}: {name!r} cannot be read{where} ({reason}).\nCheck the path, whether this task may read it, and "
        "whether it is complete."
    )
    found.transient = is_passing(error)
    return found


def _download(name: str, url: str, folder: Path) -> Path:
    from airflow.providers.common.compat.sdk import ObjectStoragePath  # noqa: PLC0415 - rarely needed

    paths: list[str] = []
    try:
        source = ObjectStoragePath(url)
        files, root = source.fs, source.path.rstrip("/")
        with contextlib.suppress(FileNotFoundError):
            paths = files.find(root)
    except (ImportError, TypeError, ValueError) as error:
        # TypeError: Airflow 3.0 with a universal_pathlib that is too new for it.
        message = (
            f"{name} {url!r}: Airflow cannot read such URLs here ({error}).\nInstall the provider of that storage, or "
            "give a local path."
        )
        raise InvalidInputError(message) from error
    if not paths:
        message = f"{name} {url!r}: there is no such file, and no folder of that name with files in it."
        raise InvalidInputError(message)
    target = folder / posixpath.basename(root)
    for path in paths:
        inner = posixpath.relpath(path.lstrip("/"), root.lstrip("/"))
        if inner.startswith(".."):
            message = f"{name} {url!r}: it holds {path!r}, which would be written outside of its folder."
            raise InvalidInputError(message)
        copy = target if inner == "." else target / inner
        copy.parent.mkdir(parents=True, exist_ok=True)
        files.get_file(path, str(copy))
    return target
