"""Single steps of a request in microseconds: ``python -m pytest benchmarks/micro``."""
