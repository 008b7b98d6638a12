"""The image's repository in ECR: creation, login, and checks of what was pushed."""

import base64
import json
import re
import shutil
import subprocess
import urllib.request
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from aws.errors import UnreachableError, translate_errors
from classifier.errors import ConfigError
from launch.platform.resources import tag_list

_MANIFESTS = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
)
_INDEXES = (
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.index.v1+json",
)


_URI = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/"
    r"(?P<name>[a-z0-9._/-]+?)(?:@(?P<digest>sha256:[0-9a-f]+)|:(?P<tag>[\w.-]+))?"
)


@dataclass(frozen=True)
class ImageUri:
    """The address of an image in ECR, taken apart.

    Attributes:
        account: the registry's account, 12 digits.
        name: the repository's name.
        tag: the tag; ``latest`` without one.
        digest: the digest, which takes precedence.
    """

    account: str
    region: str
    name: str
    tag: str
    digest: str | None = None

    @classmethod
    def parse(cls, uri: str) -> "ImageUri":
        """Take an address apart.

        Raises:
            ConfigError: it is not an address in ECR, from which SageMaker takes images.
        """
        found = _URI.fullmatch(uri)
        if not found:
            raise ConfigError(
                f"{uri} is not in ECR: SageMaker needs ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME:TAG, which "
                "scripts/build_and_push.sh prints"
            )
        return cls(found["account"], found["region"], found["name"], found["tag"] or "latest", found["digest"])

    def __str__(self) -> str:
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"


def repository_request(name: str) -> dict[str, Any]:
    """Return the CreateRepository request: images are scanned on push, and tags are immutable."""
    return {
        "repositoryName": name,
        "imageTagMutability": "IMMUTABLE",
        "imageScanningConfiguration": {"scanOnPush": True},
        "tags": tag_list({}),
    }


def ensure_repository(ecr: Any, name: str) -> str:
    """Create the repository unless it exists, and return its URI, ``ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME``.

    Raises:
        CloudError: ECR refused a request.
    """
    with translate_errors(f"ECR repository {name}"):
        try:
            return ecr.describe_repositories(repositoryNames=[name])["repositories"][0]["repositoryUri"]
        except ecr.exceptions.RepositoryNotFoundException:
            return ecr.create_repository(**repository_request(name))["repository"]["repositoryUri"]


def find_digest(ecr: Any, name: str, tag: str) -> str | None:
    """Return the digest of the image with a tag, or None if there is no such tag.

    Raises:
        CloudError: ECR refused the request.
    """
    with translate_errors(f"ECR repository {name}"):
        try:
            found = ecr.describe_images(repositoryName=name, imageIds=[{"imageTag": tag}])["imageDetails"]
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "ImageNotFoundException":
                return None
            raise
    return found[0]["imageDigest"] if found else None


def check_image(ecr: Any, uri: ImageUri) -> str:
    """Check that SageMaker can run a pushed image: one manifest, not an index of several, for linux/amd64.

    Returns:
        The manifest's media type.

    Raises:
        CloudError: ECR refused a request, or can't be asked.
        ConfigError: there is no such image, or SageMaker would refuse it.
    """
    repository = {"registryId": uri.account, "repositoryName": uri.name}
    with translate_errors(f"ECR repository {uri.name}"):
        wanted = [*_MANIFESTS, *_INDEXES]
        reference = {"imageDigest": uri.digest} if uri.digest else {"imageTag": uri.tag}
        try:
            images = ecr.batch_get_image(**repository, imageIds=[reference], acceptedMediaTypes=wanted)["images"]
        except ecr.exceptions.RepositoryNotFoundException:
            images = []
        if not images:
            raise ConfigError(f"{uri} is not in ECR: push it with scripts/build_and_push.sh, which prints its address")
        image = images[0]
        manifest = json.loads(image["imageManifest"])
        media_type = image.get("imageManifestMediaType") or manifest.get("mediaType")
        if media_type not in _MANIFESTS:
            raise ConfigError(
                f"{uri} is pushed as {media_type}, which SageMaker refuses: build it with "
                "scripts/build_and_push.sh, and push it as another TAG"
            )
        digest = manifest["config"]["digest"]
        url = ecr.get_download_url_for_layer(**repository, layerDigest=digest)["downloadUrl"]
    config = _read_json(url)
    if (config.get("os"), config.get("architecture")) != ("linux", "amd64"):
        raise ConfigError(
            f"{uri} is an image for {config.get('os')}/{config.get('architecture')}, and SageMaker runs "
            f"linux/amd64: build it with scripts/build_and_push.sh, and push it as another TAG"
        )
    return media_type


def _read_json(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            return json.load(response)
    except OSError as error:
        raise UnreachableError(f"the image's configuration can't be read: {error}") from None


def log_in(ecr: Any) -> None:
    """Log Docker in to the registry; the login lasts twelve hours.

    Raises:
        CloudError: ECR refused the request.
        ConfigError: ``docker login`` failed.
    """
    with translate_errors("ECR login"):
        token = ecr.get_authorization_token()["authorizationData"][0]
    user, _, password = base64.b64decode(token["authorizationToken"]).decode().partition(":")
    command = ["docker", "login", "--username", user, "--password-stdin", token["proxyEndpoint"]]
    run_docker(command, text=password)


def run_docker(command: list[str], *, text: str | None = None) -> None:
    """Run Docker, or the command that builds the image with it, with its output on standard error.

    Args:
        text: standard input.

    Raises:
        ConfigError: Docker is not installed, or the command failed.
    """
    if shutil.which("docker") is None:
        raise ConfigError("command 'docker' not found, which builds the image: install Docker")
    done = subprocess.run(command, check=False, input=text, text=True, stdout=2)
    if done.returncode:
        raise ConfigError(f"{' '.join(command[:2])} failed with exit code {done.returncode}; its output is above")
