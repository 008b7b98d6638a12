.PHONY: setup check test test-all image test-docker bench-train bench-serve fuzz-serve soak-serve bench-debugger bench-profiler fix lock readme
bin := .venv/bin

setup:  ## make .venv, or bring it up to date
	scripts/setup.sh

check: setup  ## style, types, imports that point down
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/pyright
	PYTHONPATH=scripts $(bin)/lint-imports --no-logo

test: .venv/compiled  ## the default suite
	$(bin)/pytest -n auto --dist worksteal -m "not slow and not docker"

test-all: .venv/compiled  ## the slow tests too
	$(bin)/pytest -n auto --dist worksteal -m "not docker"

# Where PYTHONDONTWRITEBYTECODE is set, every process that a test starts would compile thousands of modules anew.
.venv/compiled: tests/requirements.txt | setup
	-$(bin)/python -m compileall -qq -j 0 .venv/lib
	touch $@

image:  ## the image, with pretrained weights; BAKED_WEIGHTS= builds it where no hub is reached
	docker build --tag image-classifier --file docker/Dockerfile --build-arg REVISION=$$(git rev-parse HEAD) \
		$(if $(filter undefined,$(origin BAKED_WEIGHTS)),,--build-arg BAKED_WEIGHTS="$(BAKED_WEIGHTS)") .

test-docker: setup  ## the image in a real engine; IMAGE names one that is built already
	$(bin)/pytest -m docker tests/docker

bench-train: setup  ## how fast train trains, beside torchvision's reference recipe
	PYTHONPATH=tests:scripts $(bin)/python -m benchmarks.train

bench-serve: setup  ## how fast serve answers, beside LitServe and TorchServe; wrk must be installed
	PYTHONPATH=tests $(bin)/python -m benchmarks.serve

fuzz-serve: setup  ## 10,000 hostile requests
	PYTHONPATH=tests $(bin)/python -m benchmarks.serve_fuzz

soak-serve: setup  ## 100,000 requests; memory, threads and descriptors stay
	PYTHONPATH=tests $(bin)/python -m benchmarks.serve_soak

bench-debugger bench-profiler: setup  ## what looking on costs a training
	PYTHONPATH=tests $(bin)/python -m benchmarks.$(@:bench-%=%)

fix: setup  ## what ruff can mend by itself
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

compile := $(bin)/uv pip compile --quiet --no-header --universal --python-version 3.11 --generate-hashes pyproject.toml
lock: setup  ## pin what pyproject.toml names: everything first, then the parts of it
	$(compile) --extra image --extra scripts --group dev --output-file tests/requirements.txt
	$(compile) --extra image --constraint tests/requirements.txt --output-file docker/requirements.txt
	$(compile) --extra scripts --constraint tests/requirements.txt --output-file scripts/requirements.txt

readme: setup  ## the README's table of hyperparameters
	$(bin)/python scripts/write_readme.py
