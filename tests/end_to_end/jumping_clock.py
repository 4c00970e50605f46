"""balanceme with a wall clock that a test can set, as an operator or a time service may.

``python -m tests.end_to_end.jumping_clock CLOCK run FILE`` is ``balanceme run FILE``, where all
processes read from the file CLOCK, a ``Jump``, by how much their wall clock is wrong. The system's
clock stays as it is.
"""

import mmap
import struct
import sys
import time
from pathlib import Path


class Jump:
    """By how many seconds the wall clock is wrong, in memory that processes share."""

    def __init__(self, file: Path) -> None:
        if not file.exists():
            file.write_bytes(bytes(8))
        with file.open("r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), 8)

    @property
    def seconds(self) -> float:
        """How many."""
        found: float = struct.unpack("d", self._memory)[0]
        return found

    @seconds.setter
    def seconds(self, seconds: float) -> None:
        self._memory[:] = struct.pack("d", seconds)


def main() -> int:
    """Be balanceme; whoever asks for the time from now on gets the wrong one."""
    jump, real = Jump(Path(sys.argv[1])), time.time
    time.time = lambda: real() + jump.seconds
    from proxy.cli import main as balanceme

    return balanceme(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
