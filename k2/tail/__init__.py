"""The tail: the records of the tape that the lake does not hold yet, kept in memory for queries."""
