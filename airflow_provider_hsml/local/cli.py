"""
The command ``hsml-local``: the local Model Serving in a terminal, for the laptop and for CI.

- ``hsml-local serve``: run the server until Ctrl-C
- ``hsml-local prepare``: build the model server's environment in advance, so that the first deployment starts quickly
- ``hsml-local demo``: play four nights of an example DAG, in a checkout of the project; ``make demo`` calls it
"""

from __future__ import annotations

import argparse
import errno
import importlib
import importlib.util
import json
import logging
import os
import secrets
import shlex
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .logs import escaped
from .options import DEFAULT_PROJECT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .http.server import LocalServing
    from .world.feature_store import FeatureView

KEY_VARIABLE = "HSML_LOCAL_API_KEY"
_NEEDED = {
    "filelock": "filelock",
    "httptools": "httptools",
    "jinja2": "jinja2",
    "packaging": "packaging",
    "jsonschema": "jsonschema",
    "python-multipart": "python_multipart",
    "starlette": "starlette",
    "trustme": "trustme",
    "uvicorn": "uvicorn",
}
"""The packages of the extra ``[local]`` that these commands import, with their modules; uv is optional."""


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run a command.

    :param argv: the arguments; None for those of the process
    :return: the exit code
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["demo"]:
        # The demo parses its own arguments.
        return int(importlib.import_module("airflow_provider_hsml.local.demo").main(arguments[1:]))
    options = _parser().parse_args(arguments)
    if missing := sorted(package for package, module in _NEEDED.items() if importlib.util.find_spec(module) is None):
        print(
            f"hsml-local needs {', '.join(missing)}: install them with "
            "pip install 'airflow-provider-hsml[local]' and try again.",
            file=sys.stderr,
        )
        return 1
    return _serve(options) if options.command == "serve" else _prepare(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hsml-local", description="A local Model Serving for Airflow DAGs.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="run the server until Ctrl-C")
    serve.add_argument("--port", type=int, default=8181, help="on 127.0.0.1; 0 for any free port (default: 8181)")
    serve.add_argument(
        "--ingress-port", type=int, default=0, help="the port of the ingress (default: 0, any free port)"
    )
    serve.add_argument("--root", type=Path, default=Path("~/.hsml-local"), help="the data folder (~/.hsml-local)")
    serve.add_argument("--project", default=DEFAULT_PROJECT, help=f"the project's name (default: {DEFAULT_PROJECT})")
    serve.add_argument("--api-key", help=f"the API key (default: {KEY_VARIABLE}, or a key created for the root)")
    serve.add_argument("--tls", action=argparse.BooleanOptionalAction, default=True, help="HTTPS with a CA of its own")
    serve.add_argument("--hopsworks-version", default="5.2", help="the Hopsworks version to emulate (default: 5.2)")
    serve.add_argument(
        "--profile", choices=("real", "plain"), default="real", help="with a cluster's quirks and delays, or without"
    )
    serve.add_argument("--control", action="store_true", help="faults, speeds and journal over HTTP, below /_local")
    serve.add_argument("--cache", type=Path, help="where the model server's environments are built")
    serve.add_argument("--feature-views", type=Path, help="a JSON file with a list of feature views to declare")
    prepare = commands.add_parser("prepare", help="build the model server's environment in advance")
    prepare.add_argument("--root", type=Path, default=Path("~/.hsml-local"), help="its environments/ are built, too")
    prepare.add_argument("--cache", type=Path, help="where the model server's environments are built")
    commands.add_parser("demo", help="play four nights of an example DAG (in a checkout)", add_help=False)
    return parser


def _serve(options: argparse.Namespace) -> int:
    # Imported only after the check that their requirements are installed.
    from .cluster.environments import Environments, default_requirements  # noqa: PLC0415
    from .http.server import LocalServing  # noqa: PLC0415
    from .options import ServerOptions  # noqa: PLC0415
    from .store import StoreTooNewError, StoreUnusableError  # noqa: PLC0415
    from .world.world import RootInUseError  # noqa: PLC0415

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr)
    # The application logs failures itself; uvicorn would only complain about connections still open at the end.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        serving = LocalServing(
            root=options.root,
            port=options.port,
            project=options.project,
            api_key=os.environ.get(KEY_VARIABLE) or None if options.api_key is None else options.api_key,
            tls=options.tls,
            hopsworks_version=options.hopsworks_version,
            profile=options.profile,
            options=ServerOptions(
                options.ingress_port, control=options.control, cache=options.cache, keep_bodies=options.control
            ),
        )
        views = _feature_views(options.feature_views)
        serving.start()
    except (OSError, RootInUseError, StoreTooNewError, StoreUnusableError, ValueError) as error:
        print(f"hsml-local serve: {escaped(_reason(error, options.root))}", file=sys.stderr)
        return 2
    try:
        for view in views:
            serving.world.declare(view)
        _say_ready(serving)
        if not Environments(options.cache).is_built(default_requirements()):
            print(
                "The first start of a deployment takes a minute, to build the model server's environment: "
                "run hsml-local prepare to build it in advance.",
                file=sys.stderr,
            )
        ended.wait()
    finally:
        serving.stop()
    return 0


def _feature_views(file: Path | None) -> list[FeatureView]:
    """
    Read the feature views of a JSON file.

    :raises ValueError: it is no list of them
    """
    from .world.feature_store import FeatureView  # noqa: PLC0415 - as in _serve

    try:
        return [] if file is None else [FeatureView(**row) for row in json.loads(file.read_bytes())]
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(f"--feature-views {file}: expected a JSON list of feature views ({error}).") from None


def _reason(error: Exception, root: Path) -> str:
    """Return the cause of the error, and how to fix it."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk of {root} is full: free some space, or give another --root."
    if isinstance(error, OSError) and error.filename is None:
        return error.strerror or str(error)
    if isinstance(error, OSError):
        return f"{error.filename} cannot be used ({error.strerror}): give another --root."
    return str(error)


def _say_ready(serving: LocalServing) -> None:
    """Print the addresses for programs, and an export line for people to paste. The key itself is never printed."""
    ready = {
        "url": serving.url,
        "ingress_url": serving.ingress_url,
        "project": serving.project,
        "project_id": serving.project_id,
        "ca_bundle": str(serving.ca_bundle) if serving.ca_bundle else None,
        "api_key_file": str(serving.api_key_file),
        "root": str(serving.root),
        "pid": os.getpid(),
    }
    print(json.dumps(ready), flush=True)
    placeholder = secrets.token_hex()  # The shell inserts the key in its place.
    fields = json.dumps(serving.connection_fields(placeholder))
    before, after = (shlex.quote(part) for part in fields.split(placeholder))
    key = f'"$(cat {shlex.quote(str(serving.api_key_file))})"'
    print(f"export AIRFLOW_CONN_HSML_DEFAULT={before}{key}{after}", flush=True)


def _prepare(options: argparse.Namespace) -> int:
    from .cluster.environments import EnvironmentFailedError, Environments, NamedEnvironments  # noqa: PLC0415

    begin = time.monotonic()
    environments = NamedEnvironments(Environments(options.cache), options.root.expanduser() / "environments")
    try:
        built = environments.build_all(lambda line: print(line, flush=True))
    except (EnvironmentFailedError, OSError) as error:
        print(f"hsml-local prepare: {error}", file=sys.stderr)
        return 1
    print(f"Ready after {time.monotonic() - begin:.0f} s: {', '.join(str(python) for python in built)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
