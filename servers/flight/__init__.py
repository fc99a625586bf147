"""The data plane: record batches over Arrow Flight."""
