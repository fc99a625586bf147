"""Implements what an operator of a running stack does: watch it, and set its level."""
