#!/bin/sh
# Train locally; see `local_test/train_local.sh --help`.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
"$root/scripts/setup.sh"
exec "$root/.venv/bin/python" "$root/scripts/train_local.py" "$@"
