"""A synthetic SAN host, technology by technology; `tests.bench.generate` puts it together."""
