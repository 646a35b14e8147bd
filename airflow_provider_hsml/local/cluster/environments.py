"""
The Python environments of model servers and jobs: built on demand and kept, one for each set of requirements.

KServe cannot be installed beside Airflow 3.2 or later (the two want different versions of psutil), and Hopsworks runs
each deployment in an environment of its own as well.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from . import inherited

if TYPE_CHECKING:
    from collections.abc import Callable

KSERVE = "kserve==0.21.0"
_LOADED_FROM_PICKLES = ("scikit-learn", "joblib", "numpy", "scipy", "pandas")
_MARK = "complete"
_POLL_SECONDS = 0.2
HOPSWORKS_ENVIRONMENTS = (
    *("minimal-inference-pipeline", "pandas-inference-pipeline", "tensorflow-inference-pipeline"),
    *("torch-inference-pipeline", "vllm-inference-pipeline"),
)
"""The environments for serving that every Hopsworks project has."""
JOB_ENVIRONMENTS = (
    *("python-feature-pipeline", "spark-feature-pipeline"),
    *("pandas-training-pipeline", "tensorflow-training-pipeline", "torch-training-pipeline"),
)
"""The environments for jobs that every Hopsworks project has."""


class EnvironmentFailedError(Exception):
    """An environment could not be built; the message ends with the installer's last output."""


@dataclass(frozen=True, slots=True)
class Environments:
    """
    The environments below one folder. Several servers, and several processes, may share it.

    :param folder: None: ``hsml-local/environments`` in the user's cache folder
    """

    folder: Path | None = None

    def python(
        self, requirements: tuple[str, ...], say: Callable[[str], None], cancelled: threading.Event | None = None
    ) -> Path:
        """
        Return the interpreter of an environment; build the environment where it does not exist.

        :param requirements: the packages of the environment
        :param say: receives progress, line by line
        :param cancelled: the build gives up when this is set
        :raises EnvironmentFailedError: the environment could not be built
        """
        place = self._place(requirements)
        interpreter = place / "bin" / "python"
        if (place / _MARK).exists():
            return interpreter
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{place}.lock"):
            if not (place / _MARK).exists():
                shutil.rmtree(place, ignore_errors=True)
                _build(place, interpreter, requirements, say, cancelled or threading.Event())
                (place / _MARK).write_text(
                    "\n".join(requirements) + "\n"
                )  # Last: a half-built environment has no mark.
                say(f"The environment is ready: {place}")
        return interpreter

    def is_built(self, requirements: tuple[str, ...]) -> bool:
        """Return whether an environment exists already."""
        return (self._place(requirements) / _MARK).exists()

    def _place(self, requirements: tuple[str, ...]) -> Path:
        # Not the whole of platform.platform(): the kernel's version differs from one CI machine to the next.
        system = [sys.version, sys.base_prefix, sysconfig.get_platform(), *platform.libc_ver()]
        made_of = "\n".join([*requirements, *system])
        return (self.folder or cache_folder()) / hashlib.sha256(made_of.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class NamedEnvironments:
    """
    The environments that deployments or jobs name: those of Hopsworks, which are all the default one, and custom ones.

    A file ``<name>.txt`` in ``folder`` defines a custom environment: a requirement a line, on top of the default ones.

    :param folder: holds the files; None: no custom environments
    :param of_hopsworks: the names of Hopsworks' own environments
    :param default: returns the requirements of the default environment
    """

    environments: Environments
    folder: Path | None = None
    of_hopsworks: tuple[str, ...] = HOPSWORKS_ENVIRONMENTS
    default: Callable[[], tuple[str, ...]] = field(default_factory=lambda: default_requirements)

    def python(self, name: str | None, say: Callable[[str], None], cancelled: threading.Event | None = None) -> Path:
        """
        Return the interpreter of an environment; build the environment where it does not exist.

        :param name: None: the default environment
        :param say: receives progress, line by line
        :param cancelled: the build gives up when this is set
        :raises EnvironmentFailedError: the name is unknown, or the environment could not be built
        """
        own = self._own()
        if name in own:
            return self.environments.python(_with_defaults(own[name], self.default()), say, cancelled)
        if name is not None and name not in self.of_hopsworks:
            known = ", ".join((*self.of_hopsworks, *map(str, own)))
            where = f"; {self.folder}/{name}.txt would make one" if self.folder else ""
            raise EnvironmentFailedError(f"there is no environment {name!r}: expected one of {known}{where}.")
        return self.environments.python(self.default(), say, cancelled)

    def build_all(self, say: Callable[[str], None]) -> list[Path]:
        """
        Build all missing environments, and return the interpreters of all; the default one comes first.

        :param say: receives progress, line by line
        :raises EnvironmentFailedError: one could not be built
        """
        return [self.python(name, say) for name in (None, *self._own())]

    def _own(self) -> dict[str | None, Path]:
        return {file.stem: file for file in sorted(self.folder.glob("*.txt"))} if self.folder else {}


def _with_defaults(file: Path, defaults: tuple[str, ...]) -> tuple[str, ...]:
    """Return the requirements in a file, with the default ones of all packages that the file does not name."""
    try:
        lines = [line.partition("#")[0].strip() for line in file.read_text("utf-8").splitlines()]
        own = {canonicalize_name(Requirement(line).name): line for line in lines if line}
    except (InvalidRequirement, UnicodeDecodeError) as error:
        raise EnvironmentFailedError(
            f"{file}: expected a requirement a line, such as 'xgboost==2.1.4': {error}"
        ) from None
    default = {canonicalize_name(Requirement(line).name): line for line in defaults}
    return tuple((default | own).values())


def default_requirements() -> tuple[str, ...]:
    """
    Return the requirements of the default environment.

    A pickle needs the packages that it was made with. Models are trained with the packages installed here, so the
    environment gets the same versions.
    """
    pinned = []
    for name in _LOADED_FROM_PICKLES:
        try:
            pinned.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            pinned.extend([name] if name == "scikit-learn" else [])
    return (KSERVE, *pinned)


def job_requirements() -> tuple[str, ...]:
    """Return the requirements of the default environment of jobs: those of model servers, without the server itself."""
    return tuple(line for line in default_requirements() if line != KSERVE)


def cache_folder() -> Path:
    """Return the default folder of all environments, in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "hsml-local" / "environments"


def _build(
    place: Path,
    interpreter: Path,
    requirements: tuple[str, ...],
    say: Callable[[str], None],
    cancelled: threading.Event,
) -> None:
    say(f"Building an environment ({', '.join(requirements)}): about a minute")
    # Not with PYTHONDONTWRITEBYTECODE: a start of the model server takes three times as long without .pyc files.
    env = inherited.of_installer()
    uv = _uv()
    if uv is not None:
        _run([uv, "venv", "--quiet", "--python", sys.executable, str(place)], env, cancelled)
        install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(interpreter)]
    else:
        say("uv is not installed: building with venv and pip, which takes some minutes")
        _run([sys.executable, "-m", "venv", str(place)], env, cancelled)
        install = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*install, *requirements], env, cancelled)
    say("Checking the environment")
    modules = "joblib, kserve, sklearn" if KSERVE in requirements else "sklearn"
    _run([str(interpreter), "-c", f"import {modules}"], env, cancelled)


def _uv() -> str | None:
    """Return the path of uv: the installed package, or else the one on PATH."""
    try:
        from uv import find_uv_bin  # noqa: PLC0415 - comes with the extra [local]; without, pip is used

        return find_uv_bin()
    except (ImportError, FileNotFoundError):
        return shutil.which("uv")


def _run(command: list[str], env: dict[str, str], cancelled: threading.Event) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=env, stdin=subprocess.DEVNULL, stdout=pipe, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        said = None
        while said is None:
            try:
                said, _ = process.communicate(timeout=_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if cancelled.is_set():
                    process.kill()
                    raise EnvironmentFailedError("another change came before it was built") from None
    if process.returncode:
        what = " ".join(command[:3])
        raise EnvironmentFailedError(f"{what} ... failed ({process.returncode}): {said.strip()[-2000:]}")
