#!/bin/sh
# Build the image and push it to ECR; see `scripts/build_and_push.sh --help`.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
"$root/scripts/setup.sh"
exec "$root/.venv/bin/python" "$root/scripts/build_and_push.py" "$@"
