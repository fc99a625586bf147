"""The gRPC services of k2.v1, and the server they run in."""
