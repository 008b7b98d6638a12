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
import json, os, sys, urllib.request
image = dict(repositoryName=sys.argv[1], imageTag=sys.argv[2], imageManifest=open("{folder}/manifest").read())
# boto3 would take a second to import; moto reads the service from the signature, and does not check it.
headers = {{
    "Content-Type": "application/x-amz-json-1.1",
    "X-Amz-Target": "AmazonEC2ContainerRegistry_V20150921.PutImage",
    "Authorization": "AWS4-HMAC-SHA256 Credential=testing/20200101/us-east-1/ecr/aws4_request, "
    "SignedHeaders=host, Signature=0",
}}
request = urllib.request.Request(os.environ["AWS_ENDPOINT_URL"], json.dumps(image).encode(), headers)
urllib.request.urlopen(request, timeout=60).close()
END
    ;;
esac
"""


def write_manifest(folder: Path, media_type: str) -> None:
    """Set what the fake Docker pushes."""
    manifest = {"schemaVersion": 2, "mediaType": media_type, "config": {"digest": f"sha256:{'0' * 64}"}}
    (folder / "manifest").write_text(json.dumps(manifest), encoding="utf-8")
