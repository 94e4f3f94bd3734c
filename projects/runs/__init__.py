"""What training and test do with a config, and what they record about it."""
