"""The lake: Iceberg is spoken here and nowhere else."""
