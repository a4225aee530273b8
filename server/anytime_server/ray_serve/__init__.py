"""The server on Ray Serve: each replica is a whole server with an engine of its own.

Only `router`, `autoscaling`, `deployment` and `command` need the package `ray`, the extra `[ray]`.
"""
