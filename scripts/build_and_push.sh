#!/bin/sh
# Builds the image and pushes it to ECR; `scripts/build_and_push.sh --help` says how.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
"$root/scripts/setup.sh"
exec "$root/.venv/bin/python" "$root/scripts/build_and_push.py" "$@"
