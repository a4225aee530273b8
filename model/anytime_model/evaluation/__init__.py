"""Evaluation: how good each exit is, what it costs, and what its confidence means."""
