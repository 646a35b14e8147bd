"""
A local Model Serving: Hopsworks' Model Registry and Model Serving on a laptop or in CI, where the models really run.

For DAG authors without a Hopsworks cluster, and for tests. It speaks Hopsworks' REST API on a loopback port, keeps its
state below one folder, and runs each deployment's model in KServe's own model server, or as a Python callable in this
process. The rooms, each with the modules to begin with:

- ``http/``: the server. ``server`` has ``LocalServing``, ``listeners`` the two ports, ``app`` the routes; ``journal``
  records requests, ``fault_middleware`` spoils them, ``control`` is the same over HTTP, ``tls`` the certificate
- ``api/``: the handlers of the REST API by subject, with ``asking`` for one request
- ``console/``: the pages for people
- ``proxy/``: predictions. ``inference`` is Hopsworks' proxy, ``ingress`` is Istio with a listener of its own
- ``world/``: the state, without HTTP. ``world`` joins ``accounts``, ``files``, ``registry`` and ``deployments``. For
  deployments: ``stored_deployments`` keeps them, ``deployment_changes`` is PUT and rollback (with ``configuration``,
  ``checks``, ``artifacts``, ``kafka``), ``lifecycle`` is START, STOP and DELETE, ``wire`` is the answer of GET,
  ``wanted`` the desired state for the cluster, ``locks`` the lock of a change. ``administration`` has the settings of
  administrators, ``feature_store`` the views that a test declares
- ``cluster/``: the running instances, as in Kubernetes; its docstring has a table of the modules of a change.
  ``cluster`` has the commands, ``change_runner`` runs each in a thread (``changes``), ``rollout_controller`` replaces
  instances (``rollouts``), ``watch`` finds crashed and idle ones, ``traffic`` leads requests to instances, ``slots``
  answers reads (``states``). ``behaviour`` has speeds and profiles,
  ``faults`` the failures on command. ``engines`` and ``kserve_engine`` run models, in ``environments``, with the
  program ``model_server``; ``hops`` sends requests to it
- ``demo/``: the program behind ``make demo``
- ``cli`` is the command ``hsml-local``, ``options`` the grouped options of ``LocalServing``, ``store`` the SQLite file,
  ``lines`` the Hopsworks release lines (3.7, 4.6, 5.2) and their differences, ``errors`` the refusals with Hopsworks'
  codes, ``limits`` the bounds of requests

This package imports nothing of the provider in this distribution: a wrong path in both would pass every test.
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
    from .world.feature_store import FeatureView

_HOMES = {
    "AccessOptions": "options",
    "Administration": "world.administration",
    "FeatureView": "world.feature_store",
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
    "FeatureView",
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
    """Import the module of a public name at its first use: importing this package costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
