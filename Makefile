# make demo      environment, sample clips, all steps, report: a few minutes on two CPU cores
# make demo-real the same on real clips: downloads Surveillance Camera Fight (92 MB, no account needed)
# make test      environment, tests
# make lint      environment, format, types, and what imports what
# make roadmap DATA_ROOT=/workspace/data     the six steps with the roadmap's settings, on a pod
# make ship-fast DATA_ROOT=DIR      the model `fast` again, from the clips in DIR/raw; ship-accurate: the model `accurate`
# make retrain-fast DATA_ROOT=DIR   the recipe of `fast` on the train part of the clips in DIR/raw, and its accuracy on val
# make clean     removes what make demo and make demo-real have made, and caches of tools
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
DEMO ?= demo
DATA_ROOT ?=
TEST_PROCESSES ?= 2
# Device files of GPUs. If there are any, the CUDA libraries are installed too: without them TensorFlow uses the CPU.
DEV ?= /dev
GPUS ?= $(wildcard $(DEV)/nvidia[0-9]* $(DEV)/nvidiactl $(DEV)/dxg)
comma := ,

.PHONY: help demo demo-real test lint roadmap ship-fast ship-accurate retrain-fast clean
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

help:
	@sed -n "/^# make/,/^[^#]/s/^# //p" Makefile

# $(call check,PYTHON,REMEDY) fails unless PYTHON is a version for which TensorFlow below 2.22 has packages. It is also
# called for an existing environment, which may have been made with another version.
check = $(1) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python 3.11, 3.12 or 3.13 is needed, and $(1) is " + sys.version.split()[0] + ". $(2)")'

$(VENV)/.installed: requirements.txt
	@$(PY) -m pip --version > /dev/null 2>&1 || { $(call check,$(PYTHON),Give another: make PYTHON=python3.13 ...) && $(PYTHON) -m venv $(VENV); }
	@$(call check,$(PY),Remove that environment: rm -r $(VENV)$(comma) then make PYTHON=python3.13 ...)
	$(PY) -m pip install -q --disable-pip-version-check -r requirements.txt $(if $(GPUS),"tensorflow[and-cuda]")
	touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(PY) -m pip install -q --disable-pip-version-check -r requirements-dev.txt
	touch $@

CPU_FLAGS := --backbone efficientnet_lite0 --streams rgb,motion

# $(call STEPS,FOLDER,FLAGS,REMARK): all steps after the data is there: find, combine, train, ensemble, predict,
# evaluate. The first two exit with 1 if they left unreadable files out; the sample clips contain one on purpose.
define STEPS
	$(PY) find_all_datasets.py --data-root "$(1)/data" || test $$? = 1
	$(PY) combine_all_datasets.py --data-root "$(1)/data" || test $$? = 1
	$(PY) runpod_train_ultimate.py --data-root "$(1)/data" $(2) --output "$(1)/models_ultimate" --log-dir "$(1)"
	$(PY) train_ensemble_models.py --data-root "$(1)/data" $(2) --output "$(1)/models_ensemble" --log-dir "$(1)"
	$(PY) test_violence_model.py --model "$(1)/models_ensemble" "$(1)/data/combined_all/val" --output "$(1)/verdicts.json"
	$(PY) test_ensemble.py --models "$(1)/models_ensemble" --data "$(1)/data/combined_all/val" --output "$(1)/report"
	@echo "Done$(3). Report: $(1)/report/index.html   Verdicts: $(1)/verdicts.json"
endef

demo: $(VENV)/.installed
	$(PY) -m violence_detection.datasets.generated --output "$(DEMO)/data" --seed 0
	$(call STEPS,$(DEMO),$(CPU_FLAGS) --augment 3 --batch-size 16 --epochs 20,$(comma) on generated sample clips)

demo-real: $(VENV)/.installed
	$(PY) download_all_violence_datasets.py --datasets surveillance_fight --data-root "$(DEMO)-real/data"
	$(call STEPS,$(DEMO)-real,$(CPU_FLAGS) --augment 5 --batch-size 32 --epochs 40)

roadmap: $(VENV)/.installed
	@test -n "$(DATA_ROOT)" || { echo "say where the data goes: make roadmap DATA_ROOT=/workspace/data"; exit 2; }
	$(PY) download_all_violence_datasets.py --data-root "$(DATA_ROOT)" || test $$? = 1
	$(PY) find_all_datasets.py --data-root "$(DATA_ROOT)" || test $$? = 1
	$(PY) combine_all_datasets.py --data-root "$(DATA_ROOT)" || test $$? = 1
	$(PY) runpod_train_ultimate.py --data-root "$(DATA_ROOT)" || test $$? = 1
	$(PY) train_ensemble_models.py --data-root "$(DATA_ROOT)" || test $$? = 1
	$(PY) test_ensemble.py --models models_ensemble --data "$(DATA_ROOT)/combined_all/val" --tta 4

# How the shipped models are made. Clips that cannot be read are named and left out, with exit code 1.
RECIPE_fast := --backbone i3d_pictures --streams rgb --augment 1 --members i3d_tuned --keep-pretrained 0.25 \
	--selection-fraction 0.01
RECIPE_accurate := --backbone i3d_actions,i3d_movements,dinov2_spread,movenet_poses,i3d_pictures --streams rgb --augment 1 \
	--members kernel,i3d_tuned --landmarks 1280 --kernel-c 1 --early-exit i3d_tuned --early-exit-below 0.1 \
	--selection-fraction 0.01

ship-fast ship-accurate: ship-%: $(VENV)/.installed
	@test -n "$(DATA_ROOT)" || { echo "say where the clips are: make ship-$* DATA_ROOT=/my/data, with /my/data/raw"; exit 2; }
	$(PY) find_all_datasets.py --data-root "$(DATA_ROOT)" || test $$? = 1
	$(PY) combine_all_datasets.py --data-root "$(DATA_ROOT)" || test $$? = 1
	$(PY) train_ensemble_models.py --data-root "$(DATA_ROOT)" $(RECIPE_$*) --output "models_$*" --leave-one-dataset-out \
		--final --final-by left-out --closer-look --ship $* || test $$? = 1
	@echo "Made: the model $*. Card: $${VIOLENCE_MODELS:-violence_detection/models/shipped_models}/$*/README.md"

# A batch in four parts (--accumulate 4) is as fast on two cores and takes less memory.
retrain-fast: $(VENV)/.installed
	@test -n "$(DATA_ROOT)" || { echo "say where the clips are: make retrain-fast DATA_ROOT=/my/data, with /my/data/raw"; exit 2; }
	$(PY) find_all_datasets.py --data-root "$(DATA_ROOT)" || test $$? = 1
	$(PY) combine_all_datasets.py --data-root "$(DATA_ROOT)" || test $$? = 1
	$(PY) train_ensemble_models.py --data-root "$(DATA_ROOT)" $(RECIPE_fast) --accumulate 4 --memory-gb 4 --output models_retrained \
		|| test $$? = 1
	$(PY) test_ensemble.py --models models_retrained --data "$(DATA_ROOT)/combined_all/val" --output reports/retrained || test $$? = 1
	@echo "Made: models_retrained, the recipe of fast on train. Its accuracy on val: reports/retrained/index.html"

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy violence_detection tests benchmarks *.py
	$(VENV)/bin/lint-imports --no-cache

# A test that crashes its process ends the run, which names the test. If pytest-xdist replaced the process
# (--max-worker-restart above 0), the new one would wait forever at the end.
test: $(VENV)/.installed-dev
	$(PY) -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder --max-worker-restart 0

clean:
	rm -rf "$(DEMO)" "$(DEMO)-real" .pytest_cache .mypy_cache .ruff_cache
