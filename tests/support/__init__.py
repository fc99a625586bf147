"""What several tests share: worlds, waits, stacks and generators."""
