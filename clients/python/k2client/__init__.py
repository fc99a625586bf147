"""What a user holds: a connection to K2 that answers in Arrow, polars and pandas."""
