"""Says what may be asked of trades, one shape a module; `shape` is what the rest of query knows."""
