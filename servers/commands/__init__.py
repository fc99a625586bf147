"""One module per command that runs to its end."""
