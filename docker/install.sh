#!/bin/sh
# Install one list of requirements as a tree of its own, without what the image doesn't use:
#   install.sh LIST [OPTION of slim.py]…
set -eu
list=$1
shift
tree=/packages/$list
pip install --quiet --disable-pip-version-check --root-user-action ignore --no-cache-dir --no-compile --no-deps \
    --only-binary :all: --require-hashes --target "$tree" --requirement "/tmp/$list.txt"
# Console scripts: the image starts nothing but its own two programs.
rm -rf "$tree/bin"
python /tmp/slim.py "$tree" "$@"
# Bytecode is compiled once instead of at every start; unchecked, because COPY changes the modification times.
PYTHONHASHSEED=0 python -m compileall -q -j 0 --invalidation-mode unchecked-hash \
    -s "$tree" -p /opt/venv/lib/python3.11/site-packages "$tree"
