"""The demonstration: seven sections whose every claim is measured while they are shown."""
