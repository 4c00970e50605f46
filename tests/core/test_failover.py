import pytest

from proxy.core.failover import IDEMPOTENT, Attempt, Failure, Next, Verdict, judge


def attempt(
    failure: Failure,
    method: bytes = b"GET",
    *,
    has_body: bool = False,
    reused: bool = False,
    later_request: bool = False,
    left: int = 1,
    fail_on_timeout: bool = False,
) -> Attempt:
    """An attempt on a new connection, for the first request of a client's connection."""
    return Attempt(failure, method, has_body, reused, later_request, left, fail_on_timeout)


@pytest.mark.parametrize("apache", [False, True])
@pytest.mark.parametrize("method", [b"GET", b"POST", b"PROPPATCH"])
@pytest.mark.parametrize("failure", [Failure.REFUSED, Failure.CONNECT_TIMEOUT])
def test_nothing_sent(failure: Failure, method: bytes, apache: bool) -> None:
    """Whatever was not sent goes to another member, body and all (F1, F2)."""
    failed = attempt(failure, method, has_body=True, reused=True, later_request=True)
    assert judge(failed, apache=apache) == Verdict(Next.OTHER_MEMBER, member_in_error=True)


@pytest.mark.parametrize("apache", [False, True])
@pytest.mark.parametrize("failure", [Failure.REFUSED, Failure.CONNECT_TIMEOUT])
def test_no_attempts_left(failure: Failure, apache: bool) -> None:
    """The last attempt ends in 503 (F5, F14), and its member is in error too."""
    verdict = judge(attempt(failure, left=0), apache=apache)
    assert verdict == Verdict(Next.ANSWER, True, 503, "Service Unavailable")


def test_unresolved() -> None:
    """A name that can't be resolved is failed over; Apache answers 500 (F1, X)."""
    failed = attempt(Failure.UNRESOLVED)
    assert judge(failed) == Verdict(Next.OTHER_MEMBER, member_in_error=True)
    assert judge(failed, apache=True) == Verdict(Next.ANSWER, True, 500, "Proxy Error")


def test_no_free_connection() -> None:
    """A member that is only busy isn't in error; Apache thinks it is (F1, F12)."""
    for left, after in ((1, Next.OTHER_MEMBER), (0, Next.ANSWER)):
        failed = attempt(Failure.NO_CONNECTION, b"POST", has_body=True, left=left)
        assert judge(failed)[:2] == (after, False)
        assert judge(failed, apache=True)[:2] == (after, True)


@pytest.mark.parametrize("apache", [False, True])
def test_we_are_exhausted(apache: bool) -> None:
    """That we have no descriptor or port left says nothing of the member, for Apache's sake too."""
    for left, after in ((1, Next.OTHER_MEMBER), (0, Next.ANSWER)):
        failed = attempt(Failure.EXHAUSTED, b"POST", has_body=True, left=left)
        assert judge(failed, apache=apache)[:2] == (after, False)


@pytest.mark.parametrize("apache", [False, True])
def test_closed_without_an_answer(apache: bool) -> None:
    """What may have been processed isn't sent again: 502, and nobody is in error (F1, F2)."""
    for method in (b"GET", b"POST"):
        verdict = judge(attempt(Failure.CLOSED, method), apache=apache)
        assert verdict == Verdict(Next.ANSWER, False, 502, "Proxy Error")


def test_closed_on_a_later_request() -> None:
    """Apache closes the connection of a client that was served before (F1); we say 502 (H65)."""
    fresh = attempt(Failure.CLOSED, b"POST", later_request=True)
    assert judge(fresh, apache=True)[:2] == (Next.CLOSE_CLIENT, True)
    used = fresh._replace(reused=True)
    assert judge(used, apache=True)[:2] == (Next.CLOSE_CLIENT, False)
    for failed in (fresh, used):
        assert judge(failed)[:3] == (Next.ANSWER, False, 502)


def test_unasked() -> None:
    """Closed before it was asked: another member, if there is one; nobody is in error (H69)."""
    assert judge(attempt(Failure.UNASKED, b"POST"))[:2] == (Next.OTHER_MEMBER, False)
    assert judge(attempt(Failure.UNASKED, left=0))[:3] == (Next.ANSWER, False, 502)
    assert judge(attempt(Failure.UNASKED), apache=True)[:3] == (Next.ANSWER, False, 502)


@pytest.mark.parametrize("method", sorted(IDEMPOTENT))
def test_reused_connection_was_dead(method: bytes) -> None:
    """An idempotent request without a body goes to it again (H69), but Apache's never (F2)."""
    failed = attempt(Failure.CLOSED, method, reused=True, later_request=True, left=0)
    assert judge(failed) == Verdict(Next.SAME_MEMBER, member_in_error=False)
    assert judge(failed, apache=True)[:2] == (Next.CLOSE_CLIENT, False)


@pytest.mark.parametrize(
    ("method", "has_body"), [(b"POST", False), (b"PUT", True), (b"LOCK", False), (b"get", False)]
)
def test_never_sent_twice(method: bytes, has_body: bool) -> None:
    """What isn't idempotent, or has a body, isn't (H69, RFC 9110 section 9.2.2)."""
    failed = attempt(Failure.CLOSED, method, has_body=has_body, reused=True)
    assert judge(failed) == Verdict(Next.ANSWER, False, 502, "Proxy Error")


@pytest.mark.parametrize(
    ("failure", "reason", "counts"),
    [
        (Failure.RESPONSE_TIMEOUT, "Proxy Error", True),
        (Failure.HEAD_TIMEOUT, "Bad Gateway", True),
        (Failure.UNFINISHED, "Proxy Error", False),
    ],
)
@pytest.mark.parametrize("fail_on_timeout", [False, True])
def test_response_timeout(
    failure: Failure, reason: str, *, counts: bool, fail_on_timeout: bool
) -> None:
    """No answer in time is 504, where Apache says 502 (F1, F14).

    Nobody is in error, but with fail_on_timeout, and after a whole request only (F11); for Apache
    a status line is an answer.
    """
    failed = attempt(failure, reused=True, later_request=True, fail_on_timeout=fail_on_timeout)
    in_error = counts and fail_on_timeout
    assert judge(failed) == Verdict(Next.ANSWER, in_error, 504, reason)
    in_error = in_error and failure is not Failure.HEAD_TIMEOUT
    assert judge(failed, apache=True) == Verdict(Next.ANSWER, in_error, 502, reason)


@pytest.mark.parametrize("failure", Failure)
def test_fail_on_timeout_is_about_timeouts(failure: Failure) -> None:
    """It changes nothing about other failures, nor what the client gets (F11)."""
    with_it, without = (judge(attempt(failure, fail_on_timeout=on)) for on in (True, False))
    assert with_it._replace(member_in_error=False) == without._replace(member_in_error=False)
    timeouts = (Failure.RESPONSE_TIMEOUT, Failure.HEAD_TIMEOUT)
    assert (with_it != without) == (failure in timeouts)


@pytest.mark.parametrize("apache", [False, True])
@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (Failure.UNEXPECTED, "Proxy Error"),
        (Failure.BAD_RESPONSE, "Bad Gateway"),
        (Failure.SENDING, "Bad Gateway"),
    ],
)
def test_bad_gateway(failure: Failure, reason: str, apache: bool) -> None:
    """A malformed answer or a lost upload is 502, and nobody is in error (F1, F14, H67)."""
    failed = attempt(failure, reused=True, later_request=True)
    assert judge(failed, apache=apache) == Verdict(Next.ANSWER, False, 502, reason)


@pytest.mark.parametrize("failure", Failure)
def test_one_sentence(failure: Failure) -> None:
    """Another member only if nothing was sent; the same one only if a connection was dead."""
    nothing_sent = {
        Failure.REFUSED,
        Failure.CONNECT_TIMEOUT,
        Failure.UNRESOLVED,
        Failure.NO_CONNECTION,
        Failure.EXHAUSTED,
        Failure.UNASKED,
    }
    verdict = judge(attempt(failure, reused=True))
    assert (verdict.next is Next.OTHER_MEMBER) == (failure in nothing_sent)
    assert (verdict.next is Next.SAME_MEMBER) == (failure is Failure.CLOSED)
