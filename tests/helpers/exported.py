"""An exported folder around a graph that finds the brightest pixel; both engines read it."""

import numpy as np
from onnx import TensorProto, helper, save

from projects.line.runtime import Exported, folder

SIDE = 64


def bright_spot_graph(path, white=255.0):
    """Write an ONNX detector: the brightest pixel, a box of 8 px around it, its level / white as the score.

    The label is 0 in the left half of the input and 1 in the right half.
    """
    value = helper.make_tensor
    nodes = [
        ('Reshape', ['image', 'flat'], ['row'], {}),
        ('ArgMax', ['row'], ['at'], dict(axis=0, keepdims=1)),
        ('Gather', ['row', 'at'], ['level'], {}),
        ('Div', ['level', 'white'], ['scores'], {}),
        ('Mod', ['at', 'width'], ['column'], {}),
        ('Div', ['at', 'width'], ['line'], {}),
        ('Div', ['column', 'half'], ['labels'], {}),
        ('Concat', ['column', 'line', 'column', 'line'], ['corners'], dict(axis=0)),
        ('Cast', ['corners'], ['centre'], dict(to=TensorProto.FLOAT)),
        ('Add', ['centre', 'spread'], ['box'], {}),
        ('Concat', ['extent', 'extent'], ['border_hw'], dict(axis=0)),
        ('Min', ['box', 'border_hw'], ['inside'], {}),
        ('Reshape', ['inside', 'one_box'], ['boxes'], {}),
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, i, o, **a) for kind, i, o, a in nodes],
        'brightest',
        [
            helper.make_tensor_value_info('image', TensorProto.FLOAT, [1, 1, SIDE, SIDE]),
            helper.make_tensor_value_info('extent', TensorProto.FLOAT, [2]),
        ],
        [
            helper.make_tensor_value_info('boxes', TensorProto.FLOAT, [1, 4]),
            helper.make_tensor_value_info('scores', TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info('labels', TensorProto.INT64, [1]),
        ],
        [
            value('flat', TensorProto.INT64, [1], [-1]),
            value('white', TensorProto.FLOAT, [1], [white]),
            value('width', TensorProto.INT64, [1], [SIDE]),
            value('half', TensorProto.INT64, [1], [SIDE // 2]),
            value('spread', TensorProto.FLOAT, [4], [-4.0, -4.0, 4.0, 4.0]),
            value('one_box', TensorProto.INT64, [2], [1, 4]),
        ],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8), path)


def export_to(path, **changes):
    """An exported folder around that graph; both engines read ONNX."""
    path.mkdir()
    bright_spot_graph(path / 'model.onnx')
    said = dict(
        engines=dict(openvino='model.onnx', onnxruntime='model.onnx'),
        precision='fp32',
        input=[SIDE, SIDE],
        scale=[SIDE, SIDE],
        native=[SIDE, SIDE],
        window=dict(type='full'),
        dtype='uint8',
        mean=114.5,
        std=57.6,
        iou=0.5,
        classes=['critical', 'minor'],
        rejecting=['critical'],
        threshold=0.9,
        threshold_reason='by hand',
        depths=['8-bit unsigned'],
    )
    folder.write(path, Exported(**(said | changes)))
    return path


def spot(x, y, level=255, side=SIDE, dtype=np.uint8):
    image = np.full((side, side), 100, dtype)
    image[y, x] = level
    return image
