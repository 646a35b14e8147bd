"""
Address and credentials of Hopsworks, read once from a connection or the environment and used by every client.

The host is parsed strictly and URLs are built from parts. No field of a connection can send the API key to another
host.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_hsml.hopsworks.errors import InvalidInputError
from airflow_provider_hsml.hopsworks.untrusted_text import hide

from . import arguments

if TYPE_CHECKING:
    from collections.abc import Mapping

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_PROJECT = re.compile(r"[A-Za-z0-9_]+")
_LAST_PORT = 65535
_SHORTEST_KEY = 12
"""Characters from which a key is looked for in other fields: a shorter one may be part of a name."""

EXTRA_KEYS = (
    "project",
    "ca_bundle",
    "verify",
    "inference_route",
    "ingress_url",
    "request_timeout",
    "write_timeout",
    "max_response_mb",
    "allow_http",
)
"""
The fields that are read from a connection's ``extra``. A test keeps them equal to the table
``provider_info.CONNECTION_FIELDS``, which describes them for Airflow's form.
"""
_OLD_PREFIX = "extra__hsml__"
"""The prefix of a form's fields in connections that an Airflow before 2.3 has stored."""
_SYNONYMS = {
    **dict.fromkeys(("ca", "ca_cert", "cafile", "ca_file"), "ca_bundle"),
    **dict.fromkeys(("insecure", "ssl_verify", "verify_ssl", "hostname_verification"), "verify"),
    **dict.fromkeys(("hopsworks_project", "project_name"), "project"),
    "timeout": "request_timeout",
}
"""Unknown extras -> those that were probably meant."""


@dataclass(frozen=True, slots=True)
class Access:
    """Everything that a client needs to connect. The key is left out of ``repr``."""

    url: str
    """``scheme://host:port``, without a path."""
    project: str
    key: str = field(repr=False)
    key_kind: str = "ApiKey"
    """The word before the key in the Authorization header: ``ApiKey`` or ``Bearer``."""
    key_path: str | None = None
    """A file to reread the key from after a 401: Hopsworks renews the tokens of its own jobs in such a file."""
    verify: bool | str = True
    """Whether to verify TLS; a string is the path of a PEM file to trust."""
    inference_route: str = "hopsworks"
    """``hopsworks``: predictions go through the REST API; ``istio``: they go straight to the ingress."""
    ingress_url: str | None = None
    """``scheme://host:port``; None for the ingress that the server names, if it is on the same host."""
    allow_http: bool = False
    """Whether the key may be sent over plain http to a host other than this machine."""
    request_timeout: float = 60.0
    """Seconds from the connection attempt to the last byte of the response."""
    write_timeout: float = 300.0
    """The same for a PUT or an upload. Older servers copy the model's files before they respond to a PUT."""
    max_response_mb: float = 64.0
    """The largest answer of a model that is accepted, in MB, after unpacking."""

    @classmethod
    def from_connection(
        cls,
        *,
        host: str | None,
        port: int | None,
        password: str | None,
        extra: Mapping[str, Any],
        project: str | None = None,
        schema: str | None = None,
        name: str = "connection",
    ) -> Access:
        """
        Read an Airflow connection's fields.

        :param host: host name, or ``https://host``; ``http://host`` for loopback or with the extra ``allow_http``
        :param port: 443 when None
        :param password: the API key
        :param extra: the keys of ``EXTRA_KEYS``; others are ignored, see ``misspelled_extras``
        :param project: overrides the extra of that name
        :param schema: ``http`` or ``https``, as a connection URI may give it
        :param name: the connection's name in messages
        :raises InvalidInputError: a field is wrong; the message says which, and what is expected, but does not repeat
            the value, which may be a key that was pasted into the wrong field
        """
        key = (password or "").strip()
        if not key:
            message = f"{name}: no API key.\nPut a Hopsworks API key into the field 'password'."
            raise InvalidInputError(message)
        hide(key)
        extra = {**{one.removeprefix(_OLD_PREFIX): value for one, value in extra.items()}, **extra}
        given = {key: value for key in EXTRA_KEYS if (value := _field(extra.get(key))) not in (None, "")}
        fields = {"field 'host'": host, **{f"extra {one!r}": given[one] for one in given}}
        _check_key_is_alone(name, key, fields, "the field 'password'")
        allow_http = arguments.boolean(f"{name}, extra 'allow_http'", given.get("allow_http", False))
        ingress = given.get("ingress_url")
        route = given.get("inference_route", "hopsworks")
        own_port = _port(f"{name}, field 'port'", port)
        return cls(
            url=_base_url(f"{name}, field 'host'", host, port=own_port, scheme=schema, allow_http=allow_http),
            project=_project(project, f"{name}, extra 'project'", given.get("project")),
            key=key,
            verify=_verify(name, given),
            inference_route=arguments.choice(f"{name}, extra 'inference_route'", route, ("hopsworks", "istio")),
            ingress_url=ingress and _base_url(f"{name}, extra 'ingress_url'", ingress, allow_http=allow_http),
            allow_http=allow_http,
            request_timeout=arguments.seconds(
                f"{name}, extra 'request_timeout'", given.get("request_timeout", 60), least=1
            ),
            write_timeout=arguments.seconds(f"{name}, extra 'write_timeout'", given.get("write_timeout", 300), least=1),
            max_response_mb=arguments.number(
                f"{name}, extra 'max_response_mb'", given.get("max_response_mb", 64), least=1
            ),
        )

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] = os.environ, *, project: str | None = None
    ) -> Access | None:
        """
        Read all access settings from environment variables: those of Hopsworks' own jobs, or those of its SDK.

        :param environment: ``HOPSWORKS_HOST`` (or ``REST_ENDPOINT``), ``HOPSWORKS_PORT``, ``HOPSWORKS_PROJECT`` (or
            ``HOPSWORKS_PROJECT_NAME``), ``HOPSWORKS_API_KEY`` (else a file below ``SECRETS_DIR``),
            ``HOPSWORKS_TRUST_STORE_PATH`` (or ``DOMAIN_CA_TRUSTSTORE_PEM``)
        :param project: overrides the project of the environment
        :return: None when the environment names no host
        :raises InvalidInputError: the environment names a host, and another variable is missing or wrong
        """
        host, inside = environment.get("HOPSWORKS_HOST"), environment.get("REST_ENDPOINT")
        if not (host or inside):
            return None
        name = "environment"
        kind, key, path = _environment_key(environment)
        names = [one for one in environment if one.startswith("HOPSWORKS_") and one != "HOPSWORKS_API_KEY"]
        fields = {one: environment[one] for one in (*names, "REST_ENDPOINT") if one in environment}
        _check_key_is_alone(name, key, fields, "HOPSWORKS_API_KEY")
        port = environment.get("HOPSWORKS_PORT") if host else None
        return cls(
            url=_base_url(
                f"{name}, {'HOPSWORKS_HOST' if host else 'REST_ENDPOINT'}",
                host or inside,
                port=_port(f"{name}, HOPSWORKS_PORT", port or None),
            ),
            project=_project(
                project,
                f"{name}, HOPSWORKS_PROJECT",
                _field(environment.get("HOPSWORKS_PROJECT") or environment.get("HOPSWORKS_PROJECT_NAME") or None),
            ),
            key=key,
            key_kind=kind,
            key_path=path,
            verify=environment.get("HOPSWORKS_TRUST_STORE_PATH") or environment.get("DOMAIN_CA_TRUSTSTORE_PEM") or True,
        )

    def ui_url(self, *parts: str | int) -> str:
        """
        Return the address of a page of the Hopsworks UI.

        :param parts: the segments of the path
        """
        return "/".join([self.url, "p", *map(str, parts)])

    def __str__(self) -> str:
        """Return URL and project, for messages; never the key."""
        return f"{self.url}, project {self.project!r}"


def misspelled_extras(extra: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each unknown key that is close to a known one. Their values are not repeated."""
    unknown = [key for key in extra if key.removeprefix(_OLD_PREFIX) not in EXTRA_KEYS]
    near = {key: _nearest(key.lower().removeprefix(_OLD_PREFIX)) for key in unknown}
    return [f"Extra {key!r} is unknown and ignored; did you mean {known!r}?" for key, known in near.items() if known]


def _nearest(key: str) -> str | None:
    """Return the known extra that an unknown one is probably for; None if there is none."""
    similar = difflib.get_close_matches(key, EXTRA_KEYS, n=1, cutoff=0.7)
    return _SYNONYMS.get(key) or next(iter(similar), None)


def _check_key_is_alone(name: str, key: str, fields: Mapping[str, object], place: str) -> None:
    """
    Refuse another field that holds the key, which would be sent to a name server, say. A host has no upper case.

    :param place: the only place of the key
    """
    for field_name, value in fields.items():
        if len(key) >= _SHORTEST_KEY and key.lower() in str(value).lower():
            message = f"{name}, {field_name}: it holds the API key.\nPut the key into {place} alone."
            raise InvalidInputError(message)


class _Field(str):
    """The text of a field, which no message repeats: it may be a key, pasted into the wrong field."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "another value"


def _field(value: Any) -> Any:
    """Strip whitespace: the connection form stores it, and stores an emptied field as an empty string."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return _Field(str(value).strip())


def _verify(name: str, given: Mapping[str, Any]) -> bool | str:
    """Read ``verify`` and ``ca_bundle``."""
    verify = arguments.boolean(f"{name}, extra 'verify'", given.get("verify", True))
    bundle = given.get("ca_bundle")
    if not verify or not bundle:
        return verify
    if not _is_file(Path(arguments.text(f"{name}, extra 'ca_bundle'", bundle))):
        arguments.refuse(f"{name}, extra 'ca_bundle'", "the path of a PEM file on this machine", bundle)
    return str(bundle)


def _is_file(path: Path) -> bool:
    """Whether a path is that of a file. A pasted certificate is too long for a path, say."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _environment_key(environment: Mapping[str, str]) -> tuple[str, str, str | None]:
    """Return the key's kind, the key, and the file it was read from."""
    if key := environment.get("HOPSWORKS_API_KEY"):
        return "ApiKey", _given_key("HOPSWORKS_API_KEY", key), None
    secrets = Path(environment.get("SECRETS_DIR") or "/nonexistent")
    for kind, name in (("ApiKey", "api.key"), ("Bearer", "token.jwt")):
        path = secrets / name
        try:
            if path.is_file():
                return kind, _given_key(f"the file {path}", path.read_text()), str(path)
        except (OSError, ValueError):
            message = f"environment: the key's file {path} cannot be read.\nCheck who may read it."
            raise InvalidInputError(message) from None
    message = (
        "environment: a Hopsworks host is named, but no API key.\nSet HOPSWORKS_API_KEY, or make an Airflow connection."
    )
    raise InvalidInputError(message)


def _given_key(place: str, key: str) -> str:
    """
    Return a key without blanks around it, and hide it in all texts from now on.

    :param place: its origin, for messages
    """
    key = key.strip()
    if not key:
        message = f"environment: {place} holds no API key.\nPut a Hopsworks API key there, or remove it."
        raise InvalidInputError(message)
    hide(key)
    return key


def _project(argument: object, what: str, value: object) -> str:
    """
    Read a project's name.

    :param argument: overrides ``value``, unless it is None
    :param what: the origin of ``value``, for messages
    """
    if argument is not None:
        what, value = "project", argument
    if not isinstance(value, str) or not _PROJECT.fullmatch(value):
        arguments.refuse(what, "the name of a Hopsworks project (letters, digits, underscores)", value)
    return str(value)


def _port(what: str, value: object) -> int | None:
    """Read a port; None if it was not set."""
    if value is None:
        return None
    port = arguments.integer(what, _field(value), least=1)
    if port > _LAST_PORT:
        arguments.refuse(what, f"a port, at most {_LAST_PORT}", _field(str(port)))
    return port


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _base_url(
    what: str, value: object, *, port: int | None = None, scheme: str | None = None, allow_http: bool = False
) -> str:
    """Return ``scheme://host:port`` from ``host``, ``host:port`` or ``scheme://host:port``."""
    expected = "a host name, as in 'c.app.hopsworks.ai' or 'https://hopsworks.example.com', without path, query or user"
    if not isinstance(value, str) or not value.strip():
        arguments.refuse(what, expected, value)
    given = value.strip().removesuffix("/")
    scheme = scheme if scheme in ("http", "https") else "https"
    try:
        parts = urlsplit(given if "://" in given else f"{scheme}://{given}")
        host, own_port = parts.hostname or "", parts.port
    except ValueError:
        parts, host, own_port = urlsplit(""), "", None
    plain = parts.netloc.rpartition("@")[2] == parts.netloc and not (parts.path or parts.query or parts.fragment)
    is_address = is_host(host) and own_port != 0
    if parts.scheme not in ("http", "https") or not plain or set("?#@\\") & set(given) or not is_address:
        # The value may hold a password, so the message does not repeat it.
        message = f"{what}: expected {expected}."
        raise InvalidInputError(message)
    if parts.scheme == "http" and not allow_http and not is_loopback(host):
        message = (
            f"{what}: plain http would send the API key readable over the network.\nUse https, or set the connection's "
            "extra 'allow_http' to true if that network is trusted."
        )
        raise InvalidInputError(message)
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}:{own_port or port or (443 if parts.scheme == 'https' else 80)}"


def is_host(host: str) -> bool:
    """Return whether a string is a host name or an IP address, as DNS and both HTTP libraries can take it."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        labels = host.split(".")
        is_name = bool(_HOST.fullmatch(host)) and len(host) <= 253 and not labels[-1].isdecimal()
        return is_name and all(1 <= len(label) <= 63 and _is_decodable(label) for label in labels)
    return True


def _is_decodable(label: str) -> bool:
    """Return whether a label of a host name is ASCII for something: one that begins with ``xn--`` may not be."""
    try:
        return bool(label.encode().decode("idna") if label.lower().startswith("xn--") else label)
    except UnicodeError:
        return False
