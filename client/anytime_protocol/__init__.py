"""The language that clients and servers of anytime dense prediction share.

Decides what may be said, in which form and in which order; does no input or output, reads no clock
and needs only the standard library. `docs/PROTOCOL.md` is the same language for people.
"""
