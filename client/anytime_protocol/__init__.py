"""The protocol that clients and servers of anytime dense prediction share.

It has no input or output and reads no clock; `docs/PROTOCOL.md` describes the same for people.

* `enums`, `errors`, `validation`: words, errors, and how values are read from and written as JSON.
* `budget`: limits on a request, and which are tighter.
* `messages`, `stream_answers`, `model_info`, `fields`: the messages of the websocket and of event
  streams.
* `resources`: the bodies of the REST resources.
* `codec`, `arrays`: how messages and arrays lie in bytes.
* `session`, `send_queue`: the order of messages on one connection, and what a slow reader skips.
* `http`: headers, query strings and problem details.
"""
