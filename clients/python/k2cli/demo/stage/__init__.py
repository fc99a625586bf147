"""What a demonstration stands on: the stack, its history and addresses, and its readiness."""
