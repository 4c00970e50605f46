"""balanceme: a TLS reverse proxy that keeps every session on its member.

This docstring is the map. The package is cut by plane, and imports only point down:

- ``core`` decides and never waits. Bytes, facts and the time go in; small named values come out.
- ``dataplane`` moves bytes: protocols on an event loop, no task for a request. It asks the core.
- ``control`` owns processes and configuration, and puts a worker together from its settings.
- ``admin`` lets people and scripts ask and tell a running proxy what ``control`` can do.
- ``lab`` holds tools that treat the proxy as a black box and import nothing of ours.
- ``cli`` is the command line: one function a command, planes imported inside it.

Eight words open every file. A *client* connects to a *frontend*, an address we listen on. A
*mapping* turns the host and path of its request into a *balancer*, a named group of *members*,
each one server that is reached over plain HTTP. A session carries the *route* of its member in
a cookie or in its URL, which makes it a *sticky session*. One request and its response are an
*exchange*; an exchange whose member can't be used goes to another by *failover*, and its
session moves along.

``core.settings`` is what the operator asked for, and frozen. What happens while the proxy runs
is state, and lives in the core's members and balancers. ``control.worker`` and ``cli`` are the
only places that put things together; no part looks up another by name.
"""

__version__ = "0.1.0"
