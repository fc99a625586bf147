"""The processes: the only place where parts are chosen and joined."""
