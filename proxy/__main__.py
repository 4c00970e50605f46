"""``python -m proxy``: the command line, where the command ``balanceme`` isn't on the path."""

from proxy.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
