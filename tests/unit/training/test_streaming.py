"""FastFile mode: every file is read from start to end, once an epoch, or once in all while the disk has room."""

import pickle
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from classifier.contract.config import Channel, TrainingConfig
from classifier.contract.hyperparameters import Hyperparameters
from classifier.contract.paths import Paths
from classifier.training.batches import ImageLoader, load_in_order
from classifier.training.console import Console, Progress, StopSignal
from classifier.training.data import Data, list_channels, load_data
from classifier.training.plan import EpochPlan, ShardOrder
from classifier.training.samples import SampleTable
from classifier.training.streaming import LocalCopies
from classifier.vision.preprocessing import Preprocessing
from prepare_data import main as prepare
from support.drawing import write_classes
from support.fastfile import Record, can_mount, mounted

NEEDS_FUSE = pytest.mark.skipif(not can_mount(), reason="needs root and /dev/fuse")
PREPROCESSING = Preprocessing(resize=36, crop=32)
EPOCHS = 2
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 photos of three classes as class folders, and in ``shards`` as tar shards of five."""
    folder = tmp_path_factory.mktemp("data")
    source = write_classes(folder / "photos", photos_per_class=12)
    arguments = [str(source), str(folder / "prepared"), "--shards", "5", "--jobs", "1", "--test", "0"]
    assert prepare(arguments) == 0
    return folder / "prepared"


def load(base: Path, root: Path, executor: Executor, mode: str = "FastFile", copies: LocalCopies | None = None) -> Data:
    """Load the channels ``train`` and ``validation`` of a data folder."""
    paths = Paths(base)
    paths.channel("train").parent.mkdir(parents=True)
    for name in ("train", "validation"):
        paths.channel(name).symlink_to(root / name)
    channels = {name: Channel(training_input_mode=mode) for name in ("train", "validation")}  # pyright: ignore[reportArgumentType]
    parameters = Hyperparameters.parse({})
    progress = Progress(Console(), StopSignal())
    folders = list_channels(TrainingConfig(parameters, channels), paths)
    return load_data(folders, parameters, paths.output_data, executor, progress, copies=copies)


def run_epochs(data: Data, executor: Executor | None) -> None:
    """Read the photos as a training does, in each epoch those of train and of validation."""
    train, validation = (ImageLoader(part, PREPROCESSING, executor=executor) for part in (data.train, data.validation))
    plan = EpochPlan(len(train), 4, seed=0, shards=data.train.shard_order)
    for epoch in range(1, EPOCHS + 1):
        seen = [labels for batch in train.iterate(plan.batches(epoch), seed=0, epoch=epoch) for labels in batch.labels]
        assert Counter(torch.stack(seen).tolist()) == Counter(data.train.labels.tolist())
        assert sum(len(batch.labels) for batch in load_in_order(validation, 4)) == len(validation)


def sizes_of(root: Path) -> dict[str, int]:
    files = (path for name in ("train", "validation") for path in (root / name).rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.stat().st_size for path in files}


def check_sequential(record: Record, sizes: dict[str, int]) -> None:
    """Check that no byte was read twice, nor one before another, each time that a file was opened."""
    for name, opened in record.reads.items():
        for reads in opened:
            ends = [offset + size for offset, size in reads]
            assert [offset for offset, _ in reads] == [0, *ends[:-1]], name
            assert ends[-1] <= sizes[name]


@NEEDS_FUSE
@pytest.mark.parametrize("kind", [".", "shards"])
@pytest.mark.parametrize("has_room", [True, False])
def test_a_mount_is_read_once_or_once_an_epoch(
    prepared: Path, tmp_path: Path, kind: str, has_room: bool, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Three or four photos a window, and more than one window a shard.
    monkeypatch.setattr("classifier.training.samples.ShardOrder", partial(ShardOrder, window_bytes=4000))
    root = prepared / kind
    with mounted(root, tmp_path / "mount") as record, ThreadPoolExecutor(2) as executor:
        data = load(tmp_path / "opt_ml", tmp_path / "mount", executor, copies=None if has_room else LocalCopies(0))
        run_epochs(data, executor)
    sizes = sizes_of(root)
    check_sequential(record, sizes)
    times = 1 if has_room else 1 + EPOCHS
    assert {name: len(opened) for name, opened in record.reads.items()} == {
        name: 1 if name.endswith("classes.txt") else times for name in sizes
    }
    assert set(record.listings.values()) == {1}
    line = capsys.readouterr().out
    assert line.startswith(f"fastfile    {36 if has_room else 0} of 36 photos (0.0 GB) copied to ")
    ending = "as they were checked" if has_room else "; every epoch fetches the others, for which the disk has no room"
    assert line.endswith(f"{ending}\n")


@pytest.fixture
def streamed(prepared: Path, tmp_path: Path) -> Iterator[tuple[Data, Executor]]:
    """Shards in FastFile mode of which some photos have local copies."""
    with ThreadPoolExecutor(2) as executor:
        yield load(tmp_path / "opt_ml", prepared / "shards", executor, copies=LocalCopies(20_000)), executor


def test_photos_are_the_same_from_copies_and_shards(
    prepared: Path, tmp_path: Path, streamed: tuple[Data, Executor]
) -> None:
    data, executor = streamed
    copied = [data.train.copy_of(index) is not None for index in range(len(data.train))]
    assert True in copied
    assert False in copied
    plain = load(tmp_path / "plain", prepared / "shards", executor, mode="File")
    assert plain.train.shard_order is None
    photos = [{sample.name: (sample.label, sample.read()) for sample in one.train} for one in (data, plain)]
    assert photos[0] == photos[1]
    loader = ImageLoader(data.train, PREPROCESSING, executor=executor)
    pixels = torch.cat([batch.inputs for batch in load_in_order(loader, 7)])
    for row, sample in zip(pixels, data.train, strict=True):
        assert np.array_equal(row.permute(1, 2, 0).numpy(), PREPROCESSING.pixels_of(sample.read()))


@pytest.mark.parametrize("threads", [True, False])
def test_an_epoch_goes_on_within_a_window(streamed: tuple[Data, Executor], threads: bool) -> None:
    data, executor = streamed
    order = data.train.shard_order
    assert order is not None
    plan = EpochPlan(len(data.train), 4, seed=3, shards=order)
    loader = ImageLoader(data.train, PREPROCESSING, executor=executor if threads else None)
    whole = [batch.inputs for batch in loader.iterate(plan.batches(2), seed=3, epoch=2)]
    rest = [batch.inputs for batch in loader.iterate(plan.batches(2, start=2), seed=3, epoch=2)]
    assert torch.equal(torch.cat(whole[2:]), torch.cat(rest))


def test_shards_are_permuted_and_samples_shuffled_within_windows() -> None:
    order = ShardOrder(np.arange(0, 1000, 100), np.full(1000, 10), window_bytes=2500)
    orders = [order.order(seed, epoch) for seed, epoch in ((0, 1), (0, 2), (1, 1))]
    for one in orders:
        assert sorted(one.tolist()) == list(range(1000))
        # A window of 250 samples touches four shards at most, and each shard lies in two windows at most.
        windows = one.reshape(4, 250) // 100
        assert all(len(np.unique(window)) <= 4 for window in windows)
        assert (np.diff(one[:250]) != 1).mean() > 0.9
    assert not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])
    assert np.array_equal(order.reading(0, 0)[0], np.arange(1000))


def test_a_selection_keeps_the_bounds_of_its_shards(streamed: tuple[Data, Executor]) -> None:
    train = streamed[0].train
    shards = [sample.name.partition("/")[0] for sample in train]
    assert shards == sorted(shards)
    kept = train.select(np.flatnonzero([shard != shards[0] for shard in shards])[::2][::-1]).in_order_of_shards()
    order = kept.shard_order
    assert order is not None
    names = [sample.name.partition("/")[0] for sample in kept]
    assert [names[start] for start in order.starts] == sorted(set(names))
    assert [len(sample.read()) for sample in kept] == order.sizes.tolist()


def test_copies_end_with_the_room_for_them() -> None:
    copies = LocalCopies(1000)
    assert [copies.add(bytes(size)) for size in (600, 500, 100)] == [0, -1, -1]


def read_all(samples: SampleTable) -> list[tuple[Path, str, int, bytes, bytes]]:
    return [(item.path, item.name, item.label, item.digest, item.read()) for item in samples]


def test_other_processes_of_the_host_read_the_copies_and_other_hosts_the_channel(
    streamed: tuple[Data, Executor], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = streamed[0].train
    pickled = pickle.dumps(train)
    here = pickle.loads(pickled)
    assert here.copy_of(0) == train.copy_of(0) != None  # noqa: E711
    monkeypatch.setattr("socket.gethostname", lambda: "algo-2")
    elsewhere = pickle.loads(pickled)
    assert elsewhere.copy_of(0) is None
    assert read_all(here) == read_all(elsewhere) == read_all(train)
