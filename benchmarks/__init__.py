"""Benchmarks: what the proxy costs, side by side with Apache, nginx and HAProxy.

``scenarios`` says what is asked, ``peers`` how each proxy is configured, ``members`` and
``clients`` are the two ends, ``processes`` starts and stops programs, ``checks`` refuses an unequal
race, ``measure`` makes one figure, ``run`` all of them, and ``report`` prints them. ``micro`` times
single steps. Nothing here is imported by the proxy or by its tests.
"""
