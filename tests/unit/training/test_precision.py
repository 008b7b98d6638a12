"""Choice of device and number format."""

import pytest
import torch

from classifier.errors import ConfigError
from classifier.host import tune_malloc
from classifier.training.precision import Precision, choose_precision

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="tests the behaviour without a GPU")


@pytest.mark.parametrize(("name", "kind"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_multiplies_in_the_chosen_type(name: str, kind: torch.dtype) -> None:
    precision = Precision(torch.device("cpu"), name)
    with precision.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == kind
    assert not precision.needs_scaling


@no_gpu
def test_auto_chooses_a_format_of_this_machine() -> None:
    precision = choose_precision("auto")
    assert precision.device.type == "cpu"
    assert precision.name in ("bf16", "fp32")


@no_gpu
@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_explicit_formats_are_used(name: str) -> None:
    assert choose_precision(name).name == name


@no_gpu
def test_fp16_without_a_gpu_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"^precision=fp16 needs a GPU, and there is none: use auto, bf16 or fp32$"):
        choose_precision("fp16")


def test_only_fp16_scales_its_loss() -> None:
    assert [Precision(torch.device("cuda"), name).needs_scaling for name in ("fp16", "bf16", "fp32")] == [
        True,
        False,
        False,
    ]


def test_malloc_can_be_tuned_on_any_c_library() -> None:
    tune_malloc("training")
    assert torch.ones(1000, 1000).sum() == 1e6
