#!/bin/sh
# Create or update .venv in the root folder from the hashed requirement files. Needs only Python 3 with venv.
set -eu
# Standard output belongs to the scripts that start with this one.
exec 1>&2
cd "$(dirname "$0")/.."

fits='import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'

find_python() {
    for python in "${PYTHON:-python3}" python3.12 python3.11 python3.13; do
        if "$python" -c "$fits" 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    echo "setup: Python 3.11, 3.12 or 3.13 with venv is required. On Debian and Ubuntu: apt install python3-venv." >&2
    echo "setup: if it is installed under another name: PYTHON=/path/to/python3.12 $0" >&2
    exit 1
}

# The copy is written last, so an interrupted setup is repeated.
if cmp -s tests/requirements.txt .venv/requirements.txt; then
    exit 0
fi
python=$(find_python)
echo "setup: creating .venv with $("$python" --version); the first time, this downloads about 3 GB"
[ -x .venv/bin/python ] && .venv/bin/python -c "$fits" 2>/dev/null || "$python" -m venv --clear .venv

# uv installs in parallel what pip installs sequentially; its hash is in the same file.
sed -n '/^uv==/,/# via/p' tests/requirements.txt >.venv/uv.txt
.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement .venv/uv.txt
mirror=$(.venv/bin/pip config get global.index-url 2>/dev/null || true)
# Like pip, use the machine's certificates, for example those of a corporate proxy.
[ ! -e /etc/ssl/certs/ca-certificates.crt ] || export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-1}"
[ -z "$mirror" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$mirror}"
.venv/bin/uv pip sync --quiet --python .venv/bin/python --require-hashes tests/requirements.txt
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
cp tests/requirements.txt .venv/requirements.txt
