"""
A local Model Serving: Hopsworks' Model Registry and Model Serving on a laptop or in CI, where the models really run.

For DAG authors without a Hopsworks cluster, and for tests: it speaks Hopsworks' REST API on a loopback port, keeps
what it is told below one folder, and runs each deployment's model in KServe's own model server (or as a Python
callable, in this process). The map:

- ``server``: ``LocalServing``, which starts and ends it; ``cli``: the same as the command ``hsml-local``
- ``app``: HTTP, ``api``: its handlers by subject; ``inference``: the proxy for predictions
- ``ingress``: the second listener, Istio in front of the instances
- ``tls``, ``journal``: the certificate, what was asked
- ``world``: what there is, without HTTP: ``accounts``, ``files``, ``registry``, ``deployments``, kept in ``store``
- ``deployments``: ``configuration`` and ``checks`` of a PUT, ``wire`` of a GET, ``wanted`` of the cluster, ``locks``
- ``lines``: what differs from one Hopsworks to another; ``administration``: what its administrators have set
- ``cluster``: what runs, as Kubernetes would: ``rollouts``, ``states``; ``behaviour``: how fast, how honest
- ``engines``, ``kserve_engine``, ``environments``, ``model_server``: how a model is run; ``hops``: how it is asked
- ``faults``, ``fault_middleware``, ``changes``: what goes wrong, and how fast, on command; ``control``: over HTTP
- ``errors``, ``limits``, ``disk``, ``shapes``: the refusals, with Hopsworks' codes
- ``files``: those of a project; ``uploads``: parts of what is to be one

It knows nothing of the provider in this distribution: a wrong path would be wrong on both sides, and all green.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .cluster.behaviour import Looks, Profile, Speeds
    from .cluster.engines import ModelFiles
    from .cluster.faults import Hold, LostChange, RequestFault, StartFault
    from .http.server import LocalServing
    from .options import AccessOptions, ServerOptions
    from .world.administration import Administration, Quota

_HOMES = {
    "AccessOptions": "options",
    "Administration": "world.administration",
    "Hold": "cluster.faults",
    "LocalServing": "http.server",
    "Looks": "cluster.behaviour",
    "LostChange": "cluster.faults",
    "ModelFiles": "cluster.engines",
    "Profile": "cluster.behaviour",
    "Quota": "world.administration",
    "RequestFault": "cluster.faults",
    "ServerOptions": "options",
    "Speeds": "cluster.behaviour",
    "StartFault": "cluster.faults",
}

__all__ = [
    "AccessOptions",
    "Administration",
    "Hold",
    "LocalServing",
    "Looks",
    "LostChange",
    "ModelFiles",
    "Profile",
    "Quota",
    "RequestFault",
    "ServerOptions",
    "Speeds",
    "StartFault",
]


def __getattr__(name: str) -> object:
    """Import the module that holds ``name`` when it is first asked for: importing this package costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
