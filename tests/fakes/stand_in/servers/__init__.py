"""Stands in for `servers` in tests of the command: found first by PYTHONPATH."""
