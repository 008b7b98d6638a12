"""What the hosts of a job left → ``model.tar.gz``, ``output.tar.gz``, saved tensors and profiles, final metrics."""

import re
import shutil
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.cloud import explained, s3_client
from launch.local.addresses import folder_of, is_local
from launch.local.records import now

_FAILURE_LENGTH = 1024


def pack(folders: Sequence[Path], archive: Path) -> bool:
    """The folders of all hosts, merged into one archive; nothing, and False, where they are empty."""
    entries = [(entry, entry.relative_to(folder)) for folder in folders for entry in _entries(folder)]
    if not entries:
        return False
    archive.parent.mkdir(parents=True, exist_ok=True)
    unfinished = archive.with_suffix(".part")
    names: set[Path] = set()
    with tarfile.open(unfinished, "w:gz", compresslevel=1) as packed:
        for entry, name in entries:
            if name not in names:
                packed.add(entry, str(name), recursive=False)
            names.add(name)
    unfinished.replace(archive)
    return True


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*")) if folder.is_dir() else []


def deliver(archive: Path, output: str, job: str) -> str:
    """Where an archive lies in the end: below ``S3OutputPath``, as on the platform.

    Raises:
        CloudError: S3 refuses it.
    """
    uri = f"{output.rstrip('/')}/{job}/output/{archive.name}"
    if is_local(output):
        target = folder_of(output, "S3OutputPath") / job / "output" / archive.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(archive, target)
        return target.as_uri()
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    with explained(uri):
        s3_client(num_connections=1).upload_file(str(archive), bucket, key)
    return uri


def deliver_folder(folders: Iterable[Path], output: str | None, job: str, name: str) -> None:
    """Tensors and profiles, below their own output path; all hosts' together. On this machine only."""
    if output is None or not is_local(output):
        return
    for folder in folders:
        if folder.is_dir():
            shutil.copytree(folder, folder_of(output, name) / job / name, dirs_exist_ok=True)


def failure_reason(bases: Iterable[Path], codes: Mapping[str, int]) -> str:
    """The first failure file, of which the platform shows 1,024 characters."""
    for base in bases:
        path = base / "output" / "failure"
        if path.is_file():
            return path.read_text(encoding="utf-8", errors="replace").strip()[:_FAILURE_LENGTH]
    failed = ", ".join(f"{host} ended with exit code {code}" for host, code in codes.items() if code)
    return f"AlgorithmError: {failed}; it left no output/failure, so see its log"


def final_metrics(logs: Iterable[Path], definitions: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """The last value of each metric that the logs tell, as ``FinalMetricDataList``."""
    values: dict[str, float] = {}
    text = "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in logs)
    for definition in definitions:
        found = re.findall(definition["Regex"], text)
        if found:
            values[definition["Name"]] = float(found[-1] if isinstance(found[-1], str) else found[-1][0])
    return [{"MetricName": name, "Value": value, "Timestamp": now()} for name, value in values.items()]
