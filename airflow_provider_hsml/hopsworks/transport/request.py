"""
The shared part of both clients: the request to send, the retries, and the translation of failures into errors.

The environment's proxies and CA are read here, so that they mean the same in a worker and in the triggerer.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import socket
import ssl
import time
from dataclasses import replace
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import tenacity

from airflow_provider_hsml.hopsworks.api import LIMITS, MB, ResponseKind
from airflow_provider_hsml.hopsworks.domain.access import is_host, is_loopback
from airflow_provider_hsml.hopsworks.errors import (
    CertificateError,
    HopsworksError,
    InvalidInputError,
    NoResponseError,
    UnexpectedResponseError,
)
from airflow_provider_hsml.hopsworks.untrusted_text import hide

from .body import ENCODING, Body

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.api import Call
    from airflow_provider_hsml.hopsworks.domain.access import Access

T = TypeVar("T")

ATTEMPTS = 4
"""Attempts per call before its error is raised. Flows that wait for longer retry themselves."""
_LONGEST_PAUSE = 30.0
_WORTH_AN_ATTEMPT = 1.0
"""Seconds that a repeated attempt has at least: with less, a timeout would say nothing about the server."""
_SHORTEST_TIMEOUT = 0.1
"""Seconds that an attempt has at least: no timeout at all means to wait for ever, to one of the HTTP libraries."""
_OLD_TLS = ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "NO_PROTOCOLS_AVAILABLE", "WRONG_SSL_VERSION")
_LONGEST_PATH = 255
_TUNNEL = re.compile(r"(?:Tunnel connection failed: |^)([2-5]\d\d)\b")
"""The status with which a proxy refuses to connect, in the texts of the HTTP libraries."""
_PASSWORD = re.compile(r"//[^/@\s]*@")


class HttpRequest:
    """
    One HTTP request of a call, and the errors for its failures.

    :param access: the connection; the call may override the address
    :param key: the current API key or token
    :raises InvalidInputError: the key is malformed, or the body cannot be sent
    """

    def __init__(self, access: Access, call: Call[Any], key: str) -> None:
        self._call = call
        self.method = call.method
        self.base = call.base or access.url
        self.url = f"{self.base}/{call.path}" + (f"?{urlencode(call.query)}" if call.query else "")
        if not (key.isascii() and key.isprintable() and " " not in key):
            # Otherwise the HTTP library would raise an error that shows the key.
            raise InvalidInputError(
                "The API key has characters that no key has, such as a space or a line break.\nPut the key alone into "
                "the connection's field 'password'."
            )
        hide(key)  # A server may echo the request's headers.
        self.headers = {"Authorization": f"{access.key_kind} {key}", "Accept-Encoding": ENCODING}
        if call.host:
            self.headers["Host"] = call.host
        if call.request_id:
            self.headers["x-request-id"] = call.request_id
        self.content: bytes | None = None
        if call.body is not None:
            self.headers["Content-Type"] = "application/json"
            self.content = call.body if isinstance(call.body, bytes) else _json(call.body)
        elif call.text is not None:
            self.headers["Content-Type"] = "text/plain; charset=utf-8"
            self.content = call.text.encode()
        self.fields = dict(call.upload.fields) if call.upload else None
        self.files = {"file": (call.upload.filename, call.upload.content)} if call.upload else None
        self.seconds = call.seconds or (access.write_timeout if call.is_write_slow else access.request_timeout)
        """
        Timeout of the whole exchange, from the connection to the last byte of the response. For a file that is
        streamed to disk: of each ``PIECE`` of it.
        """
        if call.at_most is not None:
            self.seconds = min(self.seconds, max(call.at_most, _SHORTEST_TIMEOUT))
        self.connect_seconds = min(self.seconds, access.request_timeout)
        self._where = f"{call.what} at {self.base}"
        self._limit = (call.size or None) if call.into else None if call.last else LIMITS.get(call.kind)
        if call.kind is ResponseKind.PREDICTION:
            self._limit = int(access.max_response_mb * MB)

    def receive(self, status: int, headers: Mapping[str, str]) -> Body:
        """
        Prepare for the body of the response.

        :param headers: with lower-case names
        :raises UnexpectedResponseError: the body has an encoding that was not asked for
        """
        into, last = (self._call.into, self._call.last) if 200 <= status < 300 else (None, None)
        is_other = (into, last) != (self._call.into, self._call.last)
        limit = LIMITS[ResponseKind.RESOURCE] if is_other else self._limit
        is_large_prediction = self._call.kind is ResponseKind.PREDICTION and 200 <= status < 300
        if into:
            message = "is longer than listed.\nCheck whether the file was changed, or a proxy answers for Hopsworks."
        elif is_large_prediction:
            message = (
                "is beyond the limit of {} MB.\nSend fewer rows, or raise the connection's extra 'max_response_mb'."
            )
        else:
            message = "is beyond the limit of {} MB.\nCheck whether a proxy or another program answers for Hopsworks."
        message = f"{self._where}: the answer (HTTP {status}) {message.format(f'{(limit or 0) / MB:g}')}"

        def too_long() -> UnexpectedResponseError:
            error = UnexpectedResponseError(message, status=status)
            error.transient = not is_large_prediction
            return error

        encoding = headers.get("content-encoding", "")
        where = self._where
        return Body(where, encoding, status=status, limit=limit, too_long=too_long, path=into, last=last)

    def not_in_time(self, *, is_connected: bool) -> NoResponseError:
        """Build the error for an exchange that the deadline has ended."""
        return self.not_answered() if is_connected else self.not_connected()

    def not_connected(self) -> NoResponseError:
        """Build the error for a connection timeout."""
        message = (
            f"{self._where}: no connection within {round(self.connect_seconds, 1):g} s.\n"
            "Check the connection's host and port."
        )
        return NoResponseError(message, sent=False)

    def not_answered(self) -> NoResponseError:
        """Build the error for a response timeout."""
        return NoResponseError(f"{self._where}: no answer within {round(self.seconds, 1):g} s.")

    def not_sendable(self, error: Exception) -> InvalidInputError:
        """Build the error for a request that the HTTP library does not even try to send."""
        return InvalidInputError(
            f"{self._where}: cannot be sent ({_PASSWORD.sub('//***@', str(error))}).\n"
            "Check the proxies that the environment names."
        )

    def failed(self, error: BaseException, *, unreached: bool) -> NoResponseError:
        """
        Build the error for any other failure.

        :param unreached: whether there was no connection to the server yet, so that nothing was sent
        """
        cause = _cause(error)
        how = f" ({_text(cause)})" if cause else ""
        # A connection that ends in the TLS handshake says nothing about the certificate.
        ended = isinstance(cause, ConnectionResetError | ssl.SSLEOFError)
        if unreached and isinstance(cause, ssl.SSLError) and not ended:
            return self._not_trusted(cause, how)
        if unreached and (proxy := _proxy_of(self.base)) is not None:
            variable, address = proxy
            status = _TUNNEL.search(str(error))
            message = (
                f"{self._where}: the proxy {urlsplit(address).hostname!r} in the environment variable {variable} does "
                f"not connect to it{f' (HTTP {status[1]})' if status else how}.\nCheck that variable, or name the host "
                "in NO_PROXY."
            )
            return NoResponseError(message, sent=False)
        if unreached and not ended:
            message = f"{self._where}: nobody answers there.\nCheck the connection's host and port{how}."
            return NoResponseError(message, sent=False)
        fault = "is malformed" if isinstance(error, ValueError) else "was cut off"
        return NoResponseError(f"{self._where}: the answer {fault}{how}.", sent=not unreached)

    def _not_trusted(self, cause: ssl.SSLError, how: str) -> NoResponseError:
        """Build the error for a failed TLS handshake."""
        if cause.reason == "WRONG_VERSION_NUMBER":
            message = (
                f"{self._where}: the server there does not speak TLS.\nCheck the connection's port. If the server "
                "speaks plain http, begin the host with 'http://'."
            )
        elif cause.reason in _OLD_TLS:
            message = (
                f"{self._where}: the server offers no version of TLS that is secure, such as TLS 1.1 or older only"
                f"{how}.\nHave TLS 1.2 or later enabled on the server, or on the proxy in front of it."
            )
        elif isinstance(cause, ssl.SSLCertVerificationError):
            message = (
                f"{self._where}: the server's TLS certificate does not verify{how}.\nIf it is signed by a private CA, "
                "put the path of that CA's PEM file into the connection's extra 'ca_bundle'."
            )
        else:
            message = (
                f"{self._where}: the TLS handshake failed{how}.\nCheck the server's TLS: it may require a client "
                "certificate, which this provider does not have, or ciphers that this machine does not allow."
            )
            return NoResponseError(message, sent=False)
        return CertificateError(message)


def attempts(call: Call[Any], most: int | None = None) -> dict[str, Any]:
    """
    Return the retry policy of a call, as arguments for tenacity.

    :param most: maximum number of attempts; None for the default of tasks
    """

    def may_repeat(error: BaseException) -> bool:
        unsent = isinstance(error, NoResponseError) and not error.sent
        return isinstance(error, HopsworksError) and error.transient and (call.repeatable or unsent)

    def is_over(state: tenacity.RetryCallState) -> bool:
        if state.attempt_number >= (most or ATTEMPTS):
            return True
        error = state.outcome and state.outcome.exception()
        asked_for = (error.retry_after if isinstance(error, HopsworksError) else None) or 0.0
        begins = (state.seconds_since_start or 0.0) + max(asked_for, state.upcoming_sleep)
        return call.at_most is not None and begins + _WORTH_AN_ATTEMPT > call.at_most

    return {
        "stop": is_over,
        "retry": tenacity.retry_if_exception(may_repeat),
        "wait": pause_before_retry,
        "reraise": True,
    }


def without_causes(error: HopsworksError) -> HopsworksError:
    """
    Return an error without its causes and frames.

    The errors of the HTTP library quote the response, which may hold the key. Frames hold the whole response: waits
    keep the error of a read until the next one, and thousands of them must not keep thousands of responses.
    """
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


def within_time(call: Call[T], begun: float) -> Call[T]:
    """
    Return the call for one attempt, with the seconds that its caller still has.

    :param begun: when the first attempt began, by ``time.monotonic``
    """
    return call if call.at_most is None else replace(call, at_most=call.at_most - (time.monotonic() - begun))


def pause_before_retry(state: tenacity.RetryCallState) -> float:
    """
    Return the seconds until the next attempt: the server's Retry-After, else an exponential backoff with jitter.

    :param state: tenacity's account of the attempts so far
    """
    error = state.outcome and state.outcome.exception()
    if isinstance(error, HopsworksError) and error.retry_after is not None:
        return error.retry_after
    return tenacity.wait_random_exponential(multiplier=0.5, max=_LONGEST_PAUSE)(state)


def read_key(access: Access) -> str | None:
    """Reread the key if it comes from a file: Hopsworks renews the tokens of its own jobs there."""
    try:
        return Path(access.key_path).read_text().strip() or None if access.key_path else None
    except (OSError, ValueError):
        return None


def trusted(access: Access) -> bool | str:
    """
    Return the CA that verifies TLS: the connection's, else that of the environment, as everywhere in Python.

    :return: the path of a PEM file or of a folder; True for the public CAs, False for no verification
    """
    if access.verify is True:
        return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
    return access.verify


def context_of(trusted_path: str) -> ssl.SSLContext:
    """
    Build a TLS context that trusts only one CA.

    :param trusted_path: a PEM file, or a folder of them
    :raises InvalidInputError: the file cannot be read
    """
    try:
        folder = Path(trusted_path).is_dir()
        return ssl.create_default_context(
            cafile=None if folder else trusted_path, capath=trusted_path if folder else None
        )
    except (OSError, ValueError) as error:
        # A certificate or its private key may have been pasted in place of a path.
        named = f" {trusted_path!r}" if trusted_path.isprintable() and len(trusted_path) <= _LONGEST_PATH else ""
        how = _text(error) if isinstance(error, OSError) else type(error).__name__
        message = (
            f"The CA to verify TLS by{named} is not a PEM file that can be read ({how}).\nSet the path of a PEM "
            "file: in the connection's extra 'ca_bundle', or in the environment."
        )
        raise InvalidInputError(message) from None


def proxy_for(url: str) -> str | None:
    """
    Return the environment's proxy for a URL; None for this machine, or without a proxy.

    :param url: ``scheme://host:port``
    :raises InvalidInputError: the proxy's host or port cannot be one
    """
    proxy = _proxy_of(url)
    return proxy and proxy[1]


def _proxy_of(url: str) -> tuple[str, str] | None:
    """Return the proxy for a URL: the environment variable, and its address."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxies = getproxies()
    if is_loopback(host) or proxy_bypass(parts.netloc) or _in_network(host, proxies.get("no", "")):
        return None
    name = parts.scheme if proxies.get(parts.scheme) else "all"
    proxy = proxies.get(name)
    if not proxy:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    variable = f"{name}_proxy".upper()
    _check_proxy(variable, proxy)
    return variable, proxy


def _check_proxy(variable: str, proxy: str) -> None:
    """
    Check the address of a proxy: each HTTP library has other errors for a wrong one.

    :raises InvalidInputError: without the value, which may hold a password
    """
    try:
        parts = urlsplit(proxy)
        valid = is_host(parts.hostname or "") and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        message = (
            f"The proxy in the environment variable {variable} has a host or port that cannot be one.\n"
            "Set it to an address such as 'http://proxy.example.com:3128'."
        )
        raise InvalidInputError(message)


NO_COOKIES = DefaultCookiePolicy(allowed_domains=[])
"""No cookie is kept: a session of one user or ingress would otherwise go along with later requests."""


def _in_network(host: str, no_proxy: str) -> bool:
    """Return whether an address is in one of the networks (``10.0.0.0/8``) of NO_PROXY."""
    try:
        address = ipaddress.ip_address(host)
        networks = [ipaddress.ip_network(each.strip(), strict=False) for each in no_proxy.split(",") if "/" in each]
    except ValueError:
        return False
    return any(address in network for network in networks)


def _json(body: object) -> bytes:
    try:
        return json.dumps(body, allow_nan=False).encode()
    except ValueError as error:
        message = f"{error}: JSON has no value for NaN and infinity."
        raise InvalidInputError(message) from error


def _cause(error: BaseException | None) -> OSError | None:
    """Return the operating system's error below the HTTP library's wrappers; None when there is none."""
    while error is not None and not isinstance(error, HopsworksError):
        if isinstance(error, BaseExceptionGroup):  # One error per address of the host.
            error = error.exceptions[-1]
        elif isinstance(error, OSError) and error.errno is not None:
            return error
        else:
            error = error.__cause__ or error.__context__
    return None


def _text(cause: OSError) -> str:
    """Return the error's text, in the same words for both HTTP libraries."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    if isinstance(cause, ssl.SSLError | socket.gaierror):
        return str(cause.strerror)
    return os.strerror(cause.errno or 0)
