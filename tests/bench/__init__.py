"""How fast nodedev is, measured beside its peers on one synthetic host; `make bench` runs it."""
