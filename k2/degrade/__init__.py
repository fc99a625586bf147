"""Degradation: signals of load, the level they mean, and its policy. Pure."""
