"""Namespace of the custom modules that configs name in `custom_imports`."""
