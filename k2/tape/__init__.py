"""The tape: Kafka is spoken here and nowhere else."""
