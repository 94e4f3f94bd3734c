"""Generated radiographs of castings."""
