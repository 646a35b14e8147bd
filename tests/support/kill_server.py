"""Run ``hsml-local serve`` with models that are functions: it starts fast enough to be killed a hundred times."""

from __future__ import annotations

import functools
import sys

from airflow_provider_hsml.local import LocalServing, cli
from airflow_provider_hsml.local.http import server

if __name__ == "__main__":
    server.LocalServing = functools.partial(  # type: ignore[misc, assignment]
        LocalServing, engine=lambda model: lambda rows: [model.version for _ in rows]
    )
    raise SystemExit(cli.main(["serve", "--no-tls", "--port", "0", "--root", *sys.argv[1:]]))
