"""
The Python environments that model servers run in: built on demand, kept, one for each set of requirements.

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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

if TYPE_CHECKING:
    from collections.abc import Callable

KSERVE = "kserve==0.21.0"
_LOADED_FROM_PICKLES = ("scikit-learn", "joblib", "numpy", "scipy", "pandas")
_MARK = "complete"


class EnvironmentFailedError(Exception):
    """An environment could not be built; the message holds what the installer said last."""


@dataclass(frozen=True, slots=True)
class Environments:
    """
    The environments below one folder. Several servers, and several processes, may share it.

    :param folder: None: ``hsml-local/environments`` in the user's cache folder
    """

    folder: Path | None = None

    def python(self, requirements: tuple[str, ...], say: Callable[[str], None]) -> Path:
        """
        Give the interpreter of an environment, building it if it is not there.

        :param requirements: what is installed in it
        :param say: told, a line each, what is being done
        :raises EnvironmentFailedError: it could not be built
        """
        place = self._place(requirements)
        interpreter = place / "bin" / "python"
        if (place / _MARK).exists():
            return interpreter
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{place}.lock"):
            if not (place / _MARK).exists():
                shutil.rmtree(place, ignore_errors=True)
                _build(place, interpreter, requirements, say)
                (place / _MARK).write_text("\n".join(requirements) + "\n")  # Last: what is half built has none.
                say(f"The model server's environment is ready: {place}")
        return interpreter

    def is_built(self, requirements: tuple[str, ...]) -> bool:
        """Say whether an environment is there already."""
        return (self._place(requirements) / _MARK).exists()

    def _place(self, requirements: tuple[str, ...]) -> Path:
        made_of = "\n".join([*requirements, sys.version, platform.platform(), sys.base_prefix])
        return (self.folder or _cache()) / hashlib.sha256(made_of.encode()).hexdigest()[:16]


def default_requirements() -> tuple[str, ...]:
    """
    Give the requirements of the environment that deployments run in if they name no other.

    A pickle needs the packages it was made with: those that are installed beside us, where the models are trained, are
    installed there in the same version.
    """
    pinned = []
    for name in _LOADED_FROM_PICKLES:
        try:
            pinned.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            pinned.extend([name] if name == "scikit-learn" else [])
    return (KSERVE, *pinned)


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "hsml-local" / "environments"


def _build(place: Path, interpreter: Path, requirements: tuple[str, ...], say: Callable[[str], None]) -> None:
    say(f"Building the model server's environment ({', '.join(requirements)}): about a minute")
    # A start of the model server takes three times as long without .pyc files.
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH")}
    uv = _uv()
    if uv is not None:
        _run([uv, "venv", "--quiet", "--python", sys.executable, str(place)], env)
        install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(interpreter)]
    else:
        say("uv is not installed: building with venv and pip, which takes some minutes")
        _run([sys.executable, "-m", "venv", str(place)], env)
        install = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*install, *requirements], env)
    say("Checking the model server's environment")
    _run([str(interpreter), "-c", "import joblib, kserve, sklearn"], env)


def _uv() -> str | None:
    """Find uv: the one that is installed as a package, or else on the path."""
    try:
        from uv import find_uv_bin  # noqa: PLC0415 - the extra [local] brings it, but pip does as well

        return find_uv_bin()
    except (ImportError, FileNotFoundError):
        return shutil.which("uv")


def _run(command: list[str], env: dict[str, str]) -> None:
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise EnvironmentFailedError(f"{' '.join(command[:3])} ... failed ({done.returncode}): {said}")
