"""Label formats of inspectors' tools, one a file."""
