"""Prometheus beside a stack: its configuration, its targets, and the alert rules of K2."""
