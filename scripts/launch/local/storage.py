"""Where data lies, as the API writes it: ``file://`` for this machine, ``s3://`` for the bucket."""

import re
import shutil
import tarfile
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aws.clients import s3_client
from aws.errors import translate_errors
from launch.local.errors import invalid
from launch.local.records import now


def is_local(uri: str) -> bool:
    return uri.startswith("file://")


def folder_of(uri: str, what: str) -> Path:
    """The path that a ``file://`` address names.

    Raises:
        ClientError: it is another kind of address.
    """
    if not is_local(uri):
        raise invalid(f"{what} {uri!r}: on this machine it has to be a folder, file:///…")
    return Path(urllib.parse.unquote(urllib.parse.urlparse(uri).path))


def check_channels(request: Mapping[str, Any]) -> None:
    """
    Raises:
        ClientError: a channel can't be had on this machine, or its folder does not exist.
    """
    for channel in request.get("InputDataConfig", ()):
        name, source = channel["ChannelName"], channel["DataSource"].get("S3DataSource")
        if source is None or source["S3DataType"] != "S3Prefix":
            raise invalid(f"channel {name!r}: on this machine a channel has to be an S3DataSource of type S3Prefix")
        if source.get("S3DataDistributionType") == "ShardedByS3Key":
            raise invalid(f"channel {name!r}: on this machine every host sees every photo: FullyReplicated")
        if is_local(source["S3Uri"]) and not folder_of(source["S3Uri"], name).is_dir():
            raise invalid(f"channel {name!r}: there is no folder {folder_of(source['S3Uri'], name)}")


def fetch_channels(request: Mapping[str, Any], place: Path) -> dict[str, Path]:
    """Names of channels → folders; those in S3 are downloaded to ``place``.

    Raises:
        CloudError: S3 refuses, or has nothing there.
    """
    folders: dict[str, Path] = {}
    for channel in request.get("InputDataConfig", ()):
        name, uri = channel["ChannelName"], channel["DataSource"]["S3DataSource"]["S3Uri"]
        if is_local(uri):
            folders[name] = folder_of(uri, name)
        else:
            folders[name] = place / name
            download(uri, folders[name])
    return folders


def download(uri: str, folder: Path) -> int:
    """Objects under a prefix → files below a folder, as the platform does; how many.

    Raises:
        CloudError: S3 refuses, or has nothing there.
    """
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    # A prefix need not end with a folder's name: what follows its last slash belongs to the files'.
    start = prefix.rpartition("/")[0]
    folder.mkdir(parents=True, exist_ok=True)
    with translate_errors(uri):
        client, num = s3_client(num_connections=1), 0
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", ()):
                if item["Key"].endswith("/"):
                    continue
                path = folder / item["Key"][len(start) :].lstrip("/")
                if not path.resolve().is_relative_to(folder.resolve()):
                    raise invalid(f"s3://{bucket}/{item['Key']} leads out of its channel")
                path.parent.mkdir(parents=True, exist_ok=True)
                client.download_file(bucket, item["Key"], str(path))
                num += 1
    if not num:
        raise invalid(f"no S3 objects found under {uri!r}")
    return num


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
    with translate_errors(uri):
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
