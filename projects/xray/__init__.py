"""X-ray inspection on mmengine, mmdet and mmpretrain; configs import the files by name."""

from .renamed import install

install()
