#!/bin/sh
# Serve a trained model locally; see `local_test/serve_local.sh --help`.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
"$root/scripts/setup.sh"
exec "$root/.venv/bin/python" "$root/scripts/serve_local.py" "$@"
