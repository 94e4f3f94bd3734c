# The project's commands; each does the set-up it needs. `make` alone lists them.
SHELL := bash
python := .venv/bin/python
# One thread per process: the tests run side by side, and results do not depend on the number of cores.
pytest := OMP_NUM_THREADS=1 $(python) -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup lock lint test test-long doctor

help: ## list the commands
	@awk -F ' *## *' '/^[a-z-]+:.*## / {sub(/:.*/, "", $$1); printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: ## install everything into .venv (Python 3.11 or 3.12 with headers, git and g++ are needed)
	@tools/setup.sh

lock: ## resolve requirements.txt anew into requirements.lock
	@tools/setup.sh lock

doctor: setup ## check versions, compiled ops, devices and disk; CONFIGS="a.py b.py" adds data, classes and weights
	@$(python) tools/doctor.py $(CONFIGS)

lint: setup ## check style
	$(python) -m ruff check
	$(python) -m ruff format --check

test: setup ## run the tests that take seconds
	$(pytest) -n 2 -m 'not long'

test-long: setup ## run the tests that take minutes
	$(pytest) -m long
