#!/bin/sh
# Classify photos with the local server; see `local_test/predict.sh --help`.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
"$root/scripts/setup.sh"
exec "$root/.venv/bin/python" "$root/scripts/predict_local.py" "$@"
