"""Maintenance: compaction, retention, snapshot expiry, orphan files, backup and relocation."""
