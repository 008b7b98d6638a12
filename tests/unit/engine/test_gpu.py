"""The GPU that torch uses: what can be decided without one."""

import pytest
import torch

from classifier.engine.gpu import can_run, check_gpu_is_usable, find_gpu
from classifier.errors import ConfigError

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="tests the behaviour without a GPU")

WHEEL = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (10, 3), (12, 0)])
def test_machine_code_runs_on_the_same_major_version(capability: tuple[int, int]) -> None:
    assert can_run(capability, WHEEL)


@pytest.mark.parametrize("capability", [(3, 7), (6, 1), (7, 0), (13, 0)])
def test_machine_code_runs_on_no_other_major_version(capability: tuple[int, int]) -> None:
    assert not can_run(capability, WHEEL)


def test_intermediate_code_runs_on_later_gpus_only() -> None:
    assert can_run((13, 0), [*WHEEL, "compute_120"])
    assert not can_run((7, 0), ["compute_80"])


@no_gpu
def test_there_is_no_gpu_for_any_rank() -> None:
    assert find_gpu() is None
    assert find_gpu(3) is None


@no_gpu
def test_gpu_that_torch_does_not_see_is_an_error_with_torchs_reason() -> None:
    with pytest.raises(ConfigError, match=r"this host has a GPU, and torch .* can't use it: \S.*CUDA_VISIBLE_DEVICES"):
        check_gpu_is_usable()
