.PHONY: setup check test test-gate test-all image test-docker test-gpu mutations measures bench-train bench-serve fuzz-serve \
	soak-serve bench-debugger bench-profiler bench-memory fix lock readme
bin := .venv/bin
# One more than there are cores: a third of a run is spent waiting for processes that the tests start.
workers := $(shell expr $$(nproc) + 1)
pytest := $(bin)/pytest -n $(workers) --dist worksteal

setup:  ## create .venv or update it
	scripts/setup.sh

check: setup  ## style, types, and which package may import which
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/pyright
	PYTHONPATH=scripts $(bin)/lint-imports --no-logo

test: .venv/compiled  ## the default suite
	$(pytest) -m "not slow and not docker"

test-gate: .venv/compiled  ## the slow tests that CI runs: README's commands, photos to predictions, the SDK, accuracy
	$(bin)/pytest -n 2 --dist worksteal -m "gate and not docker"

test-all: .venv/compiled  ## the default suite and all slow tests
	$(pytest) -m "not docker"

# Where PYTHONDONTWRITEBYTECODE is set, every process started by a test would compile thousands of modules again.
.venv/compiled: tests/requirements.txt | setup
	-$(bin)/python -m compileall -qq -j 0 .venv/lib
	touch $@

image:  ## the image, with pretrained weights; BAKED_WEIGHTS= builds it without access to torchvision's hub
	docker/build.sh image-classifier \
		$(if $(filter undefined,$(origin BAKED_WEIGHTS)),,--build-arg BAKED_WEIGHTS="$(BAKED_WEIGHTS)")

test-docker: setup  ## the image in a real Docker engine; IMAGE names an existing one
	$(bin)/pytest -m docker tests/docker

test-gpu: setup  ## the checks on a GPU, which skip without one; tests/gpu/prepare.py serves a machine without .venv
	PYTHON=$(bin)/python tests/gpu/run.sh

mutations: .venv/compiled  ## the faults of tests/mutations/*.json, each of which the tests must notice
	PYTHONPATH=tests $(bin)/python -m mutations

measures:  ## size and documentation of the code, by package, for ARCHITECTURE.md; ROOT names another checkout
	python3 tests/benchmarks/code_measures.py $(or $(ROOT),.)

bench-train: setup  ## training throughput, beside torchvision's reference recipe
	PYTHONPATH=tests:scripts $(bin)/python -m benchmarks.train

bench-serve: setup  ## serving throughput and latency, beside LitServe and TorchServe; needs wrk
	PYTHONPATH=tests $(bin)/python -m benchmarks.serve

fuzz-serve: setup  ## 10,000 hostile requests, then hundreds of callers at once, with pings
	PYTHONPATH=tests $(bin)/python -m benchmarks.serve_fuzz

soak-serve: setup  ## 100,000 requests of mixed clients: memory, threads and descriptors must not grow
	PYTHONPATH=tests $(bin)/python -m benchmarks.serve_soak

bench-debugger bench-profiler: setup  ## overhead of the debugger and of the profiler
	PYTHONPATH=tests $(bin)/python -m benchmarks.$(@:bench-%=%)

bench-memory: setup  ## memory of a training by its number of photos: 10,000 and 1,000,000
	PYTHONPATH=tests:scripts $(bin)/python -m benchmarks.million

fix: setup  ## automatic fixes and formatting
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

compile := $(bin)/uv pip compile --quiet --no-header --universal --python-version 3.11 --generate-hashes pyproject.toml
lock: setup  ## pin what pyproject.toml names: everything first, then the subsets
	$(compile) --extra image --extra scripts --group dev --output-file tests/requirements.txt
	$(compile) --extra image --constraint tests/requirements.txt --output-file docker/requirements.txt
	$(compile) --extra scripts --constraint tests/requirements.txt --output-file scripts/requirements.txt

readme: setup  ## the README's tables of hyperparameters and server settings
	$(bin)/python scripts/write_readme.py
