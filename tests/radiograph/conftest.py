"""What the tests of radiographs share."""

from helpers.object_store import cable, s3  # noqa: F401  (fixtures)
