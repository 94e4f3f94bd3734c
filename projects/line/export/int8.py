"""INT8 by NNCF: post-training quantisation of an exported graph; harmful layers return to float32."""

import errno
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from projects.line.runtime import engines

NETWORK = ('/backbone', '/neck', '/rpn', '/bbox_head', '/mask_head')
"""Prefixes of the node names of backbone, FPN and heads; the other nodes decode boxes and suppress them."""

WEIGHTED = ('Convolution', 'ConvolutionBackpropData', 'GroupConvolution', 'MatMul')
"""Operations whose inputs and weights NNCF quantises to INT8."""

MOVING = ('MaxPool', 'Reshape', 'Split', 'Squeeze', 'Transpose', 'Unsqueeze', 'VariadicSplit', 'Gather')
"""Operations that leave the values unchanged."""


def quantise(
    graph: Path,
    inputs: Sequence[tuple[np.ndarray, np.ndarray]],
    measure: Callable[[engines.Engine], float],
    reference: float,
    most_loss: float,
    transformer: bool = False,
) -> dict:
    """Replace an OpenVINO graph by its INT8 version (NNCF post-training quantisation).

    Backbone, FPN and heads are quantised, the decoding of boxes is not. When the measure falls by more than
    `most_loss`, NNCF returns the most harmful layers to float32 until the loss is small enough.

    Args:
        graph: The `.xml` file, replaced.
        inputs: Calibration images with their extents, as an engine takes them.
        measure: Measures an engine on validation images; higher is better.
        reference: Value of the measure in float32.
        most_loss: Largest fall of the measure.
        transformer: Whether the backbone is a transformer: NNCF then finds the attention and smooths its
            activations.

    Returns:
        Number of images, the measure after plain quantisation, and the layers in float32 ('float32').
    """
    engines.silence_telemetry()
    import nncf

    logging.getLogger('nncf').setLevel(logging.ERROR)
    model = engines.core().read_model(graph)
    settings = dict(
        calibration_dataset=nncf.Dataset(list(inputs), lambda pair: dict(zip(('image', 'extent'), pair))),
        preset=nncf.QuantizationPreset.MIXED,  # asymmetric activations: not all follow a ReLU
        subset_size=len(inputs),
        model_type=nncf.ModelType.TRANSFORMER if transformer else None,
        ignored_scope=nncf.IgnoredScope(names=decoding(model), validate=False),
    )
    quantised = nncf.quantize(model, **settings)

    def engine_of(compiled):
        request = compiled.create_infer_request()
        return lambda image, extent: tuple(
            request.infer([image, extent])[port].copy() for port in compiled.outputs
        )

    def measured(candidate):
        precision = {'INFERENCE_PRECISION_HINT': 'f32'}
        return measure(engine_of(engines.core().compile_model(candidate, 'CPU', precision)))

    value = measured(quantised)
    facts = dict(images=len(inputs), measure_after_plain_quantisation=value, float32=[])
    if reference - value > most_loss:
        plain, whole = quantised_layers(quantised), engines.core().read_model(graph)
        quantised = nncf.quantize_with_accuracy_control(
            whole,
            validation_dataset=nncf.Dataset([None]),
            validation_fn=lambda compiled, _: (measure(engine_of(compiled)), None),
            # NNCF counts the fall from the float32 graph, whose own measure may be below the reference.
            max_drop=max(measured(whole) - (reference - most_loss), 0.0),
            **settings,
        )
        del whole
        facts['float32'] = sorted(plain - quantised_layers(quantised))
    draft = graph.with_name('int8.xml')
    save(quantised, draft)
    # The models map their weights from the file: delete them before it is replaced.
    del model, quantised
    for suffix in ('.xml', '.bin'):
        draft.with_suffix(suffix).replace(graph.with_suffix(suffix))
    return facts


def save(model, path: Path) -> None:
    """Write an OpenVINO model in float32 as `.xml` and `.bin`.

    Raises:
        OSError: The file could not be written whole; OpenVINO's own error does not name it.
    """
    import openvino

    try:
        openvino.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:
        if 'iostream' not in str(error):
            raise
        raise OSError(errno.EIO, 'the graph could not be written whole', str(path)) from None


def decoding(model) -> list[str]:
    """Return the names of the nodes that turn the heads' outputs into boxes: nodes outside `NETWORK`."""
    nodes = (n for n in model.get_ops() if n.get_type_name() not in ('Constant', 'Parameter', 'Result'))
    return [n.get_friendly_name() for n in nodes if not n.get_friendly_name().startswith(NETWORK)]


def quantised_layers(model) -> set[str]:
    """Return the names of the convolutions and matrix products whose input is INT8."""
    return {
        node.get_friendly_name()
        for node in model.get_ops()
        if node.get_type_name() in WEIGHTED and _is_quantised(node)
    }


def _is_quantised(node) -> bool:
    """Whether a node's input comes from a quantisation, with only `MOVING` operations between."""
    while True:
        node = node.input_value(0).get_node()
        if node.get_type_name() not in MOVING:
            return node.get_type_name() == 'FakeQuantize'
