"""Processes and configuration: what stands around the data plane.

The words: the *config file* is the YAML on disk, *settings* are the checked objects made from
it, and a *mistake* is a place in the file that can't be used. The *supervisor* is the parent
process: it *holds* what has to be opened (sockets, logs, keys), starts *workers*, the processes
that serve traffic, and obeys *commands*. All of one set of settings is a *generation*; a worker is
told of it by a *plan* over its *channel*. The *cluster* is the supervisor's one view of all
members, which reaches workers by the *scoreboard*, memory that all share. A *graceful stop* lets
the exchanges under way end. A *reload* puts new settings in force without losing a connection, an
*upgrade* a new program. A *sink* takes lines of a log, and never keeps anybody waiting. A
*hook* is a program or a URL that is told of events. The *prober*, a process as well, runs the
*probes* of health checks; ``verdicts`` says what follows for members, ``operations`` what operators
say of them, and ``journal`` what is kept of both.

May import: ``core`` and ``dataplane``, and of the outside uvloop and yaml besides what these may.
Never: ``admin`` or ``lab``. The data plane is handed what it needs and asks nothing back.
"""
