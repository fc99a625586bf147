"""One module per process, which joins its parts."""
