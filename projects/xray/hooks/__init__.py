"""The hooks that configs name, one subject per file; importing the package registers all of them."""

from .backbone import BackboneHook
from .channels_last import ChannelsLastHook
from .collapse import CollapseHook
from .finite_loss import FiniteLossHook
from .frozen_probe import ProbeHook
from .pace import PaceHook
from .pictures import XrayVisualizationHook
from .reconstruction import ReconstructionHook
from .resume import ResumeHook
from .student import StudentHook
from .verified_load import VerifiedLoadHook

__all__ = [
    'BackboneHook',
    'ChannelsLastHook',
    'CollapseHook',
    'FiniteLossHook',
    'PaceHook',
    'ProbeHook',
    'ReconstructionHook',
    'ResumeHook',
    'StudentHook',
    'VerifiedLoadHook',
    'XrayVisualizationHook',
]
