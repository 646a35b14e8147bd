"""HTTP as bytes: requests and responses of the fault proxy, and the responses that it makes up."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

REASON = "of the fault matrix"


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it arrived."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")

    def with_headers(self, **changed: str) -> Request:
        """Return it with other headers; names with underscores."""
        names = {name.replace("_", "-"): value for name, value in changed.items()}
        kept = tuple(pair for pair in self.headers if pair[0].lower() not in names)
        return replace(self, headers=(*kept, *names.items()))

    def encoded(self) -> bytes:
        lines = [f"{self.method} {self.target} HTTP/1.1", *(f"{key}: {value}" for key, value in self.headers)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response; its body without a transfer encoding."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    @property
    def document(self) -> Any:
        """The JSON of its body; None for anything else."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def with_body(self, body: bytes) -> Response:
        return replace(self, body=body)

    def encoded(self) -> bytes:
        left_out = ("connection", "content-length", "transfer-encoding")
        kept = [(key, value) for key, value in self.headers if key.lower() not in left_out]
        if self.status != 204:
            kept.append(("content-length", str(len(self.body))))
        lines = [f"HTTP/1.1 {self.status} {REASON}", *(f"{key}: {value}" for key, value in kept)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + (b"" if self.status == 204 else self.body)


def parsed_request(head: bytes, body: bytes) -> Request:
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = first.split(" ", 2)
    return Request(method, target, _headers(lines), body)


def parsed_response(raw: bytes) -> Response:
    """Parse a response that was read to the end of its connection."""
    head, separator, body = raw.partition(b"\r\n\r\n")
    if not separator:
        raise ConnectionError("the server ended the connection")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = _headers(lines)
    names = {key.lower(): value for key, value in headers}
    if names.get("transfer-encoding", "").lower() == "chunked":
        body = b"".join(_chunks(body))
    elif len(body) < int(names.get("content-length", 0)):
        raise ConnectionError("the server ended its answer in the middle")
    return Response(int(first.split(" ", 2)[1]), headers, body)


def _headers(lines: Iterable[str]) -> tuple[tuple[str, str], ...]:
    pairs = (line.partition(":") for line in lines)
    return tuple((key, value.strip()) for key, _, value in pairs)


def _chunks(body: bytes) -> Iterable[bytes]:
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return
        yield body[:length]
        body = body[length + 2 :]


# --- Responses that are made up

Answer = "Callable[[Request], Response]"


def as_json(status: int, value: Any, *headers: tuple[str, str]) -> Response:
    return Response(status, (("content-type", "application/json"), *headers), json.dumps(value).encode())


def as_page(request: Request, status: int, title: str, *headers: tuple[str, str]) -> Response:
    """Return a page of a proxy in between, which shows the headers of the request, the key with them."""
    shown = "".join(f"<li>{key}: {value}</li>" for key, value in request.headers)
    page = f"<html><head><title>{title}</title></head><body><h1>{title}</h1><ul>{shown}</ul></body></html>"
    return Response(status, (("content-type", "text/html"), *headers), page.encode())


def refusal(request: Request, status: int, code: int, text: str = "") -> Response:
    """Return a refusal as Hopsworks' own; its text repeats the key, as a careless server might."""
    said = f"{text or 'Not now'} ({request.header('authorization')})"
    return as_json(status, {"errorCode": code, "errorMsg": "A refusal.", "usrMsg": said})


def not_found_code(request: Request) -> tuple[int, int]:
    """Return the HTTP status and Hopsworks' code by which it says that the thing of this request does not exist."""
    path = request.target
    if "getProjectInfo" in path:
        return 404, 150004
    if "/jobs" in path:
        return 404, 130007 if re.search(r"/executions/\d", path) else 130009
    if "/models" in path and "/modelregistries" in path:
        return 404, 360000
    if "/dataset" in path:
        return 400, 110018
    if "/variables" in path:
        return 404, 100050
    return 404, 250000 if "/inference/" in path else 240000


def other_row(response: Response) -> Response | None:
    """Return the response about another thing; None if it is about none."""
    return _changed(response, _renamed)


def wrong_types(response: Response) -> Response | None:
    """Return the response with values of other types; None if it has none."""
    return _changed(response, lambda row: {key: _wrong(value) for key, value in row.items()})


def _changed(response: Response, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Response | None:
    value = response.document
    if not isinstance(value, dict) or not 200 <= response.status < 300:
        return None
    items = value.get("items")
    if isinstance(items, list) and items:
        return response.with_body(
            json.dumps(value | {"items": [change(row) if isinstance(row, dict) else row for row in items]}).encode()
        )
    changed = change(value)
    return None if changed == value else response.with_body(json.dumps(changed).encode())


def _renamed(row: dict[str, Any]) -> dict[str, Any]:
    changed = dict(row)
    for key in ("id", "projectId"):
        if isinstance(row.get(key), int):
            changed[key] = row[key] + 1000
    for key in ("name", "projectName"):
        if isinstance(row.get(key), str):
            changed[key] = f"other{row[key]}"
    if isinstance(row.get("id"), str):
        changed["id"] = f"other{row['id']}"
    return changed


def _wrong(value: Any) -> Any:
    match value:
        case bool() | None:
            return value
        case int() | float():
            return ["x"]
        case str():
            return {"text": 7}
        case list():
            return 7
        case _:
            return [value]


def write_certificate(folder: Path) -> tuple[Path, list[Path]]:
    """Make two authorities with a certificate of 127.0.0.1 each; return the first's bundle, and both chains."""
    import trustme

    chains = []
    bundle = folder / "ca.pem"
    for number in range(2):
        authority = trustme.CA()
        if number == 0:
            authority.cert_pem.write_to_path(str(bundle))
        chain = folder / f"chain{number}.pem"
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(chain))
        chains.append(chain)
    return bundle, chains
