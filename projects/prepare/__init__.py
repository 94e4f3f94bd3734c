"""From a plant's files to data for the recipes."""
