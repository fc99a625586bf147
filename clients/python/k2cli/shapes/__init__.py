"""The commands that ask for trades and shapes of them, with the options that they share."""
