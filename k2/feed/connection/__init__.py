"""Connections to a venue: when to connect, and how frames are read."""
