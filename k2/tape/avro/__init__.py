"""Avro: how trades and events of low rate become bytes, and are read back column by column."""
