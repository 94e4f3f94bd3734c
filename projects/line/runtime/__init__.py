"""The runtime of the line: reads and runs an exported folder without PyTorch and OpenMMLab's packages."""

from .folder import Exported, FolderError
from .inspector import Inspection, Inspector

__all__ = ['Exported', 'FolderError', 'Inspection', 'Inspector']
