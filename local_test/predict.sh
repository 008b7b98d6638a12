#!/bin/sh
# Classifies photos with the server on this machine; see `local_test/predict.sh --help`.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
"$root/scripts/setup.sh"
exec "$root/.venv/bin/python" "$root/scripts/predict_local.py" "$@"
