"""Preparation of data: label formats, conversion, checks, leaks and curation of a plant's radiographs."""
