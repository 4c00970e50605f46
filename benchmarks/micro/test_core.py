"""What the core's share of one sticky request costs, step by step.

The same head and the same members as in the scenarios; each step is checked once, so that a step
that fails quickly isn't taken for a fast one.
"""

from itertools import count

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.members import answer
from benchmarks.scenarios import SMALL_BYTES, request, session
from proxy.core.balancer import Balancer
from proxy.core.choice import Session
from proxy.core.framing import ChunkedBody
from proxy.core.headers import Forwarded, client_lines, member_request, own_start
from proxy.core.heads import RequestHead
from proxy.core.http1 import Limits, read_request_head, read_response_head
from proxy.core.mapping import Mapping, read_target
from proxy.core.placement import Placement
from proxy.core.rewriting import Rewriting
from proxy.core.settings import Balancer as BalancerSettings
from proxy.core.settings import LbMethod, SessionCookie
from proxy.core.settings import Limits as LimitSettings
from proxy.core.settings import Mapping as MappingSettings
from proxy.core.settings import Member as MemberSettings
from proxy.core.sticky import StickySession

LIMITS = Limits(**LimitSettings().model_dump())
STICKY = request(cookie=session("server2"))
NEW = request()
ANSWER = answer("server2", b"s" * SMALL_BYTES)
HOST = b"127.0.0.1:8001"
SECOND = 1_795_000_000


def settings() -> BalancerSettings:
    """The balancer of the scenarios."""
    return BalancerSettings(
        lbmethod=LbMethod.BYREQUESTS,
        sticky_session="BALANCEME",
        session_cookie=SessionCookie(domain="zarafa.com"),
        members=(
            MemberSettings(url="http://127.0.0.1:8001", route="server1"),
            MemberSettings(url="http://127.0.0.1:8002", route="server2"),
        ),
    )


def read(text: bytes) -> RequestHead:
    """A request's head."""
    found = read_request_head(text, LIMITS)
    assert found is not None
    return found[0]


# --- heads -------------------------------------------------------------------------------------


def test_read_request_head(benchmark: BenchmarkFixture) -> None:
    """A browser's request of nine field lines, of which one was never seen before."""
    number = count()

    def read_new() -> RequestHead:
        return read(STICKY.replace(b"/small", b"/small?%d" % next(number)))

    assert benchmark(read_new).host == b"mail.zarafa.com"


def test_read_request_head_that_repeats(benchmark: BenchmarkFixture) -> None:
    """The same bytes as in a request before."""
    assert benchmark(read, STICKY) is read(STICKY)


def test_request_head_through(benchmark: BenchmarkFixture) -> None:
    """Read as the client sent it and written for the member."""
    forwarded = Forwarded("192.0.2.1", "mail.zarafa.com", tls=True, trusted=False)

    def through() -> bytes:
        head = read(STICKY)
        tail = forwarded.lines(head, head.host)
        return member_request(head, b"/small", HOST, forwarded, tail)

    assert b"X-Forwarded-For: 192.0.2.1\r\n" in benchmark(through)


def test_response_head_through(benchmark: BenchmarkFixture) -> None:
    """Read as the member sent it and written for the client."""
    rewriting = Rewriting((), {}, {})

    def through() -> bytes:
        found = read_response_head(ANSWER, LIMITS)
        assert found is not None
        start = own_start(found[0], b"", b"balanceme")
        return start + client_lines(found[0], rewriting, lambda: b"", length=True)

    assert b"X-Member: server2\r\n" in benchmark(through)


# --- bodies ------------------------------------------------------------------------------------


def test_tiny_chunks(benchmark: BenchmarkFixture) -> None:
    """A read full of chunks of one byte, as large as the event loop gives it at most."""
    data = b"1\r\na\r\n" * 42666

    def feed() -> int:
        return len(ChunkedBody(LIMITS).feed(data))

    assert benchmark(feed) == 42666


# --- sessions ----------------------------------------------------------------------------------


def test_find_session_route(benchmark: BenchmarkFixture) -> None:
    """The route behind the application's own cookie."""
    cookie = read(STICKY).joined(b"cookie")
    sticky = StickySession(settings())
    assert benchmark(sticky.session_route, b"/small", cookie) == b"server2"


def test_choose_for_a_kept_session(benchmark: BenchmarkFixture) -> None:
    """The whole decision for a request with a route."""
    cookie = read(STICKY).joined(b"cookie")
    balancer = Balancer("cluster", settings())
    choice = benchmark(balancer.choose, b"/small", cookie, 1.0)
    assert choice.session is Session.KEPT


def test_choose_for_a_new_session(benchmark: BenchmarkFixture) -> None:
    """The whole decision for a request without one: an election."""
    cookie = read(NEW).joined(b"cookie")
    balancer = Balancer("cluster", settings())
    choice = benchmark(balancer.choose, b"/small", cookie, 1.0)
    assert choice.session is Session.NEW


def test_note_live_session(benchmark: BenchmarkFixture) -> None:
    """That a session was seen on its member, by its webmail's cookie."""
    head = read(STICKY)
    balancer = Balancer("cluster", settings())
    mapping = Mapping(MappingSettings(path="/", balancer="cluster"), balancer)
    placement = Placement(mapping, read_target(head.target), head, apache=False)
    assert placement.choose(1.0)
    benchmark(placement.served, head, "192.0.2.1", b"salt", 1.0)
    assert balancer.sessions.live(1.0).total() == 1


def test_write_session_cookie(benchmark: BenchmarkFixture) -> None:
    """The cookie line of a second that has already had one."""
    cookie = Balancer("cluster", settings()).session_cookie
    assert cookie is not None

    def write() -> bytes:
        return cookie.line(b"server2", SECOND, tls=True)

    assert benchmark(write).startswith(b"Set-Cookie: BALANCEME=balancer.server2; path=/;")
