"""The upload_data command against a real S3 server over HTTP."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from classifier.contract.channels import find_channels
from prepare_data import main as prepare
from support.drawing import draw_photo, encode, write_classes
from support.moto import Proxy, free_port, moto_server, speak_to
from upload_data import main

UPLOAD = Path(__file__).resolve().parents[3] / "scripts" / "upload_data.py"


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """Two channels, three classes, sixteen files."""
    return write(tmp_path / "prepared", 2, {"train": 2, "validation": 1})


def write(folder: Path, num_classes: int, sizes: dict[str, int]) -> Path:
    for split, num in sizes.items():
        for label in range(num_classes):
            (folder / split / f"class {label}").mkdir(parents=True)
            for number in range(num):
                (folder / split / f"class {label}" / f"{number}.jpg").write_bytes(f"{split} {label} {number}".encode())
    return folder


def keys(s3: Any, bucket: str) -> dict[str, int]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", ())}


def test_channels_are_uploaded_and_their_uris_printed(
    s3: Any, bucket: str, prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(prepared), f"s3://{bucket}/some/prefix"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"train=s3://{bucket}/some/prefix/train/",
        f"validation=s3://{bucket}/some/prefix/validation/",
    ]
    assert set(keys(s3, bucket)) == {
        f"some/prefix/{path.relative_to(prepared).as_posix()}" for path in prepared.rglob("*.jpg")
    }


def write_files(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(path.encode())
    return folder


def test_a_prepared_folder_is_uploaded_without_its_report_and_shards(s3: Any, bucket: str, tmp_path: Path) -> None:
    source = write_classes(tmp_path / "photos")
    assert prepare([str(source), str(tmp_path / "prepared"), "--shards", "10", "--jobs", "1"]) == 0
    assert main([str(tmp_path / "prepared"), f"s3://{bucket}"]) == 0
    uploaded = keys(s3, bucket)
    assert len(uploaded) == 24
    assert {key.split("/")[0] for key in uploaded} == {"train", "validation", "test"}


def test_shards_are_uploaded_with_their_class_lists(s3: Any, bucket: str, tmp_path: Path) -> None:
    source = write_classes(tmp_path / "photos")
    assert prepare([str(source), str(tmp_path / "prepared"), "--shards", "10", "--jobs", "1"]) == 0
    assert main([str(tmp_path / "prepared" / "shards"), f"s3://{bucket}"]) == 0
    assert list(keys(s3, bucket)) == [
        *("test/classes.txt", "test/test-000000.tar", "train/classes.txt", "train/train-000000.tar"),
        *("train/train-000001.tar", "validation/classes.txt", "validation/validation-000000.tar"),
    ]
    found = s3.head_object(Bucket=bucket, Key="train/train-000000.tar")
    assert found["ContentType"] == "application/x-tar"


def test_pretrained_weights_are_a_channel(
    s3: Any, bucket: str, prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_files(prepared, "pretrained/weights.safetensors")
    assert main([str(prepared), f"s3://{bucket}"]) == 0
    assert f"pretrained=s3://{bucket}/pretrained/" in capsys.readouterr().out.splitlines()
    assert "pretrained/weights.safetensors" in keys(s3, bucket)


def test_class_folders_are_the_channel_train_even_if_one_is_called_train(
    s3: Any, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vehicles = write_files(tmp_path / "vehicles", "train/1.jpg", "bus/2.jpg", "car/3.jpg", "car/.DS_Store")
    assert main([str(vehicles), f"s3://{bucket}/p"]) == 0
    assert capsys.readouterr().out == f"train=s3://{bucket}/p/train/\n"
    assert set(keys(s3, bucket)) == {"p/train/train/1.jpg", "p/train/bus/2.jpg", "p/train/car/3.jpg"}
    assert find_channels(vehicles) == {"train": vehicles}  # as local training reads the folder


def test_channels_of_other_names_are_uploaded_under_their_own(
    s3: Any, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_files(tmp_path / "source", "Train/a/1.jpg", "val/a/2.jpg", "testing/a/3.jpg")
    assert main([str(source), f"s3://{bucket}"]) == 0
    assert capsys.readouterr().out.split() == [
        f"{name}=s3://{bucket}/{name}/" for name in ("train", "validation", "test")
    ]
    assert set(keys(s3, bucket)) == {"train/a/1.jpg", "validation/a/2.jpg", "test/a/3.jpg"}


def test_a_folder_that_holds_the_class_folders_is_reported(
    s3: Any, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_files(tmp_path / "source", "Dataset/a/1.jpg", "Dataset/b/2.jpg", "Examples/3.jpg")
    assert main([str(source), f"s3://{bucket}", "--dry-run"]) == 0
    assert capsys.readouterr().err.splitlines()[0] == (
        "warning: all photos of 'Dataset' are in subfolders of the class folder, which count as one class; if those "
        f"are the classes, pass {source}/Dataset, which holds 2 photos in 2 class folders"
    )
    assert keys(s3, bucket) == {}


def test_class_folders_beside_channels_are_an_error_and_nothing_is_uploaded(
    s3: Any, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = write_files(tmp_path / "mixed", "train/cat/1.jpg", "bus/2.jpg", "car/3.jpg")
    assert main([str(mixed), f"s3://{bucket}"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(
        f"upload_data: {mixed} contains channels (train/) and other folders beside them (bus/, car/)"
    )
    assert len(output.err.splitlines()) == 1
    assert keys(s3, bucket) == {}


def test_a_channel_of_junk_files_is_empty(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_files(prepared, "pretrained/.DS_Store")
    assert main([str(prepared), "s3://bucket"]) == 1
    assert capsys.readouterr().err == f"upload_data: {prepared}/pretrained is empty: fill it with prepare_data\n"


def test_bytes_checksum_and_content_type_arrive(s3: Any, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "data" / "a").mkdir(parents=True)
    data = encode(draw_photo(), "PNG")
    (tmp_path / "data" / "a" / "Grüße & co.png").write_bytes(data)
    assert main([str(tmp_path / "data"), f"s3://{bucket}"]) == 0
    found = s3.get_object(Bucket=bucket, Key="train/a/Grüße & co.png", ChecksumMode="ENABLED")
    assert (found["Body"].read(), found["ContentType"]) == (data, "image/png")
    assert found["ChecksumCRC32"]


def test_a_second_upload_sends_only_what_changed(
    s3: Any, bucket: str, prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(prepared), f"s3://{bucket}/p"])
    changed = prepared / "train" / "class 0" / "0.jpg"
    changed.write_bytes(changed.read_bytes()[::-1])  # the same size
    capsys.readouterr()
    main([str(prepared), f"s3://{bucket}/p"])
    assert "train: 1 uploaded (9 B), 3 already there" in capsys.readouterr().err
    assert s3.get_object(Bucket=bucket, Key="p/train/class 0/0.jpg")["Body"].read() == changed.read_bytes()


def test_large_files_are_uploaded_in_parts_and_recognised(
    s3: Any, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data" / "train" / "class").mkdir(parents=True)
    (tmp_path / "data" / "train" / "class" / "0.tar").write_bytes(bytes(range(256)) * (40 << 12))
    main([str(tmp_path / "data"), f"s3://{bucket}"])
    assert s3.head_object(Bucket=bucket, Key="train/class/0.tar")["ETag"].endswith('-3"')
    main([str(tmp_path / "data"), f"s3://{bucket}"])
    assert "train: 0 uploaded (0 B), 1 already there" in capsys.readouterr().err


def test_an_object_whose_etag_is_no_md5_is_recognised_by_its_crc(
    s3: Any, bucket: str, prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in prepared.rglob("*.jpg"):
        # Uploaded in parts: the ETag is not the MD5 of the object.
        key = f"p/{path.relative_to(prepared).as_posix()}"
        begun = s3.create_multipart_upload(
            Bucket=bucket, Key=key, ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT"
        )
        part = s3.upload_part(
            Bucket=bucket,
            Key=key,
            UploadId=begun["UploadId"],
            PartNumber=1,
            Body=path.read_bytes(),
            ChecksumAlgorithm="CRC32",
        )
        s3.complete_multipart_upload(
            Bucket=bucket,
            Key=key,
            UploadId=begun["UploadId"],
            MultipartUpload={
                "Parts": [{"ETag": part["ETag"], "PartNumber": 1, "ChecksumCRC32": part["ChecksumCRC32"]}]
            },
        )
    if "ChecksumCRC32" not in s3.head_object(Bucket=bucket, Key="p/train/class 0/0.jpg", ChecksumMode="ENABLED"):
        pytest.skip("this moto keeps no checksum of an object in parts")
    main([str(prepared), f"s3://{bucket}/p"])
    assert "train: 0 uploaded (0 B), 4 already there" in capsys.readouterr().err


def test_objects_are_deleted_only_with_the_option(
    s3: Any, bucket: str, prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(prepared), f"s3://{bucket}/p"])
    for key in ("p/train/class 0/gone.jpg", "p/train/zzz.jpg", "p/trainee/1.jpg", "other/1.jpg"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    capsys.readouterr()
    main([str(prepared), f"s3://{bucket}/p"])
    assert "2 extra objects kept (remove them with --delete)" in capsys.readouterr().err
    main([str(prepared), f"s3://{bucket}/p", "--delete"])
    assert "train: 0 uploaded (0 B), 4 already there, 2 deleted" in capsys.readouterr().err
    left = keys(s3, bucket)
    assert {"p/trainee/1.jpg", "other/1.jpg"} <= left.keys()
    assert not {"p/train/class 0/gone.jpg", "p/train/zzz.jpg"} & left.keys()


def test_a_dry_run_changes_nothing(s3: Any, bucket: str, prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    s3.put_object(Bucket=bucket, Key="train/old.jpg", Body=b"x")
    main([str(prepared), f"s3://{bucket}", "--dry-run", "--delete"])
    output = capsys.readouterr().err
    assert set(keys(s3, bucket)) == {"train/old.jpg"}
    assert f"would delete s3://{bucket}/train/old.jpg" in output
    assert output.count("would upload ") == 6
    assert "train: 4 would be uploaded" in output


def test_a_dry_run_needs_no_credentials(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    speak_to("http://127.0.0.1:9", monkeypatch, tmp_path)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert main([str(prepared), "s3://bucket", "--dry-run", "--delete"]) == 0
    output = capsys.readouterr().err
    assert "not checked: s3://bucket/train: no AWS credentials are set" in output
    assert "train: 4 would be uploaded" in output


def test_keys_are_compared_in_the_order_of_s3(
    s3: Any, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    for location in ("a/1", "a-b/1", "a.b", "a0", "Z/1", "é/1", "日本/1", "\U0001f600", "\uff5e/1", "a/b/c", "a/b.c"):
        (folder / location).parent.mkdir(parents=True, exist_ok=True)
        (folder / location).write_bytes(location.encode())
    main([str(folder), f"s3://{bucket}"])
    main([str(folder), f"s3://{bucket}", "--delete"])
    assert "0 uploaded (0 B), 11 already there\n" in capsys.readouterr().err
    assert len(keys(s3, bucket)) == 11


def test_broken_connections_are_retried(
    s3: Any,
    bucket: str,
    tmp_path: Path,
    aws: pytest.MonkeyPatch,
    s3_url: str,
    breaking_proxy: Callable[[str, int, int], Proxy],
) -> None:
    """Eight connections break in the middle of a request."""
    folder = write(tmp_path / "data", 4, {"train": 50})
    proxy = breaking_proxy(s3_url, 8, 3000)
    aws.setenv("AWS_ENDPOINT_URL", proxy.url)
    assert main([str(folder), f"s3://{bucket}/p", "--jobs", "4"]) == 0
    assert len(keys(s3, bucket)) == 200
    assert proxy.num_connections > 8


def test_a_lost_server_is_reported_and_the_next_run_uploads_the_rest(
    s3: Any,
    bucket: str,
    tmp_path: Path,
    aws: pytest.MonkeyPatch,
    s3_url: str,
    breaking_proxy: Callable[[str, int, int], Proxy],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = write(tmp_path / "data", 4, {"train": 100})
    proxy = breaking_proxy(s3_url, 0, 0)
    aws.setenv("AWS_ENDPOINT_URL", proxy.url)
    aws.setenv("AWS_MAX_ATTEMPTS", "2")
    closer = threading.Thread(target=lambda: (_wait_for_objects(s3, bucket, 40), proxy.close()))
    closer.start()
    assert main([str(folder), f"s3://{bucket}", "--jobs", "2"]) == 1
    closer.join()
    output = capsys.readouterr().err
    assert re.search(
        rf"^upload_data: s3://{bucket}/train: .*check the network, the region and AWS_ENDPOINT_URL$", output
    )
    aws.setenv("AWS_ENDPOINT_URL", s3_url)
    assert main([str(folder), f"s3://{bucket}"]) == 0
    assert len(keys(s3, bucket)) == 400
    assert " 0 already there" not in capsys.readouterr().err


def _wait_for_objects(client: Any, bucket: str, num: int) -> None:
    while len(client.list_objects_v2(Bucket=bucket).get("Contents", ())) < num:
        time.sleep(0.02)


@pytest.mark.usefixtures("aws")
def test_a_missing_bucket_is_reported(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(prepared), "s3://no-such-bucket/p"]) == 1
    assert capsys.readouterr().err == (
        "upload_data: s3://no-such-bucket/p/train: there is no such bucket; "
        "`aws s3 mb` creates one, in the region where the training will run\n"
    )


def test_denied_access_is_reported(aws: pytest.MonkeyPatch, prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """moto checks permissions from the fourth request on: the first three create the user, the key and the bucket."""
    port = free_port()
    aws.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    with moto_server(port, {"INITIAL_NO_AUTH_ACTION_COUNT": "3"}):
        iam = boto3.client("iam")
        iam.create_user(UserName="someone")
        key = iam.create_access_key(UserName="someone")["AccessKey"]
        iam.close()
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="bucket")
        s3.close()
        aws.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        aws.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        assert main([str(prepared), "s3://bucket/p"]) == 1
        assert "s3://bucket/p/train: access is denied: the credentials need s3:ListBucket" in capsys.readouterr().err
        aws.setenv("AWS_ACCESS_KEY_ID", "AKIAWRONG")
        assert main([str(prepared), "s3://bucket/p"]) == 1
        assert "AWS does not know this access key" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no AWS credentials are set: run `aws configure`"),
        (
            {"AWS_PROFILE": "nobody"},
            r"The config profile \(nobody\) could not be found: see `aws configure list-profiles`",
        ),
        (
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_MAX_ATTEMPTS": "1"},
            "check the network, the region and AWS_ENDPOINT",
        ),
    ],
)
def test_wrong_aws_settings_are_reported(
    aws: pytest.MonkeyPatch, prepared: Path, variables: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in variables.items():
        aws.setenv(name, value) if value else aws.delenv(name)
    assert main([str(prepared), "s3://bucket"]) == 1
    output = capsys.readouterr().err
    assert re.search(message, output)
    assert len(output.splitlines()) == 1


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(
    ("folder", "location", "message"),
    [
        ("none", "s3://bucket", "there is no such folder"),
        (".", "bucket/prefix", "is not of the form s3://bucket/prefix"),
        (".", "s3://bucket", "is empty: fill it with prepare_data"),
    ],
)
def test_wrong_arguments_are_reported(
    tmp_path: Path, folder: str, location: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / folder), location]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_thousands_of_files_survive_an_interruption(s3: Any, bucket: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "data", 30, {"train": 100})
    command = [sys.executable, str(UPLOAD), str(folder), f"s3://{bucket}/p"]
    first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while len(s3.list_objects_v2(Bucket=bucket).get("Contents", ())) < 500:
        time.sleep(0.05)
    first.send_signal(2)
    _, output = first.communicate(timeout=60)
    assert (first.returncode, output.splitlines()[-1]) == (
        130,
        "upload_data: stopped; run the same command again to resume",
    )
    second = subprocess.run(command, capture_output=True, text=True, check=True)
    there = int(re.search(r"([\d,]+) already there", second.stderr)[1].replace(",", ""))  # pyright: ignore[reportOptionalSubscript]
    assert 500 <= there < 3000
    assert len(keys(s3, bucket)) == 3000
