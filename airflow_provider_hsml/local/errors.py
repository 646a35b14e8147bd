"""
The one exception for refused requests, ``Refusal``, and Hopsworks' error codes with their HTTP statuses.

The world raises it; only ``app`` turns it into an HTTP response.
"""

from __future__ import annotations

from typing import Any

CODES: dict[int, tuple[int, str]] = {
    # Project-independent
    100050: (404, "Variable requested was not found."),
    120000: (500, "A generic error occurred."),
    120001: (422, "An argument was not provided or it was malformed."),
    120004: (400, "Web application exception occurred"),
    120012: (400, "Feature flag not enabled."),
    # Files
    110011: (400, "Dataset not found."),
    110012: (400, "Destination already exists."),
    110018: (400, "Path not found."),
    110026: (400, "Dataset name is not valid."),
    110047: (400, "Sub-directory with the same name already exists."),
    110050: (403, "No permission for this dataset."),
    110055: (500, "Not enough disk space."),
    # Jobs
    130000: (400, "An error occurred while trying to start this job."),
    130001: (400, "An error occurred while trying to stop this job."),
    130002: (400, "Unsupported job type."),
    130006: (400, "Job name is invalid."),
    130007: (404, "Execution not found."),
    130009: (404, "Job not found."),
    130010: (400, "Execution state is invalid."),
    # Project, user, key
    150004: (404, "Project not found."),
    150029: (412, "This project is out of credits."),
    150068: (403, "The role in the project does not allow this."),
    160000: (403, "No valid role found for this user in the project."),
    200003: (401, "Client not authorized for this invocation."),
    200014: (403, "Access to this resource is for administrators only."),
    320004: (403, "API key has not the required scope."),
    320012: (401, "Invalid API key"),
    320013: (401, "Api key not found in the database."),
    # Kafka
    190015: (400, "Kafka topic: the number of replicas or partitions is not valid."),
    # Model Serving
    240000: (404, "Serving instance not found."),
    240001: (500, "Serving instance could not be deleted."),
    240002: (500, "Serving instance could not be updated."),
    240003: (400, "Serving instance could not be started or stopped."),
    240004: (500, "Serving instance could not be started or stopped. Instance is busy."),
    240006: (400, "Model path not found."),
    240007: (400, "Serving instance command not recognized."),
    240011: (400, "An entry with the same name already exists in this project."),
    240013: (400, "The model server of a serving instance cannot be updated."),
    240015: (400, "KServe is not enabled."),
    240016: (400, "Script not found."),
    240017: (400, "The structure of the model files is not valid."),
    240018: (400, "Model artifact not valid."),
    240019: (400, "Operation on the model artifact not allowed."),
    240020: (400, "Predictor not supported."),
    240021: (400, "Transformer not supported."),
    240022: (400, "Kafka topic not found."),
    240023: (400, "Kafka topic not valid."),
    240024: (400, "Fine-grained inference logging not supported."),
    240025: (400, "Request batching not supported."),
    240026: (400, "Serving instance could not be created."),
    240027: (404, "Server logs not available."),
    240028: (409, "The version of the serving instance is no longer the active one."),
    240037: (404, "Deployment schema not found."),
    # Inference
    250000: (404, "Serving instance not found."),
    250001: (400, "Serving instance is not running."),
    250002: (500, "Error during the request to the serving instance."),
    250004: (400, "Bad inference request."),
    250005: (400, "Verb is missing in the inference request."),
    250007: (500, "Serving instance internal error."),
    250008: (400, "Serving instance bad request."),
    250009: (400, "Authentication type is not supported by the serving instance."),
    250010: (401, "Unauthorized by the serving instance."),
    250011: (403, "Forbidden by the serving instance."),
    # Feature store
    270008: (400, "Feature store not found."),
    270012: (404, "Training dataset not found."),
    270181: (404, "Feature view not found."),
    # Model registry
    360000: (404, "Model not found."),
    360002: (400, "Metric is not a number."),
    360006: (400, "The model registry id was not found."),
    360007: (403, "The model registry is not shared with this project."),
    360009: (400, "The model is used by a deployment and cannot be deleted."),
    # Tags
    370000: (404, "No schema found for this tag."),
    370002: (404, "Tag not found."),
    370004: (400, "Tag name not valid."),
    370005: (400, "Tag value not valid."),
}
"""The Hopsworks error codes in use here: their HTTP status and Hopsworks' message."""


class Refusal(Exception):
    """
    The request is refused, with one of Hopsworks' error codes.

    :param code: Hopsworks' error code, one of ``CODES``
    :param text: the message for the user, sent as ``usrMsg``; left out when empty
    """

    def __init__(self, code: int, text: str = "") -> None:
        self.code = code
        self.status, self.message = CODES[code]
        self.text = text
        super().__init__(f"{code}: {text or self.message}")

    def body(self) -> dict[str, Any]:
        """Return the JSON body of the response. Fields without a value are left out, as in Hopsworks."""
        return {"errorCode": self.code, "errorMsg": self.message} | ({"usrMsg": self.text} if self.text else {})


def malformed(text: str) -> Refusal:
    """Build the refusal of a malformed argument: 422/120001."""
    return Refusal(120001, text)
