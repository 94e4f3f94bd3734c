"""The detector on the line: its export, its runtime, its pages."""
