# make demo    the whole story on data that a package ships: teacher, student alone, guided student, table and figure
#              (TASK=detection and TASK=segmentation do the same on digit scenes; detection needs mmcv's operators)
# make quick   the tests that start no processes and need no compiled operators, a minute and a half on two cores
# make test    all tests, less than 15 minutes on two cores (compiles mmcv's operators once, 10 to 15 minutes)
# make nightly thousands of hostile numbers, all pairs of models, 20 killed trainings, a training of 3,000 iterations (hours)
# make lint    ruff and mypy
# make docs    the pages and the reference, into build/docs
# Each sets up everything it needs in $(VENV). PYTHON= and VENV= choose others; one VENV can serve several clones.

PYTHON ?= python3
VENV ?= .venv
TASK ?= classification
BIN := $(abspath $(VENV))/bin
REQUIREMENTS := setup.py requirements.txt $(wildcard requirements/*.txt)
INSTALLED := $(VENV)/.mmlckd-installed
OPS := $(VENV)/.mmlckd-ops
DOCS := $(VENV)/.mmlckd-docs
PYTEST = $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
export PATH := $(BIN):$(PATH)

.PHONY: demo quick test nightly lint docs install ops clean

demo: $(if $(filter detection,$(TASK)),$(OPS),$(INSTALLED))
	$(BIN)/python tools/demo.py --task $(TASK)

quick: $(INSTALLED)
	$(PYTEST) --dist worksteal -m 'not process and not ops and not slow' $(PYTEST_ARGS)

test: $(OPS)
	$(PYTEST) $(PYTEST_ARGS)

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
	@$(PYTHON) -c 'import sys; sys.exit("error: $(PYTHON) is Python %d.%d and 3.10 or newer is needed: name one with PYTHON=" % sys.version_info[:2] if sys.version_info < (3, 10) else 0)'
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

$(DOCS): $(INSTALLED) requirements/docs.txt
	$(BIN)/uv pip install --python $(BIN)/python --quiet -r requirements/docs.txt -c requirements/constraints.txt
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
