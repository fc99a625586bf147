"""Serves K2 over HTTP: rows, state and live events for browsers, scripts and people."""
