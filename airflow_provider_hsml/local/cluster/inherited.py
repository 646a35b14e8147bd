"""
The environment variables that processes inherit: model servers, and the installers that build their environments.

Both run code of others, such as scripts and packages. They get neither Airflow's settings and connections, nor keys of
Hopsworks or of a cloud: only the variables named here.
"""

from __future__ import annotations

import os
import re

_SYSTEM = "PATH|HOME|LANG|LC_ALL|TZ|TMPDIR|LD_LIBRARY_PATH|SSL_CERT_FILE|SSL_CERT_DIR"
_INSTALLERS = (
    # The package index and the way to it.
    "UV_.+|PIP_.+|(HTTP|HTTPS|ALL|NO)_PROXY|(http|https|all|no)_proxy|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|NETRC"
    # Caches and settings of the user.
    "|XDG_.+|USER|LOGNAME"
    # Packages without a wheel are compiled.
    "|CC|CXX|AR|LD|CPPFLAGS|CFLAGS|CXXFLAGS|LDFLAGS|LIBRARY_PATH|CPATH|PKG_CONFIG_PATH|CMAKE_.+|CARGO_HOME|RUSTUP_HOME"
    "|SDKROOT|MACOSX_DEPLOYMENT_TARGET|DYLD_.+|NIX_.+"
)


def of_model_server() -> dict[str, str]:
    """Return the environment variables that a model server inherits, and the number of its threads."""
    # One thread for each model server: several of them share the cores of a laptop.
    return {**_named(_SYSTEM), "OMP_NUM_THREADS": "1"}


def of_installer() -> dict[str, str]:
    """Return the environment variables that uv, pip and the builds of packages inherit."""
    return _named(f"{_SYSTEM}|{_INSTALLERS}")


def _named(names: str) -> dict[str, str]:
    pattern = re.compile(names)
    return {name: value for name, value in os.environ.items() if pattern.fullmatch(name)}
