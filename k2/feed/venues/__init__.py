"""Venues: one module a venue, and the Protocols that each implements."""
