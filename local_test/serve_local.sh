#!/bin/sh
# Serves a trained model on this machine; `local_test/serve_local.sh --help` says how.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
output=$root/local_test/opt_ml

usage="usage: local_test/serve_local.sh [--output DIR] [--port PORT]

Runs the image's own program, serve, on what local_test/train_local.sh has trained.
  --output DIR  the folder laid out as /opt/ml, with a model in DIR/model (default: local_test/opt_ml)
  --port PORT   where to listen (default: 8080, or the variable PORT)
Then: local_test/predict.sh PHOTO…, or drop a photo on the page at http://localhost:8080/. Ctrl-C stops it."

while [ $# -gt 0 ]; do
    case $1 in
        --output) output=${2:?"--output needs a folder"}; shift 2 ;;
        --port) PORT=${2:?"--port needs a number"}; shift 2 ;;
        -h | --help) echo "$usage"; exit 0 ;;
        *) echo "serve_local: unknown argument $1" >&2; echo "$usage" >&2; exit 2 ;;
    esac
done
if [ ! -e "$output/model/model.json" ]; then
    echo "serve_local: $output/model holds no model; local_test/train_local.sh trains one" >&2
    exit 1
fi
"$root/scripts/setup.sh"
port=${PORT:-8080}
echo "serving $output/model at http://localhost:$port/ (Ctrl-C stops it)"
SAGEMAKER_BASE_DIR=$output SAGEMAKER_BIND_TO_PORT=$port SERVE_PAGE=${SERVE_PAGE:-1} \
    SERVE_METRICS_PORT=${SERVE_METRICS_PORT:-0} exec "$root/.venv/bin/serve"
