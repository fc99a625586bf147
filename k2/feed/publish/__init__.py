"""Publishing: frames of a venue become records on the tape, in the order of their ids."""
