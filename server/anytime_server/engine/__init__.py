"""The engine: takes requests, runs what the scheduler decides, reports events."""
