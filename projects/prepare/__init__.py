"""From a plant's files to data that the recipes read."""
