"""Serving on a GPU: the engine's answers, memory, start and concurrency. On a CPU, the same without CUDA graphs."""

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from classifier.contract.hyperparameters import Hyperparameters
from classifier.engine import cuda
from classifier.engine.cuda import BUCKETS, TorchEngine
from classifier.engine.gpu import free_gpu_memory
from classifier.vision import artifact
from classifier.vision.manifest import ClassLabel, ModelManifest
from classifier.vision.models import build, preprocessing_for
from support.gpu import Figures, Target, pixels_of

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

MIB = 1 << 20
FAMILIES = ["resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0", "convnext_tiny", "vit_b_16"]
NUM_CLASSES = 10
Open = Callable[[Path], TorchEngine]


def write(folder: Path, architecture: str, side: int) -> Path:
    """Write an artifact with random weights."""
    torch.manual_seed(0)
    preprocessing = preprocessing_for(architecture, side)
    network = build(architecture, num_classes=NUM_CLASSES, image_size=side).eval()
    names = [f"class-{number}" for number in range(NUM_CLASSES)]
    manifest = ModelManifest(
        architecture=architecture,
        classes=tuple(ClassLabel(folder=name, label=name, class_name=name) for name in names),
        preprocessing=preprocessing,
        hyperparameters=Hyperparameters().model_dump(),
        data_fingerprint="",
        versions={},
    )
    artifact.save(folder, network, manifest)
    return folder


@pytest.fixture(scope="module")
def side(target: Target) -> int:
    return target.size(224, 32)


@pytest.fixture(scope="module")
def resnet(target: Target, side: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    del target
    return write(tmp_path_factory.mktemp("engine") / "resnet18", "resnet18", side)


@pytest.fixture
def open_engine(target: Target) -> Iterator[Open]:
    """Open engines, which are closed at the end."""
    opened: list[TorchEngine] = []

    def open_(folder: Path) -> TorchEngine:
        manifest = ModelManifest.read(folder)
        if target.on_gpu:
            engine = TorchEngine.open(folder, manifest)
        else:
            classifier, _ = artifact.load(folder)
            engine = TorchEngine(classifier, device=target.device, side=manifest.preprocessing.crop, buckets=(1, 4, 16))
        opened.append(engine)
        return engine

    yield open_
    for engine in opened:
        engine.close()


def logits_on_cpu(folder: Path, pixels: np.ndarray) -> np.ndarray:
    classifier, _ = artifact.load(folder)
    with torch.inference_mode():
        parts = torch.from_numpy(pixels).permute(0, 3, 1, 2).split(16)
        return torch.cat([classifier(part) for part in parts]).numpy()


@pytest.mark.parametrize("architecture", FAMILIES)
def test_logits_of_all_sizes_are_the_cpus(
    target: Target, open_engine: Open, side: int, tmp_path: Path, figures: Figures, architecture: str
) -> None:
    folder = write(tmp_path / architecture, architecture, side)
    begun = time.perf_counter()
    engine = open_engine(folder)
    figures.record(f"{architecture}: seconds to ready", time.perf_counter() - begun)
    figures.record(f"{architecture}: engine", engine.name)
    pixels = pixels_of(engine.max_batch, side)
    expected = logits_on_cpu(folder, pixels)
    atol = target.size(0.05, 1e-3) * max(1.0, float(np.abs(expected).max()))
    for number in (*BUCKETS, 3, 7, 33, 1):
        if number <= engine.max_batch:
            for kind in (np.uint8, np.float32):
                logits = engine.infer(number % 2, pixels[:number].astype(kind))
                np.testing.assert_allclose(logits, expected[:number], atol=atol)


def reserved_by(folder: Path, buckets: tuple[int, ...]) -> int:
    """Return the bytes of GPU memory that an engine of these batch sizes adds while it is open."""
    manifest = ModelManifest.read(folder)
    before = free_gpu_memory()
    engine = cuda._owner().submit(_open_with, folder, manifest, buckets).result()
    taken = before - free_gpu_memory()
    engine.close()
    return taken


def _open_with(folder: Path, manifest: ModelManifest, buckets: tuple[int, ...]) -> TorchEngine:
    device = torch.device("cuda", 0)
    torch.backends.cudnn.benchmark = True
    with torch.cuda.stream(cuda._capture_stream(device)):
        classifier, _ = artifact.load(folder, device)
        return TorchEngine(classifier, device=device, side=manifest.preprocessing.crop, buckets=buckets)


@pytest.mark.usefixtures("gpu")
def test_all_graphs_take_little_more_memory_than_the_largest(resnet: Path, figures: Figures) -> None:
    reserved_by(resnet, (1,))  # what CUDA's libraries allocate once
    largest, all_ = reserved_by(resnet, BUCKETS[-1:]), reserved_by(resnet, BUCKETS)
    figures.record("graphs: memory of the largest", largest / MIB, "MiB")
    figures.record("graphs: memory of all ÷ of the largest", all_ / largest)
    assert all_ <= 1.2 * largest


@pytest.mark.usefixtures("gpu")
def test_closed_engines_return_their_memory(open_engine: Open, resnet: Path, figures: Figures) -> None:
    open_engine(resnet).close()  # what CUDA's libraries allocate once
    before = free_gpu_memory()
    for _ in range(20):
        engine = open_engine(resnet)
        engine.infer(0, pixels_of(3, 224))
        engine.close()
    lost = (before - free_gpu_memory()) / MIB
    figures.record("graphs: memory lost in 20 openings", lost, "MiB")
    assert lost < 50


def test_mixed_requests_on_both_slots_get_their_own_answers(
    target: Target, open_engine: Open, resnet: Path, side: int, figures: Figures
) -> None:
    engine = open_engine(resnet)
    pixels = pixels_of(engine.max_batch, side)
    expected = {kind: engine.infer(0, pixels.astype(kind)) for kind in (np.uint8, np.float32)}
    atol = target.size(0.05, 1e-3)

    def run(slot: int) -> int:
        chosen, photos = random.Random(slot), 0
        for _ in range(target.size(5000, 20)):
            number = chosen.randint(1, engine.max_batch)
            start = chosen.randint(0, engine.max_batch - number)
            kind = np.float32 if chosen.random() < 0.1 else np.uint8
            logits = engine.infer(slot, pixels[start : start + number].astype(kind))
            np.testing.assert_allclose(logits, expected[kind][start : start + number], atol=atol)
            photos += number
        return photos

    begun = time.perf_counter()
    with ThreadPoolExecutor(2) as slots:
        photos = sum(slots.map(run, range(2)))
    figures.record("engine: mixed requests on two slots", photos / (time.perf_counter() - begun), "photos/s")


def test_models_are_loaded_while_another_serves(
    target: Target, open_engine: Open, resnet: Path, side: int, figures: Figures
) -> None:
    engine = open_engine(resnet)
    pixels = pixels_of(4, side)
    expected = engine.infer(0, pixels)
    loading = True
    slowest = 0.0

    def serve(slot: int) -> int:
        nonlocal slowest
        answers = 0
        while loading or not answers:
            begun = time.perf_counter()
            np.testing.assert_allclose(engine.infer(slot, pixels), expected, atol=target.size(0.05, 1e-3))
            slowest = max(slowest, time.perf_counter() - begun)
            answers += 1
        return answers

    with ThreadPoolExecutor(2) as slots:
        serving = [slots.submit(serve, slot) for slot in range(2)]
        try:
            for _ in range(target.size(50, 2)):
                other = open_engine(resnet)
                np.testing.assert_allclose(other.infer(0, pixels), expected, atol=target.size(0.05, 1e-3))
                other.close()
        finally:
            loading = False
        answers = sum(one.result() for one in serving)
    figures.record("engine: answers during 50 loads of another model", answers)
    figures.record("engine: slowest of them", slowest, "s")


def test_float_tensors_of_any_number_are_quick(
    target: Target, open_engine: Open, resnet: Path, side: int, figures: Figures
) -> None:
    engine = open_engine(resnet)
    pixels = pixels_of(engine.max_batch, side, np.float32)
    numbers = range(1, engine.max_batch + 1)
    # Each number's first time, too: a search for algorithms at each new number would show here.
    seconds = []
    for number in [*numbers, *numbers, *numbers, *numbers]:
        begun = time.perf_counter()
        engine.infer(0, pixels[:number])
        seconds.append(time.perf_counter() - begun)
    median, p99 = np.median(seconds), np.percentile(seconds, 99)
    figures.record("engine: float tensors, median", float(median) * 1e3, "ms")
    figures.record("engine: float tensors, p99 ÷ median", float(p99 / median))
    if target.on_gpu:
        assert p99 < 3 * median
