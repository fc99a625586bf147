"""Serves K2 to assistants by the Model Context Protocol (extra `mcp`)."""
