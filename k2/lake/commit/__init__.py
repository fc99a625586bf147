"""The commit: rows become files, and files become one snapshot with its positions and state."""
