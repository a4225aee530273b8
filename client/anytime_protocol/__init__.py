"""The language that clients and servers of anytime dense prediction share.

Decides what may be said, in which form and in which order; does no input or output, reads no clock
and needs only the standard library. `docs/PROTOCOL.md` is the same language for people.

* `vocabulary`, `errors`: the words, and what can be wrong with them.
* `budget`: limits on a request, and which are tighter.
* `messages` (`requests`, `answers`, `models`): what is said on the websocket and in event streams.
* `codec`, `parts`, `delta`, `rle`: how it lies in bytes.
* `session`, `conflation`: when it may be said, and what a slow reader is spared.
* `headers` (`structured`), `query`, `problems`: the same over HTTP.
"""
