"""
Run all steps with one SDK, in that SDK's interpreter: ``python -m conformance.client hopsworks --local``.

Each step writes one line of JSON to standard output. The output of the SDK goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys

from conformance import jobs, registry, request_schemas, serving
from conformance.sdks import SDKS
from conformance.steps import STEPS, Session, run_all

STEPS_OF = (registry, jobs, request_schemas, serving)
"""The modules that define the steps, in order."""
_ORDER = [module.__name__ for module in STEPS_OF]
STEPS.sort(key=lambda each: _ORDER.index(each.run.__module__))  # Imports are in alphabetical order.


def main() -> None:
    """Run the steps with the SDK that the argument names."""
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    session = Session(SDKS[sys.argv[1]]())
    os.chdir(session.folder)  # Some calls download into the working folder.
    for result in run_all(session, is_local="--local" in sys.argv):
        print(f"--- {result}", flush=True)
        print(json.dumps(result), file=results, flush=True)


if __name__ == "__main__":
    main()
