"""Trades: their schema, identity, place on the tape and gaps. Pure."""
