"""The native engine: a network as a flat program of C++ kernels."""
