import pytest
import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.structures import DetDataSample
from mmpretrain.models.utils import ClsDataPreprocessor, SelfSupDataPreprocessor
from mmpretrain.structures import DataSample

from projects.xray.preprocessors import (
    XrayClsDataPreprocessor,
    XrayDetDataPreprocessor,
    XraySelfSupDataPreprocessor,
)

STOCK = dict(mean=[114.5] * 3, std=[57.6] * 3)


def radiographs(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (1, *shape), dtype=torch.uint8, generator=generator) for shape in shapes]


def gray(image):
    return image.expand(*image.shape[:-3], 3, -1, -1).contiguous()


def assert_same(ours, stock):
    assert ours.dtype == stock.dtype == torch.float32
    assert ours.shape == stock.shape
    torch.testing.assert_close(ours, stock, rtol=0, atol=1e-6)


def test_classification_equals_the_stock_one_on_three_channels():
    batch = torch.stack(radiographs((8, 6), (8, 6)))

    def data(inputs):
        return dict(inputs=inputs, data_samples=[DataSample().set_gt_label(i) for i in range(2)])

    ours = XrayClsDataPreprocessor()(data(batch))
    stock = ClsDataPreprocessor(**STOCK)(data(gray(batch)))
    assert_same(ours['inputs'], stock['inputs'])
    assert [s.gt_label.item() for s in ours['data_samples']] == [0, 1]
    # pseudo_collate gives a list.
    assert_same(XrayClsDataPreprocessor()(data(list(batch)))['inputs'], stock['inputs'])


def test_detection_pads_images_of_different_sizes_as_the_stock_one():
    images = radiographs((40, 60), (33, 20))

    def run(preprocessor, inputs):
        samples = [DetDataSample(metainfo=dict(img_shape=image.shape[1:])) for image in inputs]
        return preprocessor(dict(inputs=inputs, data_samples=samples), training=True)

    ours = run(XrayDetDataPreprocessor(pad_size_divisor=32), images)
    stock = run(DetDataPreprocessor(pad_size_divisor=32, **STOCK), [gray(image) for image in images])
    assert ours['inputs'].shape == (2, 3, 64, 64)
    assert_same(ours['inputs'], stock['inputs'])
    for mine, theirs in zip(ours['data_samples'], stock['data_samples']):
        assert mine.metainfo == theirs.metainfo
        assert mine.batch_input_shape == (64, 64)


def test_two_views_equal_the_stock_ones():
    views = [torch.stack(radiographs((8, 8), (8, 8), seed=seed)) for seed in (0, 1)]
    samples = [DataSample(), DataSample()]
    ours = XraySelfSupDataPreprocessor()(dict(inputs=views, data_samples=samples), training=True)
    stock = SelfSupDataPreprocessor(**STOCK)(
        dict(inputs=[gray(view) for view in views], data_samples=samples), training=True
    )
    assert isinstance(ours['inputs'], list)
    for mine, theirs in zip(ours['inputs'], stock['inputs'], strict=True):
        assert_same(mine, theirs)


def test_simmim_image_and_mask_equal_the_stock_ones():
    batch = torch.stack(radiographs((8, 8), (8, 8)))

    def run(preprocessor, inputs):
        samples = [DataSample().set_mask(torch.eye(4) * i) for i in range(2)]
        return preprocessor(dict(inputs=inputs, data_samples=samples), training=True)

    ours = run(XraySelfSupDataPreprocessor(), batch)
    stock = run(SelfSupDataPreprocessor(**STOCK), gray(batch))
    assert_same(ours['inputs'], stock['inputs'])
    assert torch.equal(ours['data_samples'][1].mask, stock['data_samples'][1].mask)


def test_gray_levels_mean_the_same_in_every_depth():
    image = radiographs((8, 8))[0]
    deep = (image.to(torch.int32) * 257).to(torch.uint16)  # 255 -> 65535
    samples = [DetDataSample(metainfo=dict(img_shape=(8, 8)))]
    expected = (gray(image[None]).float() - 114.5) / 57.6
    for inputs in (image, deep, image.float()):
        for preprocessor in (XrayDetDataPreprocessor(), XrayClsDataPreprocessor()):
            assert_same(preprocessor(dict(inputs=[inputs], data_samples=samples))['inputs'], expected)
        views = dict(inputs=[inputs[None]], data_samples=samples)
        assert_same(XraySelfSupDataPreprocessor()(views)['inputs'][0], expected)


def test_three_channels_are_a_view_of_one_until_the_model_reads_them():
    batch = torch.stack(radiographs((8, 8), (8, 8)))
    inputs = XrayClsDataPreprocessor()(dict(inputs=batch))['inputs']
    assert inputs.stride(1) == 0
    assert inputs.untyped_storage().nbytes() == 2 * 8 * 8 * 4
    conv = torch.nn.Conv2d(3, 4, 3)
    torch.testing.assert_close(conv(inputs), conv(inputs.contiguous()))


@pytest.mark.parametrize(
    'cls', [XraySelfSupDataPreprocessor, XrayClsDataPreprocessor, XrayDetDataPreprocessor]
)
def test_three_means_and_three_channels_are_refused(cls):
    with pytest.raises(ValueError, match=f'{cls.__name__}.*one channel'):
        cls(**STOCK)
    colour = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match='3 channels.*LoadXray'):
        cls()(dict(inputs=colour, data_samples=None))
