"""The arithmetic that was asked for is the arithmetic that is done."""

import pytest
import torch

from classifier.errors import ConfigError
from classifier.host import tune_malloc
from classifier.training.precision import Precision, choose_precision

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, and this is about having none")


@pytest.mark.parametrize(("name", "kind"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_products_are_computed_in_the_type_asked_for(name: str, kind: torch.dtype) -> None:
    precision = Precision(torch.device("cpu"), name)
    with precision.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == kind
    assert not precision.needs_scaling


@no_gpu
def test_auto_is_something_that_the_machine_has() -> None:
    precision = choose_precision("auto")
    assert precision.device.type == "cpu"
    assert precision.name in ("bf16", "fp32")


@no_gpu
@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_what_was_asked_for_is_taken(name: str) -> None:
    assert choose_precision(name).name == name


@no_gpu
def test_half_precision_needs_a_gpu() -> None:
    with pytest.raises(ConfigError, match=r"^precision=fp16 needs a GPU, and there is none: use auto, bf16 or fp32$"):
        choose_precision("fp16")


def test_only_half_precision_scales_its_loss() -> None:
    assert [Precision(torch.device("cuda"), name).needs_scaling for name in ("fp16", "bf16", "fp32")] == [
        True,
        False,
        False,
    ]


def test_freed_memory_can_be_kept_on_any_c_library() -> None:
    tune_malloc("training")
    assert torch.ones(1000, 1000).sum() == 1e6
