"""A job: ``fail`` as its argument ends it with an error, ``wait`` never ends; otherwise it prints its input."""

from __future__ import annotations

import os
import sys
import time

print("conformance:", *sys.argv[1:], os.environ.get("CONFORMANCE", ""), flush=True)
if sys.argv[1:] == ["fail"]:
    sys.exit("conformance: this job fails")
while sys.argv[1:] == ["wait"]:
    time.sleep(1)
