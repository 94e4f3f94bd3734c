"""Assignment of anchors and proposals to objects or background, ignoring crowd regions."""

from mmdet.models.task_modules.assigners import AssignResult, MaxIoUAssigner
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData


@TASK_UTILS.register_module()
class XrayMaxIoUAssigner(MaxIoUAssigner):
    """MaxIoUAssigner that does not assign crowd regions to the background.

    mmdet's default assigns them to the background (`ignore_iof_thr=-1`). A higher threshold has no effect in
    an image whose boxes are all crowd, and it also removes the anchors of objects inside a crowd region. This
    class ignores a background box if most of its area lies in a crowd region; objects keep their boxes.

    Args:
        *args: arguments of `MaxIoUAssigner`.
        crowd_iof_thr: a background box is ignored if a larger share of its area lies in one crowd region.
        **kwargs: arguments of `MaxIoUAssigner`.
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
        """Assign boxes as `MaxIoUAssigner` does, then ignore background boxes in crowd regions."""
        result = super().assign(pred_instances, gt_instances, None, **kwargs)
        priors = pred_instances.priors
        if gt_instances_ignore is not None and len(gt_instances_ignore) and len(priors):
            share = self.iou_calculator(priors, gt_instances_ignore.bboxes, mode='iof').max(dim=1).values
            result.gt_inds[(result.gt_inds == 0) & (share > self.crowd_iof_thr)] = -1
        return result
