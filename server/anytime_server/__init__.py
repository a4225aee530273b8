"""The anytime server: a map at every exit, within a budget that may change while it computes.

The pure core (`jobs`, `budgets`, `costs`, `terms`, `policy`, `timeline`, `scheduler`) decides, and
knows no clock, thread or network. Around it, `engine_loop` and `house` carry decisions out,
`executor_*` compute in a process of their own, `service` lets requests in, and `http_*` and
`websocket` talk to clients. `app` and `cli` put everything together.
"""
