"""The page where an inspector reads and corrects."""
