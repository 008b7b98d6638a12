"""An artifact and an image → a CreateModel request."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from launch.requests.tags import tag_list
from launch.requests.training import NO_NETWORK, Network


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """``data`` is a ``model.tar.gz``, or with ``multi_model`` the prefix under which there are many."""

    name: str
    image: str
    role: str
    data: str
    multi_model: bool = False
    network_isolation: bool = False
    network: Network = NO_NETWORK
    environment: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


def model_request(spec: ModelSpec) -> dict[str, Any]:
    container: dict[str, Any] = {
        "Image": spec.image,
        "Mode": "MultiModel" if spec.multi_model else "SingleModel",
        "ModelDataUrl": spec.data,
    }
    if spec.environment:
        container["Environment"] = dict(spec.environment)
    return {
        "ModelName": spec.name,
        "PrimaryContainer": container,
        "ExecutionRoleArn": spec.role,
        "EnableNetworkIsolation": spec.network_isolation,
        **spec.network.config(),
        "Tags": tag_list(spec.tags),
    }
