"""Where one request goes: the choice, the attempts made, and what follows when one fails.

Pure, like everything in ``core``: it decides and keeps the members' ``busy`` counts; connecting,
sending and waiting are the exchange's part.
"""

from dataclasses import replace

from proxy.core.choice import Choice, Reason
from proxy.core.failover import Attempt, Failure, Next, Verdict, judge
from proxy.core.heads import RequestHead
from proxy.core.mapping import Mapping, Target
from proxy.core.member import Member
from proxy.core.moves import follow
from proxy.core.sessions import address_hash, read_session


class Placement:
    """One request's way to a member, over as many attempts as it takes."""

    __slots__ = (
        "_apache",
        "_cookie",
        "_engaged",
        "_moving",
        "_reconnected",
        "_tried",
        "attempts",
        "choice",
        "mapping",
        "member",
        "response_timeout",
        "target",
    )

    # The member last chosen, and how long it may be silent, in seconds (F16, D33); to be read
    # only once ``choose`` has said yes.
    member: Member
    response_timeout: float
    choice: Choice

    def __init__(
        self, mapping: Mapping, target: Target, head: RequestHead, *, apache: bool
    ) -> None:
        self.mapping = mapping
        self.target = target
        self.attempts = 0
        self._cookie = head.block.cookie
        self._tried: tuple[Member, ...] = ()
        self._reconnected = False
        # the session's key, if the operator may be moving it
        self._moving = 0
        # whether the member counts this request among its busy
        self._engaged = False
        self._apache = apache

    def look_for_move(self, head: RequestHead, address: str, salt: bytes) -> None:
        """Before ``choose``, when there are sessions that the operator moves: look for this one."""
        key, shared = self._session(head, salt)
        self._moving = key ^ address_hash(salt, address) if shared else key

    def choose(self, now: float) -> bool:
        """Choose a member for the next attempt; False if there is none."""
        balancer = self.mapping.balancer
        choice = balancer.choose(self.target.text, self._cookie, now, self._tried)
        if choice.member is None and self._tried:
            # Attempts are counted, not members: those that are left go round again (F5).
            self._tried = ()
            choice = balancer.choose(self.target.text, self._cookie, now)
        if self._moving:
            choice = self._moved(choice, now)
        self.choice = choice
        member = choice.member
        if member is None:
            return False
        self.member = member
        member.busy += 1
        self._engaged = True
        self.attempts += 1
        timeout = self.mapping.response_timeout
        if timeout is None:
            waits = self.target.activesync
            timeout = member.activesync_timeout if waits else member.response_timeout
        self.response_timeout = timeout
        return True

    def _moved(self, choice: Choice, now: float) -> Choice:
        """The choice for a session that the operator may be moving."""
        balancer = self.mapping.balancer
        move = balancer.sessions.moves.of(self._moving, now)
        if move is not None:
            # Who has left its sessions to another member gets none.
            own = [
                m for m in balancer.members if m.route is None or balancer.heir(m.route) == m.route
            ]
            choice = follow(move, choice, own, now, self._tried)
            balancer.sessions.moves.followed(self._moving, choice, now, balancer.sessions.lifetime)
        return choice

    def failed(
        self, failure: Failure, head: RequestHead, now: float, *, reused: bool, later_request: bool
    ) -> Verdict:
        """An attempt has failed before anything was answered: what follows (F1 to F5).

        ``reused``: its connection had carried an exchange before; ``later_request``: the
        client's had. In the verdict, ``member_in_error`` is true only when that is news.
        """
        member, balancer = self.member, self.mapping.balancer
        left = balancer.max_attempts - (self.attempts - 1)
        if self._apache and member.settings.ignore_errors:
            left = 0  # Apache's retry loop ends with a member that is still usable (F8)
        attempt = Attempt(
            failure=failure,
            method=head.method,
            has_body=head.has_body,
            reused=reused and not self._reconnected,
            later_request=later_request,
            left=left,
            fail_on_timeout=balancer.settings.fail_on_timeout and not self.target.activesync,
        )
        verdict = judge(attempt, apache=self._apache)
        if verdict.member_in_error:
            news = balancer.put_in_error(member, now)
            verdict = verdict._replace(member_in_error=news)
        if verdict.next is Next.SAME_MEMBER:
            self._reconnected = True
        elif verdict.next is Next.OTHER_MEMBER:
            self._tried = (*self._tried, member)
            self.leave()
        elif verdict.status == 503 and not self._apache:
            # Nobody served the session: it stays where it was, for the next request to try.
            self.leave()
            self.choice = replace(self.choice, member=None, reason=Reason.NOBODY, cookie_route=None)
        return verdict

    def answered(self, status: int, now: float) -> bool:
        """The member's final answer has this status: whether that puts it in error, as news.

        For mappings with ``fail_on_status`` (F10).
        """
        if status not in self.mapping.fail_on_status:
            return False
        return self.mapping.balancer.put_in_error(self.member, now)

    def wait_timeout(self) -> float:
        """How long a request that nobody can take now may wait for somebody, in seconds (B16).

        To be asked once ``choose`` has said no; 0 for not at all.
        """
        if self.choice.reason is Reason.NO_FAILOVER:
            return 0.0
        return self.mapping.balancer.settings.wait_timeout

    def served(self, head: RequestHead, address: str, salt: bytes, now: float) -> None:
        """The member has answered the client at ``address``: its session lives there.

        For ``salt`` see ``sessions``.
        """
        made_with, key, shared = head.session
        if made_with is not salt:
            key, shared = self._session(head, salt)
        if shared:
            # A browser's first visit isn't counted: once it has cookies, it has another key.
            key = 0 if self.choice.session_route is None else key ^ address_hash(salt, address)
        if key:
            self.mapping.balancer.sessions.note(key, now, self.member.name, self.choice)

    def _session(self, head: RequestHead, salt: bytes) -> tuple[int, bool]:
        return read_session(head, salt, activesync=self.target.activesync)[1:]

    def leave(self) -> None:
        """The member has nothing more to do with this request."""
        if self._engaged:
            self._engaged = False
            self.member.busy -= 1

    def cookie_line(self, second: int, *, tls: bool) -> bytes:
        """The Set-Cookie line that the choice asks for; ``second`` is the request's arrival."""
        route = self.choice.cookie_route
        cookie = self.mapping.balancer.session_cookie
        if route is None or cookie is None:
            return b""
        return cookie.line(route, second, tls=tls)

    def __repr__(self) -> str:
        return f"<Placement {self.mapping!r} attempts={self.attempts}>"
