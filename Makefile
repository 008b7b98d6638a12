.PHONY: setup check test test-all fix lock
bin := .venv/bin

setup:  ## make .venv, or bring it up to date
	scripts/setup.sh

check: setup  ## style, types, imports that point down
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/pyright
	$(bin)/lint-imports

test: setup  ## the default suite
	$(bin)/pytest -m "not slow"

test-all: setup  ## the slow tests too
	$(bin)/pytest

fix: setup  ## what ruff can mend by itself
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

compile := $(bin)/uv pip compile --quiet --no-header --universal --python-version 3.11 --generate-hashes pyproject.toml
lock: setup  ## pin what pyproject.toml names: everything first, then the parts of it
	$(compile) --extra image --extra scripts --group dev --output-file tests/requirements.txt
	$(compile) --extra image --constraint tests/requirements.txt --output-file docker/requirements.txt
	$(compile) --extra scripts --constraint tests/requirements.txt --output-file scripts/requirements.txt
