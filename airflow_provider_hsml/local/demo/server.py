"""The demo's own client of the local Model Serving, independent of the provider, and a prober."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_hsml.local.cluster.engines import VERSION_HEADER

from .nights import Candidate, DemoFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEPLOYMENT = MODEL = "digits"
_BETWEEN_PROBES = 0.1
_PROBE_SECONDS = 10.0


class Server:
    """
    A client of the local Model Serving, independent of the provider.

    :param ready: the addresses that the server printed once it was ready
    """

    def __init__(self, ready: Mapping[str, Any]) -> None:
        self.url: str = ready["url"]
        self.pid: int = ready["pid"]
        self.ca_bundle: str = ready["ca_bundle"]
        self.key_file: str = ready["api_key_file"]
        self._project: str = ready["project"]
        self._project_id: int = ready["project_id"]
        address = urlsplit(self.url)
        self._host, self._port = str(address.hostname), int(address.port or 443)
        self._tls = ssl.create_default_context(cafile=self.ca_bundle)

    @property
    def console(self) -> str:
        """The address of the project in the console."""
        return f"{self.url}/p/{self._project_id}"

    def connection(self) -> str:
        """Return the Airflow connection as JSON text, including the API key."""
        return json.dumps(
            {
                "conn_type": "hsml",
                "host": self._host,
                "port": self._port,
                "password": self._key(),
                "extra": {"project": self._project, "ca_bundle": self.ca_bundle},
            },
        )

    def path(self, below: str) -> str:
        """Return the whole path of a path below the project."""
        return f"/hopsworks-api/api/project/{self._project_id}/{below}"

    def send(self, method: str, below: str, body: Mapping[str, Any] | None = None) -> tuple[int, str | None, bytes]:
        """
        Send a request.

        :param below: the path below the project
        :param body: sent as JSON
        :return: the status, the model version of the process that answered, and the content
        """
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=_PROBE_SECONDS, context=self._tls)
        headers = {"authorization": f"ApiKey {self._key()}", "content-type": "application/json"}
        try:
            connection.request(method, self.path(below), None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.headers.get(VERSION_HEADER), answer.read()
        finally:
            connection.close()

    def read(self, below: str) -> Any:
        """
        Read JSON from a path below the project.

        :raises DemoFailedError: the server refuses
        """
        status, _, content = self.send("GET", below)
        if status != 200:
            raise DemoFailedError(f"the local Model Serving answers {status} to GET {below}: {content[:300]!r}")
        return json.loads(content)

    def candidates(self) -> list[Candidate]:
        """Return the versions of the model."""
        listed = self.read(f"modelregistries/{self._project_id}/models?filter_by=name_eq:{MODEL}&expand=metrics")
        return sorted(
            (
                Candidate(row["version"], row["description"].partition(",")[0], row["metrics"]["accuracy"])
                for row in listed.get("items", [])
            ),
            key=lambda candidate: candidate.version,
        )

    def deployments(self) -> list[int]:
        """Return the ids of all deployments."""
        return [row["id"] for row in self.read("serving")]

    def input_example(self, version: int) -> Any:
        """Read the input example of a version."""
        return self.read(f"dataset/download/with_auth/Models/{MODEL}/{version}/input_example.json")

    def is_as_recorded(self, version: int) -> bool:
        """Return whether the deployment's predictions equal those recorded when this version was registered."""
        recorded = self.read(f"dataset/download/with_auth/Models/{MODEL}/{version}/expected.json")
        _, answer = self._predict({"instances": recorded["instances"]})
        return bool(answer["predictions"] == recorded["predictions"])

    def answering_version(self, body: Mapping[str, Any]) -> int:
        """
        Request a prediction and return the model version of the process that answers.

        :param body: of the request
        :raises DemoFailedError: the request fails
        """
        return self._predict(body)[0]

    def _predict(self, body: Mapping[str, Any]) -> tuple[int, Any]:
        """Request a prediction and return the version of the process that answers, and the answer."""
        status, version, content = self.send("POST", f"inference/models/{DEPLOYMENT}:predict", body)
        if status != 200 or not version:
            raise DemoFailedError(f"the deployment answers {status} to a prediction: {content[:300]!r}")
        return int(version), json.loads(content)

    def _key(self) -> str:
        return Path(self.key_file).read_text().strip()


class Prober(threading.Thread):
    """
    A thread that keeps requesting predictions from the deployment.

    :param body: of the requests
    """

    def __init__(self, server: Server, body: Mapping[str, Any]) -> None:
        super().__init__(name="prober", daemon=True)
        self.answered: Counter[int] = Counter()
        self.failures: list[str] = []
        self._server = server
        self._body = body
        self._ended = threading.Event()

    def run(self) -> None:
        """Request predictions until ``end`` is called."""
        while not self._ended.wait(_BETWEEN_PROBES):
            try:
                self.answered[self._server.answering_version(self._body)] += 1
            except (DemoFailedError, OSError, http.client.HTTPException) as error:
                self.failures.append(f"{type(error).__name__}: {error}")

    def end(self) -> None:
        """End the thread and wait for it."""
        self._ended.set()
        if self.is_alive():
            self.join()

    def report(self, rejected: Sequence[int] = ()) -> str:
        """
        Return a summary of the requests.

        :param rejected: versions that were not to answer any
        """
        counts = sorted((dict.fromkeys(rejected, 0) | self.answered).items())
        versions = ", ".join(f"version {version}: {count}" for version, count in counts)
        sent = self.answered.total() + len(self.failures)
        return f"Prober, during nights 2 to 4: {sent} requests, {len(self.failures)} failed; answered by {versions}"
