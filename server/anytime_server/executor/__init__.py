"""The process that computes, and how the engine talks to it."""
