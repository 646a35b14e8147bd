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
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import tenacity

from airflow_provider_hsml.hopsworks.domain.access import is_host, is_loopback
from airflow_provider_hsml.hopsworks.errors import CertificateError, HopsworksError, InvalidInputError, NoResponseError
from airflow_provider_hsml.hopsworks.untrusted_text import hide

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.api import Call
    from airflow_provider_hsml.hopsworks.domain.access import Access

ATTEMPTS = 4
"""Attempts per call before its error is raised. Flows that wait for longer retry themselves."""
_LONGEST_PAUSE = 30.0
_OLD_TLS = ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "NO_PROTOCOLS_AVAILABLE", "WRONG_SSL_VERSION")
_PASSWORD = re.compile(r"//[^/@\s]*@")


class HttpRequest:
    """
    One HTTP request of a call, and the errors for its failures.

    :param access: the connection; the call may override the address
    :param key: the current API key or token
    :raises InvalidInputError: the key is malformed, or the body cannot be sent
    """

    def __init__(self, access: Access, call: Call[Any], key: str) -> None:
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
        self.headers = {"Authorization": f"{access.key_kind} {key}"}
        if call.host:
            self.headers["Host"] = call.host
        self.content: bytes | None = None
        if call.body is not None:
            self.headers["Content-Type"] = "application/json"
            self.content = _json(call.body)
        self.fields = dict(call.upload.fields) if call.upload else None
        self.files = {"file": (call.upload.filename, call.upload.content)} if call.upload else None
        self.seconds = call.seconds or (access.write_timeout if call.is_write_slow else access.request_timeout)
        """Timeout of the response, in seconds."""
        self.connect_seconds = min(self.seconds, access.request_timeout)
        self._where = f"{call.what} at {self.base}"

    def not_connected(self) -> NoResponseError:
        """Build the error for a connection timeout."""
        message = (
            f"{self._where}: no connection within {self.connect_seconds:g} s.\nCheck the connection's host and port."
        )
        return NoResponseError(message, sent=False)

    def not_answered(self) -> NoResponseError:
        """Build the error for a response timeout."""
        return NoResponseError(f"{self._where}: no answer within {self.seconds:g} s.")

    def not_sendable(self, error: Exception) -> InvalidInputError:
        """Build the error for a request that the HTTP library does not even try to send."""
        return InvalidInputError(
            f"{self._where}: cannot be sent ({_PASSWORD.sub('//***@', str(error))}).\n"
            "Check the proxies that the environment names."
        )

    def failed(self, error: BaseException, *, unreached: bool) -> NoResponseError:
        """
        Build the error for any other failure.

        :param unreached: whether the HTTP library reports that there was no connection
        """
        cause = _cause(error)
        how = f" ({_text(cause)})" if cause else ""
        # A connection that ends in the TLS handshake says nothing about the certificate; httpx calls it unreached.
        ended = isinstance(cause, ConnectionResetError | ssl.SSLEOFError)
        if isinstance(cause, ssl.SSLError) and cause.reason == "WRONG_VERSION_NUMBER":
            message = (
                f"{self._where}: the server there does not speak TLS.\nCheck the connection's port. If the server "
                "speaks plain http, begin the host with 'http://'."
            )
            return CertificateError(message)
        if isinstance(cause, ssl.SSLError) and cause.reason in _OLD_TLS:
            message = (
                f"{self._where}: the server offers no version of TLS that is secure, such as TLS 1.1 or older only"
                f"{how}.\nHave TLS 1.2 or later enabled on the server, or on the proxy in front of it."
            )
            return CertificateError(message)
        if isinstance(cause, ssl.SSLError) and not ended:
            message = (
                f"{self._where}: the server's TLS certificate does not verify{how}.\nIf it is signed by a private CA, "
                "put the path of that CA's PEM file into the connection's extra 'ca_bundle'."
            )
            return CertificateError(message)
        if unreached and not ended:
            message = f"{self._where}: nobody answers there.\nCheck the connection's host and port{how}."
            return NoResponseError(message, sent=False)
        return NoResponseError(f"{self._where}: the answer was cut off{how}.")


def attempts(call: Call[Any], most: int | None = None) -> dict[str, Any]:
    """
    Return the retry policy of a call, as arguments for tenacity.

    :param most: maximum number of attempts; None for the default of tasks
    """

    def may_repeat(error: BaseException) -> bool:
        unsent = isinstance(error, NoResponseError) and not error.sent
        return isinstance(error, HopsworksError) and error.transient and (call.repeatable or unsent)

    return {
        "stop": tenacity.stop_after_attempt(most or ATTEMPTS),
        "retry": tenacity.retry_if_exception(may_repeat),
        "wait": pause_before_retry,
        "reraise": True,
    }


def pause_before_retry(state: tenacity.RetryCallState) -> float:
    """
    Return the seconds until the next attempt: the server's Retry-After, else an exponential backoff with jitter.

    :param state: tenacity's account of the attempts so far
    """
    error = state.outcome and state.outcome.exception()
    if isinstance(error, HopsworksError) and error.retry_after is not None:
        return min(error.retry_after, _LONGEST_PAUSE)
    return tenacity.wait_random_exponential(multiplier=0.5, max=_LONGEST_PAUSE)(state)


def read_key(access: Access) -> str | None:
    """Reread the key if it comes from a file: Hopsworks renews the tokens of its own jobs there."""
    try:
        return Path(access.key_path).read_text().strip() or None if access.key_path else None
    except OSError:
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
    folder = Path(trusted_path).is_dir()
    try:
        return ssl.create_default_context(
            cafile=None if folder else trusted_path, capath=trusted_path if folder else None
        )
    except OSError as error:
        message = f"The CA to verify TLS by, {trusted_path!r}, is not a PEM file that can be read ({_text(error)})."
        raise InvalidInputError(message) from error


def proxy_for(url: str) -> str | None:
    """
    Return the environment's proxy for a URL; None for this machine, or without a proxy.

    :param url: ``scheme://host:port``
    :raises InvalidInputError: the proxy's host or port cannot be one
    """
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
    _check_proxy(f"{name}_proxy".upper(), proxy)
    return proxy


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
