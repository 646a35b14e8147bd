from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks.domain.access import EXTRA_KEYS, Access, misspelled_extras
from airflow_provider_hsml.hopsworks.errors import InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path

KEY = "prefix.secretpart"


def access(host: str | None = "hopsworks.example.com", *, port: int | None = None, **extra: Any) -> Access:
    return Access.from_connection(host=host, port=port, password=KEY, extra={"project": "demo"} | extra)


@pytest.mark.parametrize(
    ("host", "port", "url"),
    [
        ("c.app.hopsworks.ai", None, "https://c.app.hopsworks.ai:443"),
        ("https://c.app.hopsworks.ai", 8181, "https://c.app.hopsworks.ai:8181"),
        ("https://c.app.hopsworks.ai/", None, "https://c.app.hopsworks.ai:443"),
        ("http://localhost", 8181, "http://localhost:8181"),
        ("http://127.0.0.1:99", None, "http://127.0.0.1:99"),
        ("http://[::1]:99", None, "http://[::1]:99"),
        ("10.0.0.7", None, "https://10.0.0.7:443"),
    ],
)
def test_hosts(host: str, port: int | None, url: str) -> None:
    assert access(host, port=port).url == url


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "https://host/path",
        "host/path",
        "https://host?query=1",
        "host#fragment",
        "https://user@host",
        "https://user:pass@host",
        "https://",
        "ftp://host",
        "host name",
        "a..b",
        "https://host:port",
        "https://good.example\\@evil.example",
        "https://host:99999",
        f"{'a' * 64}.example",
        f"prefix.{'s' * 64}",
        ".".join(["a" * 50] * 6),
        "host:0",
        "256.1.1.1",
        "1.2.3.4.5",
        "2130706433",
        "xn--zz.example",
    ],
)
def test_what_could_lead_the_key_elsewhere_is_no_host(host: str | None) -> None:
    with pytest.raises(InvalidInputError, match="without path, query or user") as caught:
        access(host)
    assert "pass" not in str(caught.value)


def test_plain_http_only_to_this_machine_or_by_choice() -> None:
    with pytest.raises(InvalidInputError, match="allow_http"):
        access("http://hopsworks.example.com")
    assert access("http://hopsworks.example.com", allow_http="true").url == "http://hopsworks.example.com:80"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"project": ""}, "extra 'project'"),
        ({"project": "../x"}, "extra 'project'"),
        ({"verify": "no"}, "extra 'verify': expected true or false"),
        ({"request_timeout": "soon"}, "extra 'request_timeout': expected a finite number"),
        ({"write_timeout": 0}, "extra 'write_timeout'"),
        ({"max_response_mb": 0}, "extra 'max_response_mb': expected a finite number of 1 or more"),
        ({"max_response_mb": "inf"}, "extra 'max_response_mb'"),
        ({"inference_route": "http"}, "extra 'inference_route': expected one of hopsworks, istio"),
        ({"inference_route": "istio", "ingress_url": "https://h/path"}, "extra 'ingress_url': .*without path"),
        ({"inference_route": "istio", "ingress_url": "http://203.0.113.7"}, "allow_http"),
        ({"ca_bundle": "/nowhere.pem"}, "extra 'ca_bundle'"),
        ({"ingress_url": "http://elsewhere.example/x"}, "extra 'ingress_url'"),
    ],
)
def test_a_wrong_field_is_named(extra: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        access(**extra)


@pytest.mark.parametrize("name", [*EXTRA_KEYS, "port", "host"])
@pytest.mark.parametrize("pasted", [KEY, [KEY], {"a": KEY}])
def test_a_key_in_another_field_is_not_repeated(name: str, pasted: Any) -> None:
    """Each field refuses what is no value of it, without showing it."""
    given: dict[str, Any] = {
        "port": None,
        "host": "h.example",
        name: pasted if name != "host" else f"https://u:{KEY}@h",
    }

    with pytest.raises(InvalidInputError, match=name) as caught:
        access(given.pop("host"), port=given.pop("port"), inference_route="istio", **given) if (
            name != "inference_route"
        ) else access(**{name: pasted})
    assert "secretpart" not in str(caught.value)


@pytest.mark.parametrize("port", [0, -1, 65536, "99999"])
def test_a_port_that_is_none(port: Any) -> None:
    with pytest.raises(InvalidInputError, match="field 'port'"):
        access(port=port)


def test_misspelled_extras() -> None:
    given = {"verfy": 1, "Project": 2, "ca-bundle": 3, "request_timeuot": 4, "verify": 5, "unrelated": 6, KEY: 7}

    said = misspelled_extras(given)

    assert [line.split("'")[1] for line in said] == ["verfy", "Project", "ca-bundle", "request_timeuot"]
    assert said[1] == "Extra 'Project' is unknown and ignored; did you mean 'project'?"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ca", "ca_bundle"),
        ("ca_cert", "ca_bundle"),
        ("insecure", "verify"),
        ("hopsworks_project", "project"),
        ("timeout", "request_timeout"),
        ("extra__hsml__verfy", "verify"),
    ],
)
def test_extras_by_the_names_that_other_systems_have(name: str, meant: str) -> None:
    assert misspelled_extras({name: 1}) == [f"Extra {name!r} is unknown and ignored; did you mean {meant!r}?"]


def test_the_names_of_airflows_old_forms() -> None:
    old = {"extra__hsml__project": "old", "extra__hsml__request_timeout": "5"}
    found = Access.from_connection(host="h", port=None, password=KEY, extra=old)

    assert (found.project, found.request_timeout) == ("old", 5)
    assert Access.from_connection(host="h", port=None, password=KEY, extra={**old, "project": "new"}).project == "new"
    assert misspelled_extras(old) == []


@pytest.mark.parametrize(
    "path", ["-----BEGIN PRIVATE KEY-----\n" + "MIIEvQ\n" * 300, "x" * 5000, "a/" * 3000, "nul\0nul"]
)
def test_what_is_no_path_of_a_ca(path: str) -> None:
    with pytest.raises(InvalidInputError, match="extra 'ca_bundle': expected the path of a PEM file") as caught:
        access(ca_bundle=path)
    assert "MIIEvQ" not in str(caught.value)


@pytest.mark.parametrize("host", [KEY.upper(), f"https://{KEY.title()}.example"])
def test_a_key_in_the_host_in_another_case(host: str) -> None:
    with pytest.raises(InvalidInputError, match="field 'host': it holds the API key") as caught:
        access(host)
    assert "secretpart" not in str(caught.value).lower()


def test_all_fields(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.touch()

    found = access(
        ca_bundle=str(bundle),
        request_timeout="5",
        write_timeout=7,
        max_response_mb="8",
        ingress_url="https://in.example",
        other="ignored",
    )

    assert found.verify == str(bundle)
    assert (found.request_timeout, found.write_timeout, found.max_response_mb) == (5, 7, 8)
    assert found.ingress_url == "https://in.example:443"
    assert access(verify="False").verify is False
    assert access().verify is True


def test_what_a_form_stores_of_empty_fields_is_not_given() -> None:
    empty: dict[str, Any] = dict.fromkeys(EXTRA_KEYS, "") | {
        "project": " demo\n",
        "write_timeout": None,
        "max_response_mb": None,
        "ca_bundle": "  ",
    }

    assert access(**empty) == access()


@pytest.mark.parametrize("key", [None, "", " \n"])
def test_no_key(key: str | None) -> None:
    with pytest.raises(InvalidInputError, match="API key"):
        Access.from_connection(host="h", port=None, password=key, extra={"project": "demo"})


def test_the_key_is_in_no_text() -> None:
    assert "secretpart" not in repr(access())
    assert "secretpart" not in str(access())


def test_pages_of_the_ui() -> None:
    assert access().ui_url(119, "deployments", 14) == "https://hopsworks.example.com:443/p/119/deployments/14"


class TestEnvironment:
    def test_what_users_set_for_the_sdk(self) -> None:
        given = {
            "HOPSWORKS_HOST": "h.example",
            "HOPSWORKS_PORT": "8181",
            "HOPSWORKS_PROJECT": "p",
            "HOPSWORKS_API_KEY": KEY,
        }

        found = Access.from_environment(given)

        assert found is not None
        assert (found.url, found.project, found.key, found.key_kind) == ("https://h.example:8181", "p", KEY, "ApiKey")

    @pytest.mark.parametrize(("name", "kind"), [("api.key", "ApiKey"), ("token.jwt", "Bearer")])
    def test_inside_hopsworks(self, tmp_path: Path, name: str, kind: str) -> None:
        (tmp_path / name).write_text(f"{KEY}\n")
        given = {
            "REST_ENDPOINT": "https://hopsworks.internal:8182",
            "HOPSWORKS_PROJECT_NAME": "p",
            "SECRETS_DIR": str(tmp_path),
            "DOMAIN_CA_TRUSTSTORE_PEM": "/ca.pem",
        }

        found = Access.from_environment(given, project="other")

        assert found is not None
        assert (found.url, found.project, found.verify) == ("https://hopsworks.internal:8182", "other", "/ca.pem")
        assert (found.key, found.key_kind, found.key_path) == (KEY, kind, str(tmp_path / name))

    def test_nothing_there(self) -> None:
        assert Access.from_environment({"HOPSWORKS_API_KEY": KEY}) is None

    @pytest.mark.parametrize("name", ["HOPSWORKS_HOST", "REST_ENDPOINT", "HOPSWORKS_PROJECT"])
    def test_the_key_in_another_variable(self, name: str) -> None:
        given = {"HOPSWORKS_HOST": "h", "HOPSWORKS_PROJECT": "p", "HOPSWORKS_API_KEY": KEY}

        with pytest.raises(InvalidInputError, match=f"{name}: it holds the API key") as caught:
            Access.from_environment({**given, name: KEY.upper()})
        assert "secretpart" not in str(caught.value).lower()

    def test_a_key_of_blanks(self, tmp_path: Path) -> None:
        (tmp_path / "api.key").write_text("\n")
        given = {"HOPSWORKS_HOST": "h", "HOPSWORKS_PROJECT": "p"}

        for where in ({"HOPSWORKS_API_KEY": "  "}, {"SECRETS_DIR": str(tmp_path)}):
            with pytest.raises(InvalidInputError, match="holds no API key"):
                Access.from_environment({**given, **where})

    def test_half_of_it(self) -> None:
        with pytest.raises(InvalidInputError, match="HOPSWORKS_API_KEY"):
            Access.from_environment({"HOPSWORKS_HOST": "h", "HOPSWORKS_PROJECT": "p"})
        with pytest.raises(InvalidInputError, match="HOPSWORKS_PROJECT"):
            Access.from_environment({"HOPSWORKS_HOST": "h", "HOPSWORKS_API_KEY": KEY})
