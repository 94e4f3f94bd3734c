"""Export of a detector: from a config and a checkpoint to a folder for the line."""
