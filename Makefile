# make demo    the whole story on data that a package ships: teacher, student alone, guided student, table and figure
#              (TASK=detection and TASK=segmentation do the same on digit scenes; detection needs mmcv's operators)
# make quick   the tests that start no processes and need no compiled operators, a minute and a half on two cores
# make test    all tests, less than 15 minutes on two cores (compiles mmcv's operators once, 10 to 15 minutes)
# make test-upstream   the tests that need no compiled operators, with upstream's packages and torch 2.1
#              (WITH_OPS=1 compiles mmcv's operators once, 5 to 15 minutes, and runs all tests)
# make nightly thousands of hostile numbers, all pairs of models, 20 killed trainings, a training of 3,000 iterations (hours)
# make lint    ruff and mypy
# make docs    the pages and the reference, into build/docs
# Each sets up everything it needs in $(VENV), or in $(VENV)-upstream. PYTHON= and VENV= choose others; one VENV can serve several clones.

PYTHON ?= python3
VENV ?= .venv
TASK ?= classification
BIN := $(abspath $(VENV))/bin
REQUIREMENTS := setup.py requirements.txt $(wildcard requirements/*.txt)
INSTALLED := $(VENV)/.mmlckd-installed
OPS := $(VENV)/.mmlckd-ops
DOCS := $(VENV)/.mmlckd-docs
UPSTREAM := $(patsubst %/,%,$(VENV))-upstream
UPSTREAM_BIN := $(abspath $(UPSTREAM))/bin
UPSTREAM_INSTALLED := $(UPSTREAM)/.mmlckd-installed
UPSTREAM_OPS := $(UPSTREAM)/.mmlckd-ops
PYTEST_OPTIONS := --numprocesses 2 --dist loadfile --no-loadscope-reorder
PYTEST = $(BIN)/python -m pytest $(PYTEST_OPTIONS)

export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
export PATH := $(BIN):$(PATH)

.PHONY: demo quick test test-upstream nightly lint docs install ops clean

demo: $(if $(filter detection,$(TASK)),$(OPS),$(INSTALLED))
	$(BIN)/python tools/demo.py --task $(TASK)

quick: $(INSTALLED)
	$(PYTEST) --dist worksteal -m 'not process and not ops and not slow' $(PYTEST_ARGS)

test: $(OPS)
	$(PYTEST) $(PYTEST_ARGS)

test-upstream: export PATH := $(UPSTREAM_BIN):$(PATH)
test-upstream: $(if $(WITH_OPS),$(UPSTREAM_OPS),$(UPSTREAM_INSTALLED))
	$(UPSTREAM_BIN)/python -m pytest $(PYTEST_OPTIONS) --ignore tests/test_docs.py $(if $(WITH_OPS),,-m 'not ops') $(PYTEST_ARGS)

nightly: $(OPS)
	$(BIN)/python -m pytest --hypothesis-profile nightly tests/losses tests/functional
	MMLCKD_ALL_PAIRS=1 $(BIN)/python -m pytest tests/recipes/test_pairs.py
	$(BIN)/python tools/benchmarks/crash_resume.py
	$(BIN)/python tools/benchmarks/soak.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(DOCS)
	$(BIN)/python -m sphinx -W --keep-going -q -c docs -d build/doctrees . build/docs
	@echo "the site begins at build/docs/index.html"

install: $(INSTALLED)
ops: $(OPS)

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit("error: $(PYTHON) is Python %d.%d and the tested packages need 3.11 or newer: name one with PYTHON=" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(INSTALLED): $(REQUIREMENTS) | $(BIN)/uv
	@echo "installing into $(VENV): torch and OpenMMLab's packages (about 3 GB to download where torch comes with CUDA)"
	$(BIN)/uv pip install --python $(BIN)/python --compile-bytecode \
		-r requirements.txt -c requirements/constraints.txt
	$(BIN)/python tools/install_mmcv.py --no-ops
	$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(OPS): $(INSTALLED) tools/install_mmcv.py
	$(BIN)/python tools/install_mmcv.py
	@touch $@

$(UPSTREAM_BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit("error: $(PYTHON) is Python %d.%d and torch 2.1 and the tested packages need 3.11: name one with PYTHON=" % sys.version_info[:2] if sys.version_info[:2] != (3, 11) else 0)'
	$(PYTHON) -m venv $(UPSTREAM)
	$(UPSTREAM_BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(UPSTREAM_INSTALLED): $(REQUIREMENTS) | $(UPSTREAM_BIN)/uv
	@echo "installing into $(UPSTREAM): torch 2.1 and upstream's packages (about 3 GB to download)"
	$(UPSTREAM_BIN)/uv pip install --python $(UPSTREAM_BIN)/python --compile-bytecode \
		-r requirements/upstream.txt -c requirements/constraints-upstream.txt
	$(UPSTREAM_BIN)/uv pip install --python $(UPSTREAM_BIN)/python --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(UPSTREAM_OPS): $(UPSTREAM_INSTALLED) tools/install_mmcv.py
	$(UPSTREAM_BIN)/python tools/install_mmcv.py
	@touch $@

$(DOCS): $(INSTALLED) requirements/docs.txt
	$(BIN)/uv pip install --python $(BIN)/python --quiet -r requirements/docs.txt -c requirements/constraints.txt
	@touch $@

clean:
	rm -rf $(VENV) $(UPSTREAM) build *.egg-info
