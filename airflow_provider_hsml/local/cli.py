"""
The command ``hsml-local``: the local Model Serving in a terminal, for the laptop and for CI.

- ``hsml-local serve``: run it until Ctrl-C
- ``hsml-local prepare``: build the model server's environment ahead, so that the first start of a deployment is quick
- ``hsml-local demo``: what ``make demo`` runs
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

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .http.server import LocalServing

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
"""What the extra ``[local]`` installs and these commands import; uv can be done without."""


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run a command.

    :param argv: the arguments; None: those of the process
    :return: the exit code
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["demo"]:
        # Written beside this module; its arguments are its own.
        return int(importlib.import_module("airflow_provider_hsml.local.demo").main(arguments[1:]))
    given = _parser().parse_args(arguments)
    if missing := sorted(package for package, module in _NEEDED.items() if importlib.util.find_spec(module) is None):
        print(
            f"hsml-local needs {', '.join(missing)}: install them with "
            "pip install 'airflow-provider-hsml[local]' and try again.",
            file=sys.stderr,
        )
        return 1
    return _serve(given) if given.command == "serve" else _prepare(given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hsml-local", description="A local Model Serving for Airflow DAGs.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="run it until Ctrl-C")
    serve.add_argument("--port", type=int, default=8181, help="on 127.0.0.1; 0 for one that is free (default: 8181)")
    serve.add_argument("--ingress-port", type=int, default=0, help="the same for the ingress (default: 0)")
    serve.add_argument("--root", type=Path, default=Path("~/.hsml-local"), help="keeps everything (~/.hsml-local)")
    serve.add_argument("--project", default="demo", help="the project's name (default: demo)")
    serve.add_argument("--api-key", help=f"the key that opens it; without, {KEY_VARIABLE}, or one is made")
    serve.add_argument("--tls", action=argparse.BooleanOptionalAction, default=True, help="HTTPS with a CA of its own")
    serve.add_argument("--hopsworks-version", default="5.2", help="whose ways it has (default: 5.2)")
    serve.add_argument("--profile", choices=("real", "plain"), default="real", help="a cluster's ways, or none of them")
    serve.add_argument("--control", action="store_true", help="faults, speeds and journal over HTTP, below /_local")
    serve.add_argument("--cache", type=Path, help="where the model server's environments are built")
    prepare = commands.add_parser("prepare", help="build the model server's environment ahead")
    prepare.add_argument("--root", type=Path, default=Path("~/.hsml-local"), help="whose environments/ are built, too")
    prepare.add_argument("--cache", type=Path, help="where the model server's environments are built")
    commands.add_parser("demo", help="what make demo runs", add_help=False)
    return parser


def _serve(given: argparse.Namespace) -> int:
    # Not before it is known that what they need is installed.
    from .cluster.environments import Environments, default_requirements  # noqa: PLC0415
    from .http.server import LocalServing  # noqa: PLC0415
    from .options import ServerOptions  # noqa: PLC0415
    from .store import StoreTooNewError, StoreUnusableError  # noqa: PLC0415
    from .world.world import RootInUseError  # noqa: PLC0415

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr)
    # What fails is logged by the application; a connection that is kept open at the end is nobody's concern.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        serving = LocalServing(
            root=given.root,
            port=given.port,
            project=given.project,
            api_key=given.api_key or os.environ.get(KEY_VARIABLE) or None,
            tls=given.tls,
            hopsworks_version=given.hopsworks_version,
            profile=given.profile,
            options=ServerOptions(given.ingress_port, control=given.control, cache=given.cache),
        )
        serving.start()
    except (OSError, RootInUseError, StoreTooNewError, StoreUnusableError, ValueError) as error:
        print(f"hsml-local serve: {_reason(error, given.root)}", file=sys.stderr)
        return 2
    try:
        _say_ready(serving)
        if not Environments(given.cache).is_built(default_requirements()):
            print("The first start of a deployment takes a minute: hsml-local prepare does it ahead.", file=sys.stderr)
        ended.wait()
    finally:
        serving.stop()
    return 0


def _reason(error: Exception, root: Path) -> str:
    """Say what is wrong and what to do."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"{root} has no room on its disk: make some, or give another --root."
    if isinstance(error, OSError) and error.filename is None:
        return error.strerror or str(error)
    if isinstance(error, OSError):
        return f"{error.filename} cannot be used ({error.strerror}): give another --root."
    return str(error)


def _say_ready(serving: LocalServing) -> None:
    """Print where it is, for programs, and what to paste, for people. The key itself is never printed."""
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
    place = secrets.token_hex()  # Where the shell puts the key.
    before, after = (shlex.quote(part) for part in json.dumps(serving.connection_fields(place)).split(place))
    key = f'"$(cat {shlex.quote(str(serving.api_key_file))})"'
    print(f"export AIRFLOW_CONN_HSML_DEFAULT={before}{key}{after}", flush=True)


def _prepare(given: argparse.Namespace) -> int:
    from .cluster.environments import EnvironmentFailedError, Environments, NamedEnvironments  # noqa: PLC0415

    begin = time.monotonic()
    environments = NamedEnvironments(Environments(given.cache), given.root.expanduser() / "environments")
    try:
        built = environments.build_all(lambda line: print(line, flush=True))
    except (EnvironmentFailedError, OSError) as error:
        print(f"hsml-local prepare: {error}", file=sys.stderr)
        return 1
    print(f"Ready after {time.monotonic() - begin:.0f} s: {', '.join(str(python) for python in built)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
