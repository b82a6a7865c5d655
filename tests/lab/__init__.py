"""A real SAN host to test against, in an emulated guest."""
