"""Steps of a training on a GPU: nothing waits, nothing idles."""

import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import islice, repeat

import pytest
import torch

from classifier.callbacks import Callback
from classifier.training.augmentation import PRESETS
from classifier.training.batches import load_in_order
from classifier.training.loop import evaluate
from classifier.training.precision import Precision, tune_for_training
from classifier.training.stages import LoaderConfig
from classifier.vision.preprocessing import Preprocessing
from support.gpu import Figures, Target, build_trainer, images_per_s, real_batches, synthetic_batch

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


@pytest.fixture(autouse=True)
def tuned(target: Target) -> None:
    """The settings of a training's process."""
    tune_for_training(Precision(target.device, "fp32"))


@pytest.fixture
def no_waiting(gpu: Target) -> Iterator[None]:
    """Make every operation that waits for the GPU an error; tests switch it on."""
    yield
    torch.cuda.set_sync_debug_mode("default")
    gpu.synchronize()


# 2. No synchronization.


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.usefixtures("no_waiting")
def test_no_step_waits_for_the_gpu(gpu: Target, executor: Executor, threads: int, preset: str, precision: str) -> None:
    trainer = build_trainer(gpu, "mobilenet_v2", precision, preset=preset, optimizer="adamw")
    batches = real_batches(gpu, gpu.samples(executor), executor, threads, 32, preset)
    trainer.module.train()
    for number, batch in enumerate(islice(batches, 23)):
        if number == 3:  # algorithms and optimizer state exist by then
            torch.cuda.set_sync_debug_mode("error")
        trainer._train_step(batch, Callback(), len(batch.labels))


@pytest.mark.usefixtures("no_waiting")
def test_no_batch_of_an_evaluation_waits_for_the_gpu(gpu: Target, executor: Executor, threads: int) -> None:
    trainer = build_trainer(gpu, "mobilenet_v2", "bf16")
    loading = LoaderConfig(
        preprocessing=Preprocessing(resize=256, crop=224),
        batch_size=32,
        executor=executor,
        num_workers=threads,
        pin=True,
    )
    samples = gpu.samples(executor, "validation", at_most=160)
    batches = list(load_in_order(loading.images(samples), 32))
    scores = evaluate(
        trainer.module,
        batches,
        num_classes=10,
        precision=trainer.precision,
        # From the second batch on: cuDNN's algorithms are found in the first.
        advance=lambda: torch.cuda.set_sync_debug_mode("error"),
    )
    torch.cuda.set_sync_debug_mode("default")
    assert int(scores.result().confusion.sum()) == len(samples)


@pytest.mark.usefixtures("no_waiting")
def test_waiting_would_be_noticed(gpu: Target) -> None:
    value = torch.ones((), device=gpu.device)
    torch.cuda.set_sync_debug_mode("error")
    with pytest.raises(RuntimeError, match="synchroniz"):
        value.item()


# 3. The scaling of fp16's loss.


def test_fp16_skips_few_steps(gpu: Target, executor: Executor, threads: int, figures: Figures) -> None:
    trainer = build_trainer(gpu, "mobilenet_v2", "fp16", optimizer="adamw")
    batches = real_batches(gpu, gpu.samples(executor), executor, threads, 32)
    trainer.module.train()
    skipped, scale = 0, trainer.scaler.get_scale()
    for batch in islice(batches, 200):
        trainer._train_step(batch, Callback(), len(batch.labels))
        before, scale = scale, trainer.scaler.get_scale()
        skipped += scale < before
    figures.record("fp16: skipped steps of 200", skipped)
    assert skipped < 10
    assert torch.isfinite(trainer.loss)


# 4. Rates.


@pytest.mark.parametrize("batch_size", [32, 256])
@pytest.mark.parametrize("architecture", ["resnet18", "resnet50", "mobilenet_v2"])
def test_rates_of_steps(
    target: Target, executor: Executor, threads: int, figures: Figures, architecture: str, batch_size: int
) -> None:
    steps, size = target.size(40, 1), target.size(batch_size, 2)
    batch = synthetic_batch(target, size)

    def synthetic(precision: str, *, channels_last: bool = True) -> float:
        trainer = build_trainer(target, architecture, precision, channels_last=channels_last)
        return images_per_s(target, trainer, repeat(batch), steps, warm_ups=target.size(5, 1))

    name = f"{architecture}, batch {batch_size}"
    fastest = synthetic("bf16")
    figures.record(f"{name}: synthetic, bf16", fastest, "photos/s")
    figures.record(f"{name}: bf16 ÷ fp32", fastest / synthetic("fp32"))
    figures.record(f"{name}: channels last ÷ NCHW", fastest / synthetic("bf16", channels_last=False))
    trainer = build_trainer(target, architecture, "bf16")
    batches = real_batches(target, target.samples(executor, at_most=target.size(None, 8)), executor, threads, size)
    real = images_per_s(target, trainer, batches, steps, warm_ups=target.size(5, 1))
    figures.record(f"{name}: from files", real, "photos/s")
    figures.record(f"{name}: from files ÷ synthetic", real / fastest)
    figures.record(f"{name}: share of waiting for data", max(0.0, 1 - real / fastest))
    if target.on_gpu and architecture == "resnet50":
        assert real / fastest >= 0.95


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50", "mobilenet_v2"])
def test_rate_of_the_largest_batch(gpu: Target, figures: Figures, architecture: str) -> None:
    largest, rate, size = 0, 0.0, 512
    while size <= 4096:
        try:
            trainer = build_trainer(gpu, architecture, "bf16")
            rate = images_per_s(gpu, trainer, repeat(synthetic_batch(gpu, size)), 5, warm_ups=2)
        except torch.OutOfMemoryError:
            break
        largest, size = size, 2 * size
    figures.record(f"{architecture}: largest batch up to 4,096", largest)
    figures.record(f"{architecture}: synthetic, bf16, largest batch", rate, "photos/s")
    assert largest >= 512


# 5. Decoding.


@pytest.mark.parametrize("count", [1, 2, 4, 8, 16])
def test_rate_of_decoding(target: Target, executor: Executor, figures: Figures, threads: int, count: int) -> None:
    if count > threads:
        pytest.skip(f"{threads} cores")
    samples = target.samples(executor, at_most=target.size(None, 64))
    with ThreadPoolExecutor(count) as decoders:
        batches = real_batches(target, samples, decoders, count, 64)
        next(batches)
        number, begun = target.size(20, 1), time.perf_counter()
        images = sum(len(batch.labels) for batch in islice(batches, number))
        seconds = time.perf_counter() - begun
        batches.close()  # pyright: ignore[reportAttributeAccessIssue] - a generator
    figures.record(f"decoding with {count} threads", images / seconds, "photos/s")
    assert images > 0


def test_rate_of_decoding_in_hardware(gpu: Target, figures: Figures) -> None:
    from torchvision.io import decode_jpeg  # noqa: PLC0415

    paths = sorted((gpu.photos / "train").glob("*/*.jpg"))[:512]
    encoded = [torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8) for path in paths]
    try:
        decode_jpeg(encoded[:8], device=gpu.device)
    except RuntimeError as error:
        pytest.skip(f"no nvJPEG: {error}")
    gpu.synchronize()
    begun = time.perf_counter()
    images = decode_jpeg(encoded, device=gpu.device)
    gpu.synchronize()
    figures.record("nvJPEG, batches of 512", len(images) / (time.perf_counter() - begun), "photos/s")
    assert len(images) == len(encoded)
