"""A data set of labelled radiographs mixed with radiographs of an archive into which flaws are drawn."""

from collections.abc import Sequence

import numpy as np
from mmdet.datasets import ConcatDataset
from mmdet.registry import DATASETS

from .errors import DatasetError


@DATASETS.register_module()
class XrayMixedDefects(ConcatDataset):
    """Labelled radiographs, a share of which is replaced by radiographs of an archive with drawn flaws.

    A detector that is fine-tuned on few labels alone forgets what it has learnt from drawn flaws. An epoch
    has as many samples as there are labelled radiographs, so a schedule keeps its length. Seed, epoch and
    index alone determine which samples are replaced, and by which radiographs (`SeededDataset`).

    Args:
        datasets: The labelled data set, then the archive (`XrayBackgrounds`), each with its own pipeline.
        share: Probability in [0, 1] that a sample comes from the archive.

    Raises:
        DatasetError: There are not two data sets, their classes differ, or the share is out of its range.
    """

    def __init__(self, datasets: Sequence[dict], share: float = 0.5):
        if len(datasets) != 2 or not 0 <= share <= 1:
            raise DatasetError(
                f'XrayMixedDefects: {len(datasets)} data sets and share={share}, expected a labelled data '
                'set, an archive, and a share in [0, 1]; change them in the config'
            )
        super().__init__(datasets)
        labelled, archive = self.datasets
        if labelled.metainfo['classes'] != archive.metainfo['classes']:
            raise DatasetError(
                f'{archive.ann_file or archive.data_root}: classes {archive.metainfo["classes"]}, expected '
                f'those of {labelled.ann_file}, {labelled.metainfo["classes"]}; give both the same metainfo'
            )
        self._metainfo = labelled.metainfo
        self.share = share

    def __len__(self) -> int:
        """Return the number of labelled radiographs."""
        return len(self.datasets[0])

    def __getitem__(self, idx: int) -> dict:
        """Return a sample of the archive with probability `share`, else the labelled one."""
        labelled, archive = self.datasets
        if np.random.random() < self.share:
            return archive[np.random.randint(len(archive))]
        return labelled[idx]
