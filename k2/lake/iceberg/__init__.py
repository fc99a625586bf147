"""Iceberg: catalog, tables, snapshots and files of the lake."""
