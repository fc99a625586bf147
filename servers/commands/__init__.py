"""One module a command that runs to its end: python -m servers NAME."""
