from typing import Any

import pytest

from proxy.core.raw import Raw
from proxy.core.served import (
    certificates,
    could_serve,
    mappings_to,
    served_names,
    takes_activesync,
)

ACTIVESYNC = {"path": "/Microsoft-Server-ActiveSync", "balancer": "sync"}


def test_certificates_of_one_block_or_a_list() -> None:
    """One certificate may be written without a list."""
    one, more = Raw({"tls": {"key": "a"}}), Raw({"tls": [{"key": "a"}]})
    assert [entry.path for entry in certificates(one)] == [("tls",)]
    assert [entry.path for entry in certificates(more)] == [("tls", 0)]
    assert certificates(Raw({})) == []


def test_mappings_to_a_balancer() -> None:
    """All frontends are looked at, other balancers' mappings are left out."""
    mappings = [{"balancer": "a"}, {"balancer": "b"}]
    root = Raw({"frontends": [{"mappings": mappings}, {"mappings": mappings[1:]}]})
    assert [mapping.path for _, mapping in mappings_to(root, "b")] == [
        ("frontends", 0, "mappings", 1),
        ("frontends", 1, "mappings", 0),
    ]


def test_served_names_of_the_frontend() -> None:
    """A mapping without a host is served under every name of its frontend."""
    frontend = {
        "server_name": "Mail.zarafa.com",
        "tls": [{"names": ["mail.zarafa.com", "*.example.org"]}],
        "mappings": [{"balancer": "a"}],
    }
    root = Raw({"frontends": [frontend]})
    assert served_names(root, "a") == ["mail.zarafa.com", "*.example.org"]
    assert served_names(root, "b") == []


def test_served_names_of_a_mapping() -> None:
    """A mapping with a host is served under no other name."""
    mapping = {"balancer": "a", "host": "www.zarafa.com"}
    root = Raw({"frontends": [{"server_name": "mail.zarafa.com", "mappings": [mapping]}]})
    assert served_names(root, "a") == ["www.zarafa.com"]


@pytest.mark.parametrize(
    ("name", "domain", "fits"),
    [
        ("mail.zarafa.com", "zarafa.com", True),
        ("mail.zarafa.com", ".Zarafa.com", True),
        ("zarafa.com", "zarafa.com", True),
        ("zarafa.com", "mail.zarafa.com", False),
        ("mailzarafa.com", "zarafa.com", False),
        ("*.zarafa.com", "zarafa.com", True),
        ("*.zarafa.com", "com", True),
        ("*.zarafa.com", "mail.zarafa.com", True),
        ("*.zarafa.com", "mailzarafa.com", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "0.0.1", False),
    ],
)
def test_could_serve(name: str, domain: str, fits: bool) -> None:
    """A name fits its own domain and those above it, and a wildcard those below it too."""
    assert could_serve(name, domain) is fits


@pytest.mark.parametrize(
    ("mapping", "others", "takes"),
    [
        ({"path": "/"}, [], True),
        ({"path": "/webapp"}, [], False),
        (ACTIVESYNC, [], True),
        ({"path": "/microsoft-server-activesync/x"}, [], True),
        ({"path": "/Microsoft-Server-ActiveSync-2"}, [], False),
        ({"path": "/"}, [ACTIVESYNC], False),
        ({"path": "/"}, [{**ACTIVESYNC, "host": "mail.zarafa.com"}], True),
        ({"path": "/", "host": "mail.zarafa.com"}, [ACTIVESYNC], True),
        (
            {"path": "/", "host": "mail.zarafa.com"},
            [{**ACTIVESYNC, "host": "Mail.zarafa.com"}],
            False,
        ),
        ({"path": 5}, [], False),
    ],
)
def test_takes_activesync(mapping: Any, others: list[Any], takes: bool) -> None:
    """ActiveSync comes through its own mapping, else through / for the same host."""
    frontend = Raw({"mappings": [mapping, *others]})
    assert takes_activesync(frontend, Raw(mapping)) is takes
