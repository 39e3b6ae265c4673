# make demo      environment, sample clips, all steps, report: a few minutes on two CPU cores
# make test      environment, lint, types and tests
# make roadmap DATA_ROOT=/workspace/data     the six steps with the roadmap's settings, on a pod
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
DEMO ?= demo
DATA_ROOT ?=

.PHONY: demo test lint roadmap clean
.DELETE_ON_ERROR:

$(VENV)/.installed: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(PY) -m pip install -q --disable-pip-version-check -r requirements-dev.txt
	touch $@

CPU_FLAGS := --backbone efficientnet_lite0 --streams rgb,motion --augment 3 --batch-size 16

demo: $(VENV)/.installed
	$(PY) -m violence_detection.samples --output $(DEMO)/data --seed 0
	$(PY) find_all_datasets.py --data-root $(DEMO)/data
	$(PY) combine_all_datasets.py --data-root $(DEMO)/data || test $$? = 1
	$(PY) runpod_train_ultimate.py --data-root $(DEMO)/data $(CPU_FLAGS) --epochs 20 --output $(DEMO)/models_ultimate --log-dir $(DEMO)
	$(PY) train_ensemble_models.py --data-root $(DEMO)/data $(CPU_FLAGS) --epochs 20 --output $(DEMO)/models_ensemble --log-dir $(DEMO)
	$(PY) test_violence_model.py --model $(DEMO)/models_ensemble $(DEMO)/data/combined_all/val > $(DEMO)/verdicts.json
	$(PY) test_ensemble.py --models $(DEMO)/models_ensemble --data $(DEMO)/data/combined_all/val --output $(DEMO)/report > $(DEMO)/summary.json
	@echo "Done, on generated sample clips. Report: $(DEMO)/report/index.html   Verdicts: $(DEMO)/verdicts.json"

roadmap: $(VENV)/.installed
	@test -n "$(DATA_ROOT)" || { echo "say where the data goes: make roadmap DATA_ROOT=/workspace/data"; exit 2; }
	$(PY) download_all_violence_datasets.py --data-root $(DATA_ROOT)
	$(PY) find_all_datasets.py --data-root $(DATA_ROOT)
	$(PY) combine_all_datasets.py --data-root $(DATA_ROOT) || test $$? = 1
	$(PY) runpod_train_ultimate.py --data-root $(DATA_ROOT) || test $$? = 1
	$(PY) train_ensemble_models.py --data-root $(DATA_ROOT) || test $$? = 1
	$(PY) test_ensemble.py --models models_ensemble --data $(DATA_ROOT)/combined_all/val --tta 4

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

test: $(VENV)/.installed-dev
	$(PY) -m pytest

clean:
	rm -rf $(DEMO) .pytest_cache .mypy_cache .ruff_cache
