"""The transformer script that the conformance run deploys in front of a predictor."""

from __future__ import annotations

from typing import Any


class Transformer:
    """Multiplies the inputs by ten, and marks the outputs as transformed."""

    def preprocess(self, inputs: dict[str, Any]) -> dict[str, Any]:
        print("conformance: transforming", flush=True)
        return {"instances": [[10 * value for value in row] for row in inputs["instances"]]}

    def postprocess(self, outputs: dict[str, Any]) -> dict[str, Any]:
        return {**outputs, "transformed": "yes"}
