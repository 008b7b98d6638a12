"""The image's repository in ECR: creation, login, and checks of what was pushed."""

import base64
import json
import subprocess
import urllib.request
from typing import Any

from botocore.exceptions import ClientError

from aws.errors import UnreachableError, translate_errors
from classifier.errors import ConfigError
from launch.platform.resources import tag_list

# One manifest for SageMaker's hosts: without the second, an engine with the containerd store pushes an OCI index.
BUILD_OPTIONS = ("--platform=linux/amd64", "--provenance=false")
_MANIFESTS = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
)
_INDEXES = (
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.index.v1+json",
)


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


def check_image(ecr: Any, name: str, tag: str) -> None:
    """Check that SageMaker can run a pushed image: one manifest, not an index of several, for linux/amd64.

    Raises:
        CloudError: ECR refused a request, or can't be asked.
        ConfigError: SageMaker would refuse the image.
    """
    with translate_errors(f"ECR repository {name}"):
        wanted = [*_MANIFESTS, *_INDEXES]
        answer = ecr.batch_get_image(repositoryName=name, imageIds=[{"imageTag": tag}], acceptedMediaTypes=wanted)
        image = answer["images"][0]
        manifest = json.loads(image["imageManifest"])
        media_type = image.get("imageManifestMediaType") or manifest.get("mediaType")
        if media_type not in _MANIFESTS:
            raise ConfigError(
                f"{name}:{tag} is pushed as {media_type}, which SageMaker refuses: build it with "
                f"{' '.join(BUILD_OPTIONS)}, and push it as another TAG"
            )
        digest = manifest["config"]["digest"]
        url = ecr.get_download_url_for_layer(repositoryName=name, layerDigest=digest)["downloadUrl"]
    config = _read_json(url)
    if (config.get("os"), config.get("architecture")) != ("linux", "amd64"):
        raise ConfigError(
            f"{name}:{tag} is an image for {config.get('os')}/{config.get('architecture')}, and SageMaker runs "
            f"linux/amd64: build it with {BUILD_OPTIONS[0]}, and push it as another TAG"
        )


def _read_json(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            return json.load(response)
    except OSError as error:
        raise UnreachableError(f"the image's configuration can't be read: {error}") from None


def build_options() -> list[str]:
    """Return those of :data:`BUILD_OPTIONS` that this machine's Docker knows; all if there is none to ask."""
    try:
        done = subprocess.run(["docker", "build", "--help"], check=False, capture_output=True, text=True)
    except FileNotFoundError:
        return list(BUILD_OPTIONS)
    return [option for option in BUILD_OPTIONS if option.partition("=")[0] in done.stdout]


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
    """Run Docker with its output on standard error.

    Args:
        text: standard input.

    Raises:
        ConfigError: Docker is not installed, or the command failed.
    """
    try:
        done = subprocess.run(command, check=False, input=text, text=True, stdout=2)
    except FileNotFoundError:
        raise ConfigError("command 'docker' not found, which builds the image: install Docker") from None
    if done.returncode:
        raise ConfigError(f"{' '.join(command[:2])} failed with exit code {done.returncode}; its output is above")
