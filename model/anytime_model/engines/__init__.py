"""Engines: what computes the network. The torch engine is the definition; faster ones agree with it."""
