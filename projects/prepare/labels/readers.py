"""The reader of each label format, by its name on the command line."""

from .coco import read_coco
from .labelme import read_labelme
from .voc import read_voc
from .yolo import read_yolo

READERS = {'voc': read_voc, 'yolo': read_yolo, 'labelme': read_labelme, 'coco': read_coco}
