"""A Linux host's storage stack as host devices with capability XML, over gRPC."""
