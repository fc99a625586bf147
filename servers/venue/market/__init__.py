"""The synthetic market: instruments, an activity clock and trades from a seed."""
