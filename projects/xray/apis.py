"""OpenMMLab's Python APIs on radiographs: paths and arrays get the same window as in training.

`mmdet.apis.inference_detector` and `DetInferencer`, mmpretrain's `ImageClassificationInferencer` and
`FeatureExtractor` expect `LoadImageFromFile` at the head of a pipeline and read 8-bit colour. With this
module they also accept `LoadXray` there. They then take a path, an array (H, W) in the file's own gray
levels, or a list of these. Importing this module is enough; every config does so.
"""

import functools
from pathlib import Path

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.apis import DetInferencer
from mmdet.datasets.transforms import LoadImageFromNDArray
from mmdet.registry import TRANSFORMS as DET_TRANSFORMS
from mmengine.dataset import Compose, default_collate
from mmengine.registry import TRANSFORMS, DefaultScope
from mmpretrain.apis import FeatureExtractor, ImageClassificationInferencer

from projects.radiograph.image import of_container, to_one_channel
from projects.radiograph.recipe import prepare

from .transforms import LoadXray


@TRANSFORMS.register_module()
class XrayInput(BaseTransform):
    """`LoadXray` for the input of an API: a path, an array, or a dict with `img_path` or `img`.

    Args:
        **kwargs: Arguments of `LoadXray`.
    """

    def __init__(self, **kwargs):
        self.load = LoadXray(**kwargs)

    def transform(self, results: dict | str | Path | np.ndarray) -> dict:
        """Return a dict with the windowed image; an array counts as a file without a stated range."""
        if isinstance(results, np.ndarray):
            results = dict(img=results)
        elif not isinstance(results, dict):
            results = dict(img_path=str(results))
        if results.get('img') is None:
            return self.load(results)
        pixels = results['img']
        pixels = to_one_channel(pixels, 'array') if pixels.ndim == 3 else pixels
        radiograph = of_container(pixels, 'array', 'array')
        image = prepare(radiograph, self.load.window, self.load.dtype, self.load.size)
        image = np.require(image, requirements='W')
        return results | dict(img=image, img_path=None, img_shape=image.shape, ori_shape=image.shape)


@DET_TRANSFORMS.register_module(name='LoadImageFromNDArray', force=True)
class LoadArray(LoadImageFromNDArray):
    """mmdet's loader of arrays, which also windows arrays as `LoadXray` does.

    Args:
        **kwargs: Arguments of `LoadXray`, since `inference_detector` replaces the pipeline's loader by this
            class and keeps its arguments; or the stock arguments.
    """

    def __init__(self, **kwargs):
        self.xray = XrayInput(**kwargs) if {'window', 'dtype', 'size'} & kwargs.keys() else None
        super().__init__(**({} if self.xray else kwargs))

    def transform(self, results: dict) -> dict:
        """Return the image of an array."""
        return self.xray(results) if self.xray else super().transform(results)


def _loads_radiographs(cfg) -> bool:
    pipeline = cfg.test_dataloader.dataset.pipeline
    return str(pipeline[0]['type']).rpartition('.')[2] == 'LoadXray'


def _input_of(cfg) -> tuple[dict, list]:
    """Return the first transform as `XrayInput`, and the other transforms."""
    first, *rest = cfg.test_dataloader.dataset.pipeline
    return dict(first, type='XrayInput'), rest


def _det_pipeline(stock):
    @functools.wraps(stock)
    def init_pipeline(self, cfg):
        if not _loads_radiographs(cfg):
            return stock(self, cfg)
        first, rest = _input_of(cfg)
        *steps, pack = [step for step in rest if not str(step['type']).endswith('LoadAnnotations')]
        meta_keys = tuple(key for key in pack.get('meta_keys', ()) if key != 'img_id')
        return Compose([first, *steps, dict(pack, meta_keys=meta_keys) if meta_keys else pack])

    return init_pipeline


def _det_collate(stock):
    @functools.wraps(stock)
    def init_collate(self, cfg):
        named = cfg.test_dataloader.get('collate_fn')
        if isinstance(named, dict):  # the form of loaders; mmengine expects the name alone
            cfg.test_dataloader.collate_fn = named['type']
        return stock(self, cfg)

    return init_collate


def _cls_pipeline(stock):
    @functools.wraps(stock)
    def init_pipeline(self, cfg):
        if not _loads_radiographs(cfg):
            return stock(self, cfg)
        first, rest = _input_of(cfg)
        self.loads_radiographs = True
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            return Compose([first, *rest])

    return init_pipeline


def _cls_preprocess(stock):
    @functools.wraps(stock)
    def preprocess(self, inputs, batch_size=1):
        if not getattr(self, 'loads_radiographs', False):
            yield from stock(self, inputs, batch_size)
            return
        # The stock method would first read a path as 8-bit colour.
        yield from map(default_collate, self._get_chunk_data(map(self.pipeline, inputs), batch_size))

    return preprocess


def install() -> None:
    """Let the APIs load radiographs; configs without LoadXray are not affected."""
    DetInferencer._init_pipeline = _det_pipeline(DetInferencer._init_pipeline)
    DetInferencer._init_collate = _det_collate(DetInferencer._init_collate)
    for api in (ImageClassificationInferencer, FeatureExtractor):
        api._init_pipeline = _cls_pipeline(api._init_pipeline)
        api.preprocess = _cls_preprocess(api.preprocess)


install()
