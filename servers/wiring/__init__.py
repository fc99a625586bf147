"""One file a process: where its parts are chosen and joined."""
