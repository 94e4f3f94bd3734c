"""The classes that a config can name, on mmengine, mmdet and mmpretrain; configs import the modules."""

from .renamed import install

install()
