#!/bin/sh
# Serves a trained model on this machine; see `local_test/serve_local.sh --help`.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
"$root/scripts/setup.sh"
exec "$root/.venv/bin/python" "$root/scripts/serve_local.py" "$@"
