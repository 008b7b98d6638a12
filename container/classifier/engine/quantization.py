"""Post-training quantization of a graph to int8, calibrated on photos.

Weights are symmetric, with one scale per output channel. Activations have one scale per tensor, from the mean over the
photos of each photo's minimum and maximum. OpenVINO runs a convolution in int8 when both its inputs are quantized, and
an addition likewise, which keeps a residual network in int8 from end to end.
"""

from dataclasses import dataclass

import numpy as np
import openvino
from openvino import Node, Output
from openvino import opset13 as ops

from classifier.engine.openvino import openvino_core

BATCH = 8
ACTIVATION_LEVELS = 256
WEIGHT_LIMIT = 127
# The weights' axes of the output channels, by operation.
_CHANNEL_AXES = {"Convolution": (0,), "GroupConvolution": (0, 1)}
# These move values without changing them, so a quantized tensor stays quantized through them.
_TRANSPARENT = ("MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze")


@dataclass(frozen=True)
class _Range:
    low: float
    high: float


def quantize(model: openvino.Model, pixels: np.ndarray) -> openvino.Model:
    """Quantize a copy of a graph.

    Args:
        model: takes pixels, uint8 (N, S, S, 3), and returns logits, float32 (N, num_classes).
        pixels: photos to calibrate on, uint8 (N, S, S, 3); a hundred are enough.

    Returns:
        A graph with the same inputs and outputs.
    """
    ranges = _calibrate(model.clone(), pixels)
    copy = model.clone()
    sources = _sources(copy)
    for layer in filter(_has_weights, copy.get_ordered_ops()):
        _quantize_weights(layer)
    for source, extremes in zip(sources, ranges, strict=True):
        _quantize_activation(source, extremes)
    copy.validate_nodes_and_infer_types()
    return copy


def _has_weights(node: Node) -> bool:
    if node.get_type_name() not in ("Convolution", "GroupConvolution", "MatMul"):
        return False
    return node.input_value(1).get_node().get_type_name() == "Constant"


def _sources(model: openvino.Model) -> list[Output]:
    """The tensors to quantize, each once, in graph order: the inputs of weighted layers and residual additions."""
    wanted: dict[tuple[str, int], Output] = {}
    for node in model.get_ordered_ops():
        for source in map(_origin, _quantized_inputs(node)):
            wanted.setdefault((source.get_node().get_friendly_name(), source.get_index()), source)
    return list(wanted.values())


def _quantized_inputs(node: Node) -> list[Output]:
    if _has_weights(node):
        return [node.input_value(0)]
    inputs = [node.input_value(port) for port in range(node.get_input_size())]
    is_residual = node.get_type_name() == "Add" and all(_is_feature_map(one) for one in inputs)
    return inputs if is_residual else []


def _is_feature_map(value: Output) -> bool:
    return value.get_node().get_type_name() != "Constant" and len(value.get_partial_shape()) == 4


def _origin(value: Output) -> Output:
    while value.get_node().get_type_name() in _TRANSPARENT:
        value = value.get_node().input_value(0)
    return value


def _calibrate(model: openvino.Model, pixels: np.ndarray) -> list[_Range]:
    """For each tensor to quantize, the mean over the photos of its minimum and its maximum."""
    observed = model.add_outputs([one for source in _sources(model) for one in _extremes(source)])
    compiled = openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    sums = np.zeros(len(observed))
    for start in range(0, len(pixels), BATCH):
        request.infer(pixels[start : start + BATCH])
        outputs = [request.get_tensor(one).data for one in observed]
        sums += [float(one.sum(dtype=np.float64)) for one in outputs]
    means = [_round(value / len(pixels)) for value in sums]
    return [_Range(low, high) for low, high in zip(means[::2], means[1::2], strict=True)]


def _extremes(source: Output) -> list[Output]:
    axes = np.arange(1, len(source.get_partial_shape()))
    return [ops.reduce_min(source, axes).output(0), ops.reduce_max(source, axes).output(0)]


def _round(value: float) -> float:
    """Round to three digits, so that the order in which threads sum does not change the result."""
    return float(f"{value:.3g}")


def _quantize_weights(layer: Node) -> None:
    """Replace fp32 weights by int8 ones, dequantized with one scale per output channel."""
    constant = layer.input_value(1).get_node()
    weights = np.asarray(constant.data, np.float32)
    others = _other_axes(layer, weights.ndim)
    scales = np.abs(weights).max(axis=others, keepdims=True) / WEIGHT_LIMIT
    scales = np.where(scales > 0, scales, 1).astype(np.float32)
    integers = np.round(weights / scales).clip(-WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int8)
    restored = ops.multiply(ops.convert(ops.constant(integers), "f32"), ops.constant(scales))
    layer.input(1).replace_source_output(restored.output(0))


def _other_axes(layer: Node, num_axes: int) -> tuple[int, ...]:
    channels = _CHANNEL_AXES.get(layer.get_type_name())
    if channels is None:
        channels = (num_axes - 2 if layer.get_attributes()["transpose_b"] else num_axes - 1,)
    return tuple(axis for axis in range(num_axes) if axis not in channels)


def _quantize_activation(source: Output, extremes: _Range) -> None:
    low, high = _grid(extremes)
    consumers = source.get_target_inputs()
    limits = [ops.constant(np.float32(value)) for value in (low, high)]
    quantized = ops.fake_quantize(source, *limits, *limits, ACTIVATION_LEVELS)
    for consumer in consumers:
        consumer.replace_source_output(quantized.output(0))


def _grid(extremes: _Range) -> tuple[float, float]:
    """Limits of the 256 levels: from zero if nothing is negative, else such that zero is a level."""
    if extremes.low >= 0:
        return 0.0, max(extremes.high, 1e-6)
    step = max(-extremes.low / 128, extremes.high / 127)
    return -128 * step, 127 * step
