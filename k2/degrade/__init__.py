"""How much the platform can bear: signals, level, policy. Pure."""
