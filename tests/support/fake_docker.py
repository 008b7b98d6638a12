"""A program in place of ``docker`` that registers a manifest with ECR instead of pushing an image."""

import json
from pathlib import Path

# Logs its arguments, and for `docker push` puts an image into ECR.
DOCKER = """#!/bin/sh
echo "$*" >> "{folder}/calls"
case "$1" in
login) cat > "{folder}/password" ;;
push)
    repository=${{2##*/}}
    exec {python} - "${{repository%:*}}" "${{repository##*:}}" <<'END'
import sys, boto3
boto3.client("ecr").put_image(
    repositoryName=sys.argv[1],
    imageTag=sys.argv[2],
    imageManifest=open("{folder}/manifest").read(),
)
END
    ;;
esac
"""


def write_manifest(folder: Path, media_type: str) -> None:
    """Set what the fake Docker pushes."""
    manifest = {"schemaVersion": 2, "mediaType": media_type, "config": {"digest": f"sha256:{'0' * 64}"}}
    (folder / "manifest").write_text(json.dumps(manifest), encoding="utf-8")
