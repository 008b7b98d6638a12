"""The image's repository in ECR: made if there is none, logged in to, and what lies in it."""

import base64
import subprocess
from typing import Any

from botocore.exceptions import ClientError

from aws.errors import explained
from classifier.errors import ConfigError
from launch.platform.resources import tag_list


def repository_request(name: str) -> dict[str, Any]:
    """CreateRepository: scanned on push, and a tag stays what it is."""
    return {
        "repositoryName": name,
        "imageTagMutability": "IMMUTABLE",
        "imageScanningConfiguration": {"scanOnPush": True},
        "tags": tag_list({}),
    }


def ensure_repository(ecr: Any, name: str) -> str:
    """The repository's URI, ``ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME``.

    Raises:
        CloudError: ECR refuses.
    """
    with explained(f"ECR repository {name}"):
        try:
            return ecr.describe_repositories(repositoryNames=[name])["repositories"][0]["repositoryUri"]
        except ecr.exceptions.RepositoryNotFoundException:
            return ecr.create_repository(**repository_request(name))["repository"]["repositoryUri"]


def find_digest(ecr: Any, name: str, tag: str) -> str | None:
    """The digest of what a tag names, or None where there is no such tag.

    Raises:
        CloudError: ECR refuses.
    """
    with explained(f"ECR repository {name}"):
        try:
            found = ecr.describe_images(repositoryName=name, imageIds=[{"imageTag": tag}])["imageDetails"]
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "ImageNotFoundException":
                return None
            raise
    return found[0]["imageDigest"] if found else None


def log_in(ecr: Any) -> None:
    """Log this machine's Docker in to the registry, for twelve hours.

    Raises:
        CloudError: ECR refuses.
        ConfigError: Docker does.
    """
    with explained("ECR login"):
        token = ecr.get_authorization_token()["authorizationData"][0]
    user, _, password = base64.b64decode(token["authorizationToken"]).decode().partition(":")
    command = ["docker", "login", "--username", user, "--password-stdin", token["proxyEndpoint"]]
    run_docker(command, text=password)


def run_docker(command: list[str], *, text: str | None = None) -> None:
    """Run Docker; what it prints goes to standard error.

    Raises:
        ConfigError: there is no Docker, or it fails.
    """
    try:
        done = subprocess.run(command, check=False, input=text, text=True, stdout=2)
    except FileNotFoundError:
        raise ConfigError("the image needs Docker, and there is no command 'docker': install it") from None
    if done.returncode:
        raise ConfigError(f"{' '.join(command[:2])} failed with exit code {done.returncode}; its output is above")
