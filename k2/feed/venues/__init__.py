"""Venues: one module a venue, and what a feed asks of each."""
