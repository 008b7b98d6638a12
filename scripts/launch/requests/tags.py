"""The tag by which everything that these commands make is found again."""

from collections.abc import Mapping

PROJECT_KEY, PROJECT = "project", "image-classifier"


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """The project's own tag, and the caller's, as the SageMaker API wants them."""
    return [{"Key": key, "Value": value} for key, value in {PROJECT_KEY: PROJECT, **tags}.items()]


def is_ours(tags: list[dict[str, str]]) -> bool:
    return {"Key": PROJECT_KEY, "Value": PROJECT} in tags
