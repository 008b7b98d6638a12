"""Choice of device and number format."""

import pytest
import torch

from classifier.engine.gpu import Gpu
from classifier.errors import ConfigError
from classifier.host import tune_malloc
from classifier.training.precision import Precision, choose_precision, format_for, tune_for_training

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


@no_gpu
def test_a_gpu_that_torch_does_not_see_is_an_error() -> None:
    with pytest.raises(ConfigError, match="this host has a GPU"):
        choose_precision("auto", wants_gpu=True)


def gpu(major: int, minor: int) -> Gpu:
    return Gpu(0, "a GPU", (major, minor))


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((6, 1), "fp32"),  # P4
        ((7, 0), "fp16"),  # V100
        ((7, 5), "fp16"),  # T4
        ((8, 0), "bf16"),  # A100
        ((8, 6), "bf16"),  # A10G
        ((9, 0), "bf16"),  # H200
        ((12, 0), "bf16"),
    ],
)
def test_auto_is_what_the_gpus_tensor_cores_multiply(capability: tuple[int, int], expected: str) -> None:
    assert format_for("auto", gpu(*capability)) == expected


@pytest.mark.parametrize("capability", [(6, 1), (7, 0), (7, 5)])
def test_emulated_bf16_is_an_error(capability: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=rf"a GPU has {capability[0]}\.{capability[1]}, which only emulates it"):
        format_for("bf16", gpu(*capability))
    assert format_for("fp32", gpu(*capability)) == "fp32"
    assert format_for("fp16", gpu(*capability)) == "fp16"


def test_the_test_is_in_full_precision() -> None:
    strict = Precision(torch.device("cuda", 1), "bf16").strict()
    assert (strict.device, strict.name, strict.is_strict) == (torch.device("cuda", 1), "fp32", True)
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    try:
        with strict.autocast():
            assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("highest", False)
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("high", True)
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def test_a_training_on_the_cpu_leaves_the_settings_of_gpus_alone() -> None:
    tune_for_training(Precision(torch.device("cpu"), "fp32"))
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark) == ("highest", False)


def test_only_fp16_scales_its_loss() -> None:
    assert [Precision(torch.device("cuda"), name).needs_scaling for name in ("fp16", "bf16", "fp32")] == [
        True,
        False,
        False,
    ]


def test_malloc_can_be_tuned_on_any_c_library() -> None:
    tune_malloc("training")
    assert torch.ones(1000, 1000).sum() == 1e6
