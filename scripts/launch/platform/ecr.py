"""The image's repository in ECR: creation, login, image digests."""

import base64
import subprocess
from typing import Any

from botocore.exceptions import ClientError

from aws.errors import translate_errors
from classifier.errors import ConfigError
from launch.platform.resources import tag_list


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
