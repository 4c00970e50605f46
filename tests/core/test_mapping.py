import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.balancer import Balancer
from proxy.core.errors import ClientError
from proxy.core.mapping import (
    Mapping,
    MappingTable,
    canonical_path,
    is_activesync,
    read_target,
)
from proxy.core.settings import Balancer as BalancerSettings
from proxy.core.settings import Mapping as MappingSettings

# --- the target --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "forwarded"),
    [
        (b"//a//b", b"/a/b"),
        (b"/a/./b", b"/a/b"),
        (b"/a/../b", b"/b"),
        (b"/a/%2e%2e/b", b"/b"),
        (b"/a/.%2E/b", b"/b"),
        (b"/a;p=1/../b", b"/b"),
        (b"/a/..", b"/"),
        (b"/a/b/..", b"/a/"),
        (b"/a/../", b"/"),
        (b"/", b"/"),
        (b"//", b"/"),
        (b"/a/.", b"/a/"),
        (b"/.", b"/"),
        (b"/a/", b"/a/"),
        (b"/...", b"/..."),
        (b"/.a", b"/.a"),
        (b"/a.", b"/a."),
        (b"/a%20b", b"/a%20b"),
        (b"/a+b", b"/a+b"),
        (b"/a%2Bb", b"/a+b"),
        (b"/%41%7e~", b"/A~~"),
        (b"/a%3Bb", b"/a;b"),
        (b"/a%3Fb", b"/a%3Fb"),
        (b"/a%23b", b"/a%23b"),
        (b"/a%25b", b"/a%25b"),
        (b"/a%2541", b"/a%2541"),
        (b"/%E4%F6", b"/%E4%F6"),
        (b"/%c3%a4", b"/%C3%A4"),
        ("/ä".encode(), b"/%C3%A4"),
        (b"/a%0Ab", b"/a%0Ab"),
        (b'/"<>^`{|}[]\\', b"/%22%3C%3E%5E%60%7B%7C%7D%5B%5D%5C"),
        (b"/!$&'()*+,;=:@-._~", b"/!$&'()*+,;=:@-._~"),
        (b"/a?", b"/a?"),
        (b"/a??b", b"/a??b"),
        (b"/a?x=%zz", b"/a?x=%zz"),
        (b"/a?//../%2f%00", b"/a?//../%2f%00"),
        (b'/a?"\xe4\\{|}', b'/a?"\xe4\\{|}'),
        (b"?x", b"/?x"),
        (b"http://host", b"/"),
        (b"http://host?q", b"/?q"),
        (b"http://host/p?q", b"/p?q"),
        (b"HTTPS://host:443/a/../b", b"/b"),
    ],
)
def test_path_is_cleaned_up(target: bytes, forwarded: bytes) -> None:
    """The path is decoded, normalised and encoded again, the query left alone (R23, H26)."""
    read = read_target(target, True)
    assert read.text == forwarded
    assert read.path + read.query == forwarded
    assert read.query[:1] in (b"?", b"")


@pytest.mark.parametrize(
    ("target", "path", "text"),
    [
        (b"/a%2Bb?%2B", b"/a+b", b"/a%2Bb?%2B"),
        (b"/%41%7e~", b"/A~~", b"/%41%7e~"),
        (b"/%c3%a4", b"/%C3%A4", b"/%c3%a4"),
        (b"/\xe4", b"/%E4", b"/\xe4"),
        (b"//a//b", b"/a/b", b"//a//b"),
        (b"/a/./b%7E", b"/a/b~", b"/a/b~"),
        (b"/a/../b?/../", b"/b", b"/b?/../"),
        (b"/a/b/..", b"/a/", b"/a/"),
        (b"/a.%2e", b"/a..", b"/a.%2e"),
        (b"http://h/%41", b"/A", b"/%41"),
    ],
)
def test_spelling_stays(target: bytes, path: bytes, text: bytes) -> None:
    """The member gets the client's spelling, except with dot segments (H25, H26)."""
    read = read_target(target)
    assert (read.path, read.text) == (path, text)


@pytest.mark.parametrize("target", [b"/a/%2e%2e/b", b"/a/.%2E/b", b"/a/%2e", b"/%2E/a"])
def test_hidden_dot_segments(target: bytes) -> None:
    """Dot segments that a member might or might not see are refused; Apache sees them (H26)."""
    with pytest.raises(ClientError) as refused:
        read_target(target)
    assert refused.value.status == 400
    assert b"." not in read_target(target, True).text


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"/../a", 400),
        (b"/%2e%2e/x", 400),
        (b"/a/../../b", 400),
        (b"/..", 400),
        (b"/a%2Fb", 404),
        (b"/a%2fb", 404),
        (b"/a%00b", 404),
        (b"/a%zz", 400),
        (b"/a%", 400),
        (b"/a%4", 400),
        (b"/a%-1", 400),
        (b"/a% 1", 400),
        (b"/a?x#f", 400),
        (b"/a#f", 400),
        (b"a", 400),
        (b"", 400),
        (b"*", 400),
        (b"host:443", 400),
        (b"ftp://host/", 400),
        (b"http:/host/", 400),
        (b"http://", 400),
        (b"http:///a", 400),
        (b"http://user@host/", 400),
        (b"http://host:0/", 400),
        (b"http://host#f", 400),
    ],
)
def test_refused_target(target: bytes, status: int) -> None:
    """Encoded slashes and NUL are 404, everything else that is no target is 400 (R23, L12)."""
    with pytest.raises(ClientError) as refused:
        read_target(target)
    assert refused.value.status == status


@pytest.mark.parametrize(
    ("target", "host"),
    [(b"/a", None), (b"?x", None), (b"http://a.b:80/c", b"a.b:80"), (b"http://[::1]", b"[::1]")],
)
def test_host_in_the_target(target: bytes, host: bytes | None) -> None:
    """An absolute-form target names the host that counts (R23, H27)."""
    assert read_target(target).host == host


def test_two_slashes_are_a_path() -> None:
    """What begins with // never names a host (H28)."""
    read = read_target(b"//evil.example/a?b")
    assert (read.path, read.query, read.host) == (b"/evil.example/a", b"?b", None)


def cleaned(path: bytes) -> bytes | None:
    """The path cleaned up; None if it is refused."""
    try:
        return canonical_path(path)
    except ClientError:
        return None


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.binary(max_size=8) | st.text("/.%2eEfF0aä;", max_size=16).map(str.encode))
def test_a_clean_path_stays(tail: bytes) -> None:
    """A path is cleaned up once and for all: plain, rooted, without // and dot segments (R23)."""
    path = cleaned(b"/" + tail.replace(b"\0", b"0"))
    if path is not None:
        assert re.fullmatch(
            rb"(/(?!\.\.?(/|$))([A-Za-z0-9!$&'()*+,;=:@._~-]|%[0-9A-F]{2})*)+", path
        )
        assert b"//" not in path
        assert cleaned(path) == path


@pytest.mark.parametrize(
    ("path", "activesync"),
    [
        (b"/Microsoft-Server-ActiveSync", True),
        (b"/microsoft-server-activesync/x", True),
        (b"/MICROSOFT-SERVER-ACTIVESYNC", True),
        (b"/Microsoft-Server-ActiveSyn", False),
        (b"/x/Microsoft-Server-ActiveSync", False),
        (b"/", False),
    ],
)
def test_activesync(path: bytes, activesync: bool) -> None:
    """ActiveSync's path is known in any case of letters (D1, D34)."""
    assert is_activesync(path) is activesync


# --- prefixes ----------------------------------------------------------------------------------


def mapping(path: str = "/", **options: Any) -> Mapping:
    """A mapping to a balancer with two members."""
    members = [{"url": "http://server1"}, {"url": "http://server2:8080/app"}]
    balancer = Balancer("cluster", BalancerSettings.model_validate({"members": members}))
    plain = {"path": path, "balancer": "cluster", **options}
    return Mapping(MappingSettings.model_validate(plain), balancer)


@pytest.mark.parametrize(
    ("prefix", "path", "fits"),
    [
        ("/", b"/", True),
        ("/", b"/x", True),
        ("/x", b"/x", True),
        ("/x", b"/x/y", True),
        ("/x", b"/xy", False),
        ("/x", b"/", False),
        ("/x/", b"/x", False),
        ("/x/", b"/x/", True),
        ("/x/", b"/x/y", True),
        ("/x", b"/X", False),
    ],
)
def test_prefix(prefix: str, path: bytes, fits: bool) -> None:
    """A prefix fits at the boundary of a segment only (R26)."""
    assert mapping(prefix).fits(path) is fits


@pytest.mark.parametrize(
    ("prefix", "to", "path", "base", "member_path"),
    [
        ("/", None, b"/x", b"", b"/x"),
        ("/app", None, b"/app/x", b"", b"/app/x"),
        ("/app", "/webaccess", b"/app/x", b"", b"/webaccess/x"),
        ("/app", "/webaccess", b"/app", b"", b"/webaccess"),
        ("/app/", "/webaccess/", b"/app/x", b"", b"/webaccess/x"),
        ("/ns", "/", b"/ns/x", b"", b"//x"),
        ("/", None, b"/x", b"/app", b"/app/x"),
        ("/", None, b"/x", b"/app/", b"/app//x"),
        ("/y", "/z", b"/y/x", b"/app", b"/app/z/x"),
    ],
)
def test_path_on_the_member(
    prefix: str, to: str | None, path: bytes, base: bytes, member_path: bytes
) -> None:
    """The prefix is replaced as text, the path of the member's URL goes first (R26, R27)."""
    assert mapping(prefix, to=to).member_path(read_target(path), base) == member_path


@pytest.mark.parametrize(
    ("prefix", "to", "path", "member_path"),
    [
        ("/app", "/webaccess", b"/%61pp/x%2b?%61", b"/webaccess/x+?%61"),
        ("/app", "/webaccess", b"//app/x", b"/webaccess/x"),
        ("/app", "/webaccess", b"/app//x%2b", b"/webaccess//x%2b"),
    ],
)
def test_prefix_spelled_oddly(prefix: str, to: str, path: bytes, member_path: bytes) -> None:
    """A prefix that the client spelled its own way is replaced in the canonical path (H26)."""
    target = read_target(path)
    assert mapping(prefix, to=to).fits(target.path)
    assert mapping(prefix, to=to).member_path(target, b"") == member_path


@pytest.mark.parametrize(
    ("path", "to", "places"),
    [
        ("/", None, [(b"http://server1", b"", b""), (b"http://server2:8080", b"/app", b"")]),
        (
            "/x",
            "/y",
            [(b"http://server1", b"/y", b"/x"), (b"http://server2:8080", b"/app/y", b"/x")],
        ),
        (
            "/ns/",
            "/",
            [(b"http://server1", b"", b"/ns"), (b"http://server2:8080", b"/app", b"/ns")],
        ),
    ],
)
def test_places(path: str, to: str | None, places: list[tuple[bytes, bytes, bytes]]) -> None:
    """Where each member is, and where that is with us (P10, P14, R27)."""
    assert mapping(path, to=to).places() == places
    assert mapping(path, to=to, rewrite_location=False).places() == []


def test_places_of_all_mappings() -> None:
    """Members name what other mappings serve: the longest place counts, the first for Apache."""
    base, value = b"https://zarafa.com", b"http://server2:8080/app/webaccess/n"
    for apache, path in ((False, b"/wa/n"), (True, b"/webaccess/n")):
        first, second = mapping("/"), mapping("/wa", to="/webaccess")
        silent = mapping("/silent", rewrite_location=False)
        MappingTable([first, second, silent], apache=apache)
        assert first.rewriting.location(value, base) == base + path
        assert second.rewriting.location(value, base) == base + path
        assert silent.rewriting.location(value, base) == value


def test_places_of_another_host() -> None:
    """What only another host serves isn't ours to name (P12, P14)."""
    base, value = b"https://a.zarafa.com", b"http://server1/webaccess/n"
    first = mapping("/wa", host="a.zarafa.com", to="/webaccess")
    second = mapping("/", host="b.zarafa.com", to="/x")
    general = mapping("/all", to="/webaccess/n")
    MappingTable([first, second])
    assert first.rewriting.location(value, base) == base + b"/wa/n"
    assert second.rewriting.location(value, base) == value
    MappingTable([second, general])
    assert second.rewriting.location(value, base) == base + b"/all"
    assert general.rewriting.location(b"http://server1/x", base) == b"http://server1/x"


def test_protocols_to_upgrade_to() -> None:
    """Names of protocols are compared in any case of letters (R22)."""
    assert mapping(upgrade=["WebSocket"]).upgrade == {b"websocket"}


# --- the table ---------------------------------------------------------------------------------


def find(table: MappingTable, host: bytes | None, path: bytes) -> str | None:
    """The mapping that is found, as it is shown."""
    found = table.find(host, path)
    return None if found is None else repr(found)


@pytest.mark.parametrize(
    ("host", "path", "found"),
    [
        (b"mail.zarafa.com", b"/app/x", "mail.zarafa.com/app"),
        (b"mail.zarafa.com", b"/x", "mail.zarafa.com/"),
        (b"MAIL.Zarafa.COM:8443", b"/app", "mail.zarafa.com/app"),
        (b"mail.zarafa.com.", b"/app", "mail.zarafa.com/app"),
        (b"a.mail.zarafa.com", b"/app", "*.mail.zarafa.com/"),
        (b"a.b.mail.zarafa.com", b"/", "*.mail.zarafa.com/"),
        (b"a.zarafa.com", b"/app", "*.zarafa.com/app"),
        (b"a.zarafa.com", b"/x", "/"),
        (b"zarafa.com", b"/app", "/app"),
        (b"xzarafa.com", b"/app", "/app"),
        (b"zarafa.com", b"/app/deep", "/app"),
        (b"zarafa.com", b"/app/deep/x/y", "/app/deep/x"),
        (b"192.0.2.1:443", b"/app", "/app"),
        (b"[::1]:443", b"/", "/"),
        (None, b"/app", "/app"),
        (b"", b"/", "/"),
    ],
)
def test_table(host: bytes | None, path: bytes, found: str) -> None:
    """The most exact host whose prefix fits, then the longest prefix (R26, L13)."""
    mappings = [
        mapping("/"),
        mapping("/app"),
        mapping("/app/deep/x"),
        mapping("/app", host="*.zarafa.com"),
        mapping("/", host="*.mail.zarafa.com"),
        mapping("/", host="Mail.zarafa.com"),
        mapping("/app", host="mail.zarafa.com"),
    ]
    for order in (mappings, mappings[::-1]):
        answer = find(MappingTable(order), host, path)
        assert answer is not None
        assert answer.lower() == f"<mapping {found}>"


def test_nothing_fits() -> None:
    """What no mapping fits has none."""
    table = MappingTable([mapping("/app"), mapping("/", host="zarafa.com")])
    assert find(table, b"example.com", b"/") is None
    assert find(table, None, b"/x") is None
    assert find(MappingTable([]), None, b"/") is None


def test_one_mapping_for_everything() -> None:
    """A single mapping of / takes every request, the usual case; any other doesn't."""
    assert find(MappingTable([mapping()]), b"odd host", b"/x") == "<Mapping />"
    assert find(MappingTable([mapping("/app")]), b"zarafa.com", b"/x") is None
    assert find(MappingTable([mapping(host="zarafa.com")]), b"example.com", b"/x") is None
