"""Batch normalization over the photos of all ranks, so that a model learns the same on any number of them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from classifier.training.group import Group


def synchronize_batchnorm(module: nn.Module, group: Group) -> None:
    """Let all batch normalization of a module normalize by the batches of all ranks. Names of tensors stay the same."""
    for layer in list(module.modules()):
        for name, child in layer.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(layer, name, _synchronized(child, group))


def average_statistics(module: nn.Module, group: Group) -> None:
    """Average the running statistics that the layers of each rank have of their own batches."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    statistics = [buffer for layer in layers for buffer in layer.buffers() if buffer.is_floating_point()]
    group.sum(statistics)
    for total in statistics:
        total.div_(group.world_size)


def _synchronized(layer: nn.BatchNorm2d, group: Group) -> nn.Module:
    arguments = (layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
    # Torch's own has fused kernels for GPUs, and refuses tensors of a CPU.
    on_gpu = next(layer.buffers()).is_cuda
    result = nn.SyncBatchNorm(*arguments) if on_gpu else SyncBatchNorm2d(*arguments, group=group)
    for name, parameter in layer.named_parameters(recurse=False):
        setattr(result, name, parameter)
    for name, buffer in layer.named_buffers(recurse=False):
        setattr(result, name, buffer)
    return result.train(layer.training)


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization over the batches of all ranks, one of which may be empty; for tensors of a CPU."""

    def __init__(self, *arguments: Any, group: Group) -> None:
        super().__init__(*arguments)
        self._group = group

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (N, C, H, W)."""
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        results: Any = _Normalization.apply(input, self.weight, self.bias, self.eps, self._group)
        output, mean, var, count = results
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
        return output


class _Normalization(Function):
    """Batch normalization whose sums run over the batches of all ranks."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, inputs: Tensor, weight: Tensor, bias: Tensor, eps: float, group: Group
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, var, count = _moments(inputs, group)
        output = F.batch_norm(inputs, mean, var, weight, bias, eps=eps) if len(inputs) else torch.empty_like(inputs)
        ctx.save_for_backward(inputs, weight, mean, (var + eps).rsqrt(), count)
        ctx.group = group  # pyright: ignore[reportAttributeAccessIssue]
        ctx.mark_non_differentiable(mean, var, count)
        return output, mean, var, count

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None]:
        inputs, weight, mean, inverse, count = ctx.saved_tensors
        gradient = gradients[0]
        total = gradient.sum((0, 2, 3), dtype=torch.float32)
        centred = inputs.float() - _channels(mean)
        product = (gradient * centred).sum((0, 2, 3)) * inverse
        # Their sums over the ranks are for the inputs. Those of the weight and the bias are summed with all gradients.
        sums = torch.stack([total, product])
        ctx.group.sum([sums])
        mean_gradient, mean_product = sums / count
        result = gradient - _channels(mean_gradient) - centred * _channels(inverse * mean_product)
        return (result * _channels(weight * inverse)).to(inputs.dtype), product, total, None, None


def _moments(inputs: Tensor, group: Group) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and variance, float32 (C,), and number of the values of each channel over all ranks."""
    channels = inputs.shape[1]
    mean, deviation = torch.zeros(2, channels)
    number = inputs.numel() // channels
    if number:
        var, mean = torch.var_mean(inputs.float(), (0, 2, 3), correction=0)
        deviation = var * number
    # The squares are summed about each rank's own mean: about zero they would lose the digits of a small variance.
    own = torch.cat([mean, deviation, torch.tensor([float(number)])])[None]
    means, deviations, numbers = group.all_gather_rows(own, [1] * group.world_size).split([channels, channels, 1], 1)
    count = numbers.sum()
    mean = (means * numbers).sum(0) / count
    deviation = (deviations + numbers * (means - mean) ** 2).sum(0)
    return mean, deviation / count, count


def _channels(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)
