"""Masked convolution: its definition, and faster implementations that must agree with it."""
