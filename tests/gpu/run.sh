#!/usr/bin/env bash
# The GPU checks with the Python named by PYTHON, or python3: tests/gpu/run.sh [options of pytest]
# Packages that it lacks come from .gpu/wheels, which prepare.py collects. The figures go to .bench/gpu.json or the file
# named by GPU_FIGURES.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-python3}
if [[ -d .gpu/wheels ]] && ! "$python" -c 'import pydantic, plotly, pynvml' 2>/dev/null; then
  # Unpacked rather than installed: the machine's Python may be without pip, and stays as it is.
  rm -rf .gpu/site
  for wheel in .gpu/wheels/*.whl; do
    "$python" -m zipfile -e "$wheel" .gpu/site
  done
  export PYTHONPATH="$PWD/.gpu/site${PYTHONPATH:+:$PYTHONPATH}"
fi
exec "$python" -m pytest -c tests/gpu/pytest.ini --confcutdir tests/gpu tests/gpu "$@"
