# The project's commands; each does the set-up it needs. `make` alone lists them.
SHELL := bash
python := .venv/bin/python
# One thread per process: the tests run side by side, and results do not depend on the number of cores.
pytest := OMP_NUM_THREADS=1 $(python) -m pytest
# Python keeps the bytecode of what it imports; containers often forbid it, and then each process compiles for 10 s.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup lock lint test test-slow test-long test-browser test-broker test-loggers test-gpu doctor demo gdxray study own inspect distill sbom

help: ## list the commands
	@awk -F ' *## *' '/^[a-z-]+:.*## / {sub(/:.*/, "", $$1); printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: ## install everything into .venv (Python 3.11 to 3.13); SETUP=runtime leaves out what tests need
	@tools/setup.sh

# requirements.lock and requirements.txt hold everything, requirements-line.txt what the wheel needs.
compile := .uv/bin/uv pip compile pyproject.toml --universal --python-version 3.11 --no-header --no-strip-extras --quiet
everything := --extra train --extra sr --group study --group dev

lock: ## write requirements.lock and the like from pyproject.toml; ARGS="--upgrade-package NAME" goes to uv
	@[ -x .uv/bin/uv ] || tools/setup.sh
	$(compile) $(everything) --fork-strategy fewest --generate-hashes -o requirements.lock $(ARGS)
	$(compile) $(everything) -c requirements.lock --no-deps --no-annotate -o requirements.txt
	$(compile) -c requirements.lock --generate-hashes --no-annotate -o requirements-line.txt
	@sed -i '1i # Written by `make lock` from pyproject.toml.' requirements.txt requirements-line.txt

doctor: setup ## check versions, operators, devices and disk; CONFIGS="a.py b.py" adds data, classes and weights
	@$(python) tools/doctor.py $(CONFIGS)

sbom: setup ## write sbom.json, a CycloneDX bill of materials of what is installed
	@.uv/bin/uv tool run --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py environment .venv --output-format JSON -o sbom.json
	@echo "written: sbom.json"

lint: setup ## check style, types, and that packages import downwards only
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m mypy
	.venv/bin/lint-imports --no-logo

# Those that need a program of their own have a command of their own below.
elsewhere := --ignore tests/browser --ignore tests/broker --ignore tests/loggers --ignore tests/gpu

test: setup ## run the tests that take seconds
	$(pytest) -n 2 -m 'not slow and not long' $(elsewhere)

test-slow: setup ## run the slower ones: ranks, studies, trainings as a user starts them
	$(pytest) -n 2 -m slow $(elsewhere)

test-long: setup ## run the tests that take minutes
	$(pytest) -m long -o faulthandler_timeout=7200 --ignore tests/broker --ignore tests/gpu

test-browser: setup ## look at the report in Chromium, which is installed when root
	@command -v chromium chromium-browser google-chrome >/dev/null || \
	  { [ "$$(id -u)" = 0 ] && { apt-get update && apt-get install -y chromium; } >/dev/null; } || \
	  { echo "make test-browser: Chromium is missing, and only root can install it: apt install chromium" >&2; exit 1; }
	$(pytest) -n 2 --dist loadfile tests/browser

test-broker: setup ## send results to an MQTT broker, Debian's mosquitto, which is installed when root
	@PATH=$$PATH:/usr/sbin; command -v mosquitto >/dev/null || \
	  { [ "$$(id -u)" = 0 ] && { apt-get update && apt-get install -y --no-install-recommends mosquitto; } >/dev/null; } || \
	  { echo "make test-broker: mosquitto is missing, and only root can install it: apt install mosquitto" >&2; exit 1; }
	$(pytest) tests/broker

# They are in no lock: uv installs them for this command alone, beside what .venv has.
loggers := mlflow-skinny==3.17.2 wandb==0.31.0 clearml==2.1.12

test-loggers: setup ## train an epoch with each of MLflow, W&B and ClearML, in an environment that is thrown away
	OMP_NUM_THREADS=1 .uv/bin/uv run --quiet --no-project --python $(python) $(loggers:%=--with %) \
	  python -m pytest -o faulthandler_timeout=1800 tests/loggers

test-gpu: setup ## test mixed precision, NCCL and operators on this machine's GPUs; every family on one and on all
	gpus=$$(nvidia-smi -L 2>/dev/null | grep -c '^GPU'); \
	CUDA_VISIBLE_DEVICES=$${CUDA_VISIBLE_DEVICES:-$$(seq -s, 0 $$((gpus - 1)))} $(pytest) tests/gpu

# What a study found, as a page.
report = $(python) tools/report.py work_dirs/study/$(1)/*/seed* --out work_dirs/study/$(1)/report

demo: setup ## generated radiographs: pretrain, probe, fine-tune, then a table and a page
	$(python) tools/make_synthetic.py data/synthetic --labeled 600 --unlabeled 300 --size 256 --bits 8 --depth 5 --extra 8
	@$(python) tools/study.py configs/study/demo.yaml
	@$(call report,demo)
	@echo "curves and pictures: $(python) -m tensorboard.main --logdir work_dirs"

study: setup ## run a study, STUDY=configs/study/NAME.yaml; ARGS=--dry-run shows what would run, and about how long
	@[ -n "$(STUDY)" ] || { echo "make study: say which: make study STUDY=configs/study/synthetic.yaml" >&2; exit 2; }
	@$(python) tools/study.py $(STUDY) $(ARGS)

gdxray: setup ## real castings, GDXRAY=DIR with C0001/ and so on: both protocols, pretrain, fine-tune (an hour on two cores)
	@[ -n "$(GDXRAY)" ] || { echo "make gdxray: say where the castings are: make gdxray GDXRAY=DIR" >&2; exit 2; }
	$(python) tools/convert_dataset.py gdxray "$(GDXRAY)" data/gdxray \
	  --train-list projects/prepare/splits/gdxray_castings_train.txt \
	  --test-list projects/prepare/splits/gdxray_castings_test.txt
	@$(python) tools/study.py configs/study/gdxray.yaml
	@$(call report,gdxray)

own: setup ## your own converted data, DATA=DIR SEVERITY=FILE: check, pretrain, two arms, export, report; SCALE=cpu, NAME=N
	@[ -n "$(DATA)" ] && [ -n "$(SEVERITY)" ] || \
	  { echo "make own: say what to learn from: make own DATA=DIR SEVERITY=FILE (DIR of tools/convert_dataset.py)" >&2; exit 2; }
	@$(python) tools/new_experiment.py "$(DATA)" --severity "$(SEVERITY)" $(if $(SCALE),--scale $(SCALE)) \
	  $(if $(NAME),--name $(NAME)) --run

inspect: setup ## page to inspect and correct, MODEL=exported folder; IMAGES=DIR offers an archive, OUT=DIR takes corrections, PORT=8000
	@[ -n "$(MODEL)" ] || { echo "make inspect: say which detector: make inspect MODEL=DIR (of tools/export.py)" >&2; exit 2; }
	@$(python) tools/inspect_page.py "$(MODEL)" $(if $(IMAGES),--images "$(IMAGES)") $(if $(OUT),--out "$(OUT)") \
	  $(if $(PORT),--port $(PORT))

ON := synthetic
distill: setup ## students at CPU scale alone and distilled, three seeds; after `make demo`, or ON=gdxray-a after `make gdxray`
	@[ -f "configs/study/distill-$(ON).yaml" ] || \
	  { echo "make distill: ON=$(ON), expected synthetic or gdxray-a" >&2; exit 2; }
	@$(python) tools/study.py configs/study/distill-$(ON).yaml
	@$(call report,distill-$(ON))
