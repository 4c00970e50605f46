"""Tools that treat the proxy as a black box: members for a demonstration, tests and benchmarks.

The words: a *demo member* is a small HTTP server that stands for one server of a groupware
cluster: it counts requests in its own sessions, takes and gives bodies, waits, answers ActiveSync.
A *demo* is two of them, a throw-away certificate and a configuration for the proxy between.

May import: nothing of ours, so that a mistake of the proxy can't hide in its own measuring
device; of the outside aiohttp, uvloop, and trustme where a certificate is made. Never: anything
of ``proxy`` outside of this folder.
"""
