"""Venue sockets, one file a venue, and the loop that puts their trades on the tape."""
