# The project's commands; each does the set-up it needs. `make` alone lists them.
SHELL := bash
python := .venv/bin/python
# One thread per process: the tests run side by side, and results do not depend on the number of cores.
pytest := OMP_NUM_THREADS=1 $(python) -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup lock lint test test-long test-browser test-gpu doctor demo gdxray study inspect distill

help: ## list the commands
	@awk -F ' *## *' '/^[a-z-]+:.*## / {sub(/:.*/, "", $$1); printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: ## install everything into .venv (Python 3.11 or 3.12 with headers, git and g++ are needed)
	@tools/setup.sh

lock: ## resolve requirements.txt anew into requirements.lock
	@tools/setup.sh lock

doctor: setup ## check versions, compiled ops, devices and disk; CONFIGS="a.py b.py" adds data, classes and weights
	@$(python) tools/doctor.py $(CONFIGS)

lint: setup ## check style, and that packages import downwards only
	$(python) -m ruff check
	$(python) -m ruff format --check
	.venv/bin/lint-imports --no-logo

test: setup ## run the tests that take seconds
	$(pytest) -n 2 -m 'not long' --ignore tests/browser --ignore tests/gpu

test-long: setup ## run the tests that take minutes
	$(pytest) -m long -o faulthandler_timeout=7200 --ignore tests/gpu

test-browser: setup ## look at the report in Chromium, which is installed when root
	@command -v chromium chromium-browser google-chrome >/dev/null || \
	  { [ "$$(id -u)" = 0 ] && { apt-get update && apt-get install -y chromium; } >/dev/null; } || \
	  { echo "make test-browser: Chromium is missing, and only root can install it: apt install chromium" >&2; exit 1; }
	$(pytest) tests/browser

test-gpu: setup ## test mixed precision, NCCL and CUDA operators on this machine's first GPU
	CUDA_VISIBLE_DEVICES=$${CUDA_VISIBLE_DEVICES:-0} $(pytest) tests/gpu

# --- The chain at CPU scale. A run is a folder of work_dirs/ named after its config in configs/small/; `trained`
# marks a finished one, so that `make` after a kill goes on where it stopped. Two runs of one thread each use two
# cores better than one run of two threads.
seed := 0
jobs := 2
simsiam := simsiam_resnet18-narrow_1xb64-coslr-20e
simmim := simmim_swin-narrow_1xb32-coslr-20e
r18 := faster-rcnn_r18-narrow
swin := faster-rcnn_swin-narrow
small := fpn_1xb4-8e
probe := 1xb64-linear-coslr-20e_synthetic
runs = $(MAKE) --no-print-directory -j $(jobs) $(patsubst %,work_dirs/%/test.json,$(1))
report = $(python) tools/report.py $(patsubst %,work_dirs/%,$(1))
# Runs side by side say whose line it is.
named = 2>&1 | sed -u -E 's|^([0-9/]+ [0-9:]+ - mmengine - [A-Z]+ - )?|$(patsubst faster-rcnn_%,%,$(subst _$(small),,$*)): |'

demo_runs := resnet18-narrow-scratch_$(probe)-128px resnet18-narrow-simsiam-pre_$(probe)-128px \
  swin-narrow-scratch_$(probe)-96px swin-narrow-simmim-pre_$(probe)-96px \
  $(r18)-scratch_$(small)_synthetic $(r18)-simsiam-pre_$(small)_synthetic \
  $(swin)-scratch_$(small)_synthetic $(swin)-simmim-pre_$(small)_synthetic
gdxray_runs := $(r18)-scratch_fpn_1xb4-12e_gdxray-b $(r18)-simsiam-castings-pre_fpn_1xb4-12e_gdxray-b

.SECONDARY:

work_dirs/%/trained:
	@set -o pipefail; OMP_NUM_THREADS=1 $(python) -u tools/train.py configs/small/$*.py --resume \
	  --cfg-options randomness.seed=$(seed) $(named)
	@touch $@

work_dirs/%/test.json: work_dirs/%/trained
	@set -o pipefail; OMP_NUM_THREADS=1 $(python) -u tools/test.py configs/small/$*.py \
	  $$(cat work_dirs/$*/last_checkpoint) --val $(if $(findstring faster-rcnn,$*),--show-dir work_dirs/$*/pictures) $(named)

# What starts from what.
$(patsubst %,work_dirs/%/trained,resnet18-narrow-simsiam-pre_$(probe)-128px $(r18)-simsiam-pre_$(small)_synthetic): \
  work_dirs/$(simsiam)_synthetic-128px/trained
$(patsubst %,work_dirs/%/trained,swin-narrow-simmim-pre_$(probe)-96px $(swin)-simmim-pre_$(small)_synthetic): \
  work_dirs/$(simmim)_synthetic-96px/trained
work_dirs/$(r18)-simsiam-castings-pre_fpn_1xb4-12e_gdxray-b/trained: work_dirs/$(simsiam)_castings-b-128px/trained

demo: setup ## generated radiographs: pretrain, probe, fine-tune, then a table and pictures
	$(python) tools/make_synthetic.py data/synthetic --labeled 600 --unlabeled 300 --size 256 --bits 8 --depth 5 --extra 8
	@$(call runs,$(demo_runs))
	@$(call report,$(demo_runs)) --out work_dirs/demo
	@echo "predictions beside the truth: work_dirs/faster-rcnn_*_synthetic/pictures/"
	@echo "curves and pictures: $(python) -m tensorboard.main --logdir work_dirs"

study: setup ## run a study, STUDY=configs/study/NAME.yaml; ARGS=--dry-run shows what would run, and about how long
	@[ -n "$(STUDY)" ] || { echo "make study: say which: make study STUDY=configs/study/synthetic.yaml" >&2; exit 2; }
	@$(python) tools/study.py $(STUDY) $(ARGS)

gdxray: setup ## real castings, GDXRAY=DIR with C0001/ and so on: both protocols, pretrain, fine-tune (an hour on two cores)
	@[ -n "$(GDXRAY)" ] || { echo "make gdxray: say where the castings are: make gdxray GDXRAY=DIR" >&2; exit 2; }
	$(python) tools/convert_dataset.py gdxray "$(GDXRAY)" data/gdxray \
	  --train-list projects/prepare/splits/gdxray_castings_train.txt \
	  --test-list projects/prepare/splits/gdxray_castings_test.txt
	@$(call runs,$(gdxray_runs))
	@$(call report,$(gdxray_runs)) --out work_dirs/gdxray

inspect: setup ## page to inspect and correct, MODEL=exported folder; IMAGES=DIR offers an archive, OUT=DIR takes corrections, PORT=8000
	@[ -n "$(MODEL)" ] || { echo "make inspect: say which detector: make inspect MODEL=DIR (of tools/export.py)" >&2; exit 2; }
	@$(python) tools/inspect_page.py "$(MODEL)" $(if $(IMAGES),--images "$(IMAGES)") $(if $(OUT),--out "$(OUT)") \
	  $(if $(PORT),--port $(PORT))

# A student with and without a teacher, on the demo's data or on castings. A run that is there is not repeated.
ON := synthetic
tiny := faster-rcnn_r18-tiny-scratch_fpn32_1xb4
students_synthetic := $(tiny)-8e_synthetic pkd-r18-narrow_$(tiny)-8e_synthetic cwd-r18-narrow_$(tiny)-8e_synthetic
teacher_synthetic := $(r18)-scratch_$(small)_synthetic
students_gdxray-a := $(tiny)-12e_gdxray-a pkd-r18-narrow-simsiam-castings_$(tiny)-12e_gdxray-a
teacher_gdxray-a := $(r18)-simsiam-castings-pre_fpn_1xb4-12e_gdxray-a
work_dirs/$(teacher_gdxray-a)/trained: work_dirs/$(simsiam)_castings-a-128px/trained

distill: setup $(addprefix work_dirs/,$(addsuffix /trained,$(teacher_$(ON)))) ## students at CPU scale alone and distilled, three seeds; after `make demo`, or ON=gdxray-a after `make gdxray`
	@[ -n "$(teacher_$(ON))" ] || { echo "make distill: ON=$(ON), expected synthetic or gdxray-a" >&2; exit 2; }
	@set -e; for seed in 0 1 2; do for student in $(students_$(ON)); do \
	  run=work_dirs/distill/seed$$seed/$$student; [ ! -e $$run/test.json ] || continue; \
	  OMP_NUM_THREADS=1 $(python) -u tools/train.py configs/distill/$$student.py --work-dir $$run --resume \
	    --cfg-options randomness.seed=$$seed; \
	  OMP_NUM_THREADS=1 $(python) -u tools/test.py configs/distill/$$student.py $$(cat $$run/last_checkpoint) --val \
	    --work-dir $$run; \
	done; done
	$(python) tools/report.py work_dirs/distill/seed*/* --out work_dirs/distill/report
