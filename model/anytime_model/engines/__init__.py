"""Engines: what computes the network. The torch one is the definition; the others agree."""
