"""Label formats of inspectors' tools, one per file."""
