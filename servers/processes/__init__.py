"""One module a process: it chooses the parts and joins them."""
