"""The real scheduler on simulated traffic and machines."""
