"""Processes and configuration: what stands around the data plane.

The words: the *config file* is the YAML on disk, *settings* are the checked objects made from
it, and a *mistake* is a place in the file that can't be used. A *worker* is a process of ours
that serves traffic; it builds its objects from the settings. A *graceful stop* lets the exchanges
under way end. A *reload* puts new settings in force without losing a connection.

May import: ``core`` and ``dataplane``, and of the outside uvloop and yaml besides what these may.
Never: ``lab``. The data plane is handed what it needs and asks nothing back.
"""
