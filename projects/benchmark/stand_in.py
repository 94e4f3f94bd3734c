"""A stand-in detector that takes no time, and drawn radiographs that it accepts.

Benchmarks use them to measure the page, the service and the watched folder without a network.
"""

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from projects.line.runtime import Exported, folder

SIDE = 64  # px of the graph's input
LEVEL, NOISE = 30_000, 200  # gray levels of a drawn radiograph


def bright_spot_graph(path: Path, white: float = 255.0) -> None:
    """Write an ONNX detector that returns a box of 8 px around the brightest pixel.

    The score is the pixel's level divided by `white`. The label is 0 in the left half of the input and 1 in
    the right half.
    """
    from onnx import (
        TensorProto,
        helper,
        save,
    )  # a package of the training environment; the line's runtime has no onnx

    value = helper.make_tensor
    nodes: list[tuple[str, list[str], list[str], dict[str, Any]]] = [
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


def export_to(path: Path, **changes: Any) -> Path:
    """Write an exported folder around the stand-in's graph, for both engines; returns its path.

    Args:
        path: The new folder.
        changes: Fields of `Exported` that replace the defaults: 8-bit radiographs, threshold 0.9, classes
            critical, minor.
    """
    path.mkdir()
    bright_spot_graph(path / 'model.onnx')
    stated: dict[str, Any] = dict(
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
    folder.write(path, Exported(**(stated | changes)))
    return path


def for_size(path: Path, height: int, width: int) -> Path:
    """Write an exported folder for 16-bit radiographs of a size, uncropped; returns its path."""
    return export_to(path, native=[height, width], depths=['16-bit unsigned'])


def drawn(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return a noisy radiograph without a flaw, (height, width) uint16."""
    noise = np.random.default_rng(seed).standard_normal((height, width), np.float32)
    pixels: np.ndarray = (LEVEL + NOISE * noise).round().clip(0, 65535).astype(np.uint16)
    return pixels


def draw_files(place: Path, height: int, width: int, count: int) -> list[Path]:
    """Write different radiographs as uncompressed TIFF into a new folder; returns their paths."""
    place.mkdir()
    pixels, paths = drawn(height, width), [place / f'{k}.tif' for k in range(count)]
    for k, path in enumerate(paths):
        cv2.imwrite(str(path), np.roll(pixels, 97 * k, 1), [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    return paths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments MODEL and IMAGES: a detector and radiographs that it accepts."""
    parser.add_argument('model', nargs='?', help='folder written by tools/export.py; default: a stand-in')
    parser.add_argument('images', nargs='*', type=Path, help='radiographs for the model; default: drawn ones')


def chosen(
    parser: argparse.ArgumentParser, args: argparse.Namespace, place: Path, side: int, count: int = 1
) -> tuple[Path, list[Path]]:
    """Return the detector and the radiographs of a command line, or draw them.

    Args:
        parser: Refuses a detector without radiographs.
        args: The parsed arguments.
        place: Folder for the drawn files.
        side: Of a drawn radiograph, px.
        count: Number of drawn radiographs.

    Raises:
        FolderError: The detector is no exported folder.
    """
    if args.model and not args.images:
        parser.error('expected IMAGES beside MODEL, or neither')
    if args.model:
        folder.read(Path(args.model))
        for path in args.images:
            if not path.is_file():
                parser.error(f'{path}: no such file, expected a radiograph')
        return Path(args.model), args.images
    return for_size(place / 'model', side, side), draw_files(place / 'drawn', side, side, count)
