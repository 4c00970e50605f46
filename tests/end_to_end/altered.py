"""balanceme with constants changed, for what would take long with the real ones.

``python -m tests.end_to_end.altered MODULE.NAME=SECONDS run FILE`` is ``balanceme run FILE``.
"""

import importlib
import sys

from proxy.cli import main

if __name__ == "__main__":
    name, _, value = sys.argv[1].partition("=")
    module, _, constant = name.rpartition(".")
    found = importlib.import_module(module)
    assert hasattr(found, constant)
    setattr(found, constant, float(value))
    sys.exit(main(sys.argv[2:]))
