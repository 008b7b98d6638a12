#!/bin/sh
# Build the image from this checkout and label it with what it contains:
#   docker/build.sh NAME [OPTION of docker build]…
set -eu
cd "$(dirname "$0")/.."
name=$1
shift
# SageMaker refuses an index of manifests, which attestations make of an image.
export BUILDX_NO_DEFAULT_ATTESTATIONS=1

# The pinned base image, or what this machine has under its name where no registry can be reached.
base=$(sed -n 's/^ARG BASE_IMAGE=//p' docker/Dockerfile)
if ! docker image inspect "$base" >/dev/null 2>&1 && ! docker pull --platform linux/amd64 "$base" >/dev/null 2>&1; then
    base=${base%@*}
    echo "build: the pinned base image can't be pulled; the base is this machine's $base" >&2
fi
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
if [ "$revision" != unknown ] && [ -n "$(git status --porcelain -- container/classifier docker .dockerignore)" ]; then
    revision=$revision-dirty
fi
docker build --platform linux/amd64 --tag "$name" --file docker/Dockerfile --build-arg "BASE_IMAGE=$base" \
    --build-arg "REVISION=$revision" "$@" .

run() { docker run --rm --platform linux/amd64 --network none "$name" "$@"; }
list='from importlib.metadata import distributions
print(*sorted(f"{one.name.lower()}=={one.version}" for one in distributions()), sep="\n")'
echo "FROM $name" | docker build --quiet --platform linux/amd64 --tag "$name" \
    --label "image-classifier.requirements=$(run python -c "$list")" \
    --label "image-classifier.openapi=$(run serve --openapi)" - >/dev/null
