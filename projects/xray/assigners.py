"""Which anchors and proposals a detector learns as objects, as background, or not at all."""

from mmdet.models.task_modules.assigners import AssignResult, MaxIoUAssigner
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData


@TASK_UTILS.register_module()
class XrayMaxIoUAssigner(MaxIoUAssigner):
    """MaxIoUAssigner that does not take crowd for background.

    mmdet's default does so (`ignore_iof_thr=-1`). A higher threshold there has no effect in an image whose
    boxes are all crowd, and also takes away the anchors of objects that lie in a crowd region. Here a box
    that would be background is ignored where most of it lies in a crowd region; objects keep their boxes.

    Args:
        *args: those of `MaxIoUAssigner`.
        crowd_iof_thr: share of a box's area in one crowd region above which it is no background.
        **kwargs: those of `MaxIoUAssigner`.
    """

    def __init__(self, *args, crowd_iof_thr: float = 0.5, **kwargs):
        super().__init__(*args, **kwargs)
        self.crowd_iof_thr = crowd_iof_thr

    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        gt_instances_ignore: InstanceData | None = None,
        **kwargs,
    ) -> AssignResult:
        """Assign boxes to objects as `MaxIoUAssigner` does, then ignore the background within crowd."""
        result = super().assign(pred_instances, gt_instances, None, **kwargs)
        priors = pred_instances.priors
        if gt_instances_ignore is not None and len(gt_instances_ignore) and len(priors):
            share = self.iou_calculator(priors, gt_instances_ignore.bboxes, mode='iof').max(dim=1).values
            result.gt_inds[(result.gt_inds == 0) & (share > self.crowd_iof_thr)] = -1
        return result
