"""Traffic: one worker's bytes, moved by protocols on its event loop.

The words: a *frontend connection* is a client's, a *member connection* is ours to a member; a
*pool* keeps the idle ones of each member. An *exchange* is one request and its response, and
lives as long as these; *attempt* is one try of it on one member. *Flow* pauses one side when the
other is slow. A *tunnel* carries bytes both ways after an upgrade. *Deadlines* are all timeouts,
kept by one sweep. In the *waiting room* are requests that no member can take now.

May import: ``core``, and of the outside asyncio, ssl, socket and logging. Never: ``control`` or
``lab``, aiohttp, yaml. Nothing here decides: it asks the core and obeys; it doesn't know that
other processes exist, and starts no task for a request.
"""
