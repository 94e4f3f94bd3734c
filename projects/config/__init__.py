"""Configs as text and tables: how they are named, read, compared and changed on the command line."""
