"""K2: a market-data lakehouse that can be queried as one table."""
