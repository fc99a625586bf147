"""The embedded stack for one machine: broker, registry, supervisor."""
