"""Gaps: ids a feed missed, from the ledger entry to the backfilled trade."""
