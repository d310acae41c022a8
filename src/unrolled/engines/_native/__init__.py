"""The native engine: the cell's program, and its derived gradient, in the C++ core."""
