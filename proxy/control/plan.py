"""What a worker is given to serve, and how it travels to one that runs already.

A plan is all that the supervisor knows and a worker needs, in plain values: the number of the
settings in force, the settings, keys (which a worker may not be allowed to read), the shape of
their scoreboard. Sockets and the board itself go beside it as open files.
"""

from typing import NamedTuple

from proxy.control.certificate_files import KeyMaterial
from proxy.core.settings import Settings


class Plan(NamedTuple):
    """The settings of one generation."""

    generation: int
    settings: Settings
    # certificates and keys of each frontend, by ``listen``
    keys: dict[str, tuple[KeyMaterial, ...]]
    # How many workers the scoreboard has rows for.
    workers: int
