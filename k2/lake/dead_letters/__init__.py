"""Dead letters: the list of records K2 could not take, and their replay."""
