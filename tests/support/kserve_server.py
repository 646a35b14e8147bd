"""Run a local Model Serving of its own, with KServe's model server and a cluster's ways, in less time than one."""

from __future__ import annotations

import sys

from airflow_provider_hsml.local import LocalServing, ServerOptions, Speeds

if __name__ == "__main__":
    speeds = Speeds(0.05, 0.1, 0.5, 0.1, 0.1, routing=0.1, handing_over=0.5)
    with LocalServing(root=sys.argv[1], speeds=speeds, options=ServerOptions(control=True)) as serving:
        print(serving.url, serving.connection, sep="\n", flush=True)
        sys.stdin.read()  # Until who started it closes it, or is no more.
