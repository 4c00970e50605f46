"""Starting a process of ours: a fork while the event loop stands still."""

import os
import signal
from collections.abc import Callable
from typing import NoReturn

from proxy.control.worker_process import IGNORED


def fork(child: Callable[[], NoReturn]) -> int:
    """Start a process that does ``child`` alone; only the supervisor returns, with its id."""
    # Until the child has its own handlers: a Ctrl-C for all would reach us through it as well.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)
    pid = os.fork()
    if pid == 0:
        child()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid
