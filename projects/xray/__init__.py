"""The classes that configs name: data sets, transforms, models, metrics and hooks for OpenMMLab."""

from .renamed import install

install()
