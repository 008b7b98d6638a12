"""The upper bound of serving on this machine: decoding and inference on all cores, without HTTP.

Started by serve.py; prints photos per second. With one thread per core, cores idle while it hands over a photo; with
two they do not.
"""

import argparse
import threading
import time
from pathlib import Path

from classifier.engine.opening import open_engine
from classifier.host import num_cores, tune_malloc
from classifier.vision.manifest import ModelManifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("photo", type=Path)
    parser.add_argument("seconds", type=float)
    parser.add_argument("threads", type=int, help="per core")
    options = parser.parse_args()
    print(measure(options.model, options.photo.read_bytes(), options.seconds, options.threads))


def measure(folder: Path, photo: bytes, seconds: float, threads_per_core: int) -> float:
    """Measure photos per second over ``seconds``."""
    tune_malloc("serving")
    manifest = ModelManifest.read(folder)
    engine = open_engine(folder, manifest)
    counts = [0] * num_cores() * threads_per_core
    end = time.perf_counter() + seconds

    def work(slot: int) -> None:
        while time.perf_counter() < end:
            engine.infer(slot, manifest.preprocessing.pixels_of(photo)[None])
            counts[slot] += 1

    threads = [threading.Thread(target=work, args=(slot,)) for slot in range(len(counts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.close()
    return sum(counts) / seconds


if __name__ == "__main__":
    main()
