"""What a trade is: its schema, its identity, its place on the tape. Pure."""
