#!/bin/sh
# Asks the server on this machine about photos; `local_test/predict.sh --help` says how.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
"$root/scripts/setup.sh"
exec "$root/.venv/bin/python" "$root/scripts/predict_local.py" "$@"
