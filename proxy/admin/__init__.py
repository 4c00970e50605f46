"""For people and scripts: how a running balanceme is asked and told, in the supervisor alone.

The words: a *command* is what can be asked of a supervisor (``control.commands``). The *API* is
these commands over HTTP and JSON, one handler a route and no state of its own; ``client`` calls it
for the command line. The *control socket* is the Unix socket where the API answers, and the rights
of its file are the access control. ``status_text`` is the status as a terminal shows it.

May import: ``core`` and ``control``, and of the outside aiohttp. Never: ``dataplane`` or ``lab``.
No worker loads this package, and the supervisor is handed the server as one more service to start
and stop, so that ``control`` needn't know it.
"""
