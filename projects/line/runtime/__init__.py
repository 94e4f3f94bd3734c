"""The detector on the line: an exported folder, read and run without PyTorch and OpenMMLab's packages."""

from .folder import Exported, FolderError
from .inspector import Inspection, Inspector

__all__ = ['Exported', 'FolderError', 'Inspection', 'Inspector']
