"""Decisions: pure functions and small objects; nothing here waits.

The words: a *head* is a start line with its fields, a *body* is content, and its *framing* tells
where it ends. A *mapping* finds the balancer of a request. A *session route* is the route that a
request carries, by which a session is new, kept, moved or unknown; it is *live* for as long as its
cookie after it was last served. A *balancer* *chooses* a member: by the session first, then by
what its *lbmethod* *elects*. A member is *usable* by what the operator set, what checks observed
and what traffic ran into. Checks lead to a *verdict* (``health``); another member may have taken a
member's sessions over (``takeover``), which then are *away* from their *home* (``failback``).

May import: itself and the pure parts of the standard library; httptools in ``http1`` and
pydantic in ``settings``, which do no I/O. Never: asyncio, sockets, clocks, randomness, files,
logging. Time, randomness and members already tried are arguments, so that a test needs no fake.
"""
