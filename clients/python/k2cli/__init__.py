"""Provides the `k2` command."""
