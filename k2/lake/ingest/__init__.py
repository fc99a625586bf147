"""Ingest: the loops that read the tape and commit rows of trades and events."""
