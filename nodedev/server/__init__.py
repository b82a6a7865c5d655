"""The service: the inventory over gRPC, on local sockets and mutual TLS."""
