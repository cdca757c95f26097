# Two commands are enough to learn: `make lab` and `make test`. `make help` lists the others.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help lab test quick site mutants exercise bench notebooks editions slides pocket experiments figures pins lock release clean

VENV ?= .venv
ifeq ($(OS),Windows_NT)  # in Git Bash
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
STAMP := $(VENV)/.installed
PYTHON ?=
PORT ?= 8888
NB ?= notebooks/*.ipynb

help:  ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1|\2/p' Makefile | awk -F'|' '{printf "%-16s %s\n", $$1, $$2}'

lab: $(STAMP)  ## open lesson 00 in JupyterLab (installs everything first; PORT=8888)
	@mkdir -p $(VENV)/share/jupyter/lab/settings/overrides.d
	@echo '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}' \
	  > $(VENV)/share/jupyter/lab/settings/overrides.d/course.json
	@set -- --no-browser; why=; \
	if [ "$$(uname)" != Linux ] || [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ]; then set --; \
	else echo "No display here: open the address printed below in a browser."; fi; \
	if [ "$$(id -u)" = 0 ]; then set -- "$$@" --allow-root; fi; \
	exec $(BIN)/jupyter-lab --ServerApp.root_dir=notebooks --LabApp.default_url=/lab/tree/00_start_here.ipynb \
	  --ServerApp.port=$(PORT) --ServerApp.port_retries=50 --log-level=WARN "$$@"

test: $(STAMP)  ## ruff, unit tests, every notebook under strict nbval, the rules, the browser (WEEKLY=1: long ones, too)
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/python -m pytest

quick: $(STAMP)  ## ruff, the fast tests, and of the slow ones and the notebooks what you changed
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --quick

site: $(STAMP)  ## build the course as pages that open from the file system, in build/site
	@$(BIN)/python site/pages.py

mutants: $(STAMP)  ## break the code in thousands of small ways: do the tests notice? (MODULE=helpers/lora.py, SAMPLE=60)
	@$(BIN)/python -c "import mutmut" 2>/dev/null || $(BIN)/python -m pip install --quiet -c requirements.txt -e '.[mutants]'
	@SAMPLE=$(SAMPLE) $(BIN)/python tests/mutants.py $(MODULE)

exercise: $(STAMP)  ## write a new exercise's module and its cells (NAME=scale_rows LESSON=02), or its cells again
	@PYTHONPATH=tests $(BIN)/python -m notebook_tools.exercise "$(NAME)" "$(LESSON)"

bench: $(STAMP)  ## time and memory beside the libraries', and the ledger beside traced steps (on an idle machine)
	$(BIN)/python tests/bench_quantization.py
	$(BIN)/python tests/bench_adapters.py
	$(BIN)/python tests/bench_memory.py

notebooks: $(STAMP)  ## run notebooks and write them in canonical form (NB="notebooks/10_fine_tuning_llama_2.ipynb")
	PYTHONPATH=tests $(BIN)/python -m notebook_tools.run $(NB)

editions: $(STAMP)  ## students' and teacher's notebooks into build/editions (NB="…" for some; all: about 13 minutes)
	PYTHONPATH=tests $(BIN)/python -m notebook_tools.editions $(NB)

slides: $(STAMP)  ## build a deck with timed notes for each lesson into build/slides (index.html opens offline)
	PYTHONPATH=tests $(BIN)/python -m notebook_tools.slides

pocket: $(STAMP)  ## train the pocket Llama again from its seed (minutes on 2 cores)
	$(BIN)/python -m helpers.pocket.make

experiments: $(STAMP)  ## run the long experiments again, as far as their records lack points
	$(BIN)/python -m helpers.experiments

figures: $(STAMP)  ## draw the SVGs of figures/ again
	$(BIN)/python -m helpers.drawings
	$(BIN)/python -m helpers.explorers.moving

pins: $(STAMP)  ## check that every pin has a wheel for each Python and system (needs the network)
	$(BIN)/python tests/check_pins.py

lock: $(STAMP)  ## solve requirements.txt again from pyproject.toml (UPGRADE=--upgrade for the newest)
	@# torch's own metadata brings the CUDA libraries where they are wanted; pinned here, they would be everywhere.
	$(BIN)/python -m pip install --quiet uv
	cp requirements.txt $(VENV)/lock.txt
	$(BIN)/python -m uv pip compile pyproject.toml --extra lab --extra test --universal --python-version 3.11 \
	  --fork-strategy fewest --no-annotate --no-header --quiet $(UPGRADE) -o $(VENV)/lock.txt
	@echo '# Exact versions, one for every Python and system: what the committed outputs were made with.' > requirements.txt
	@echo '# Made by `make lock` from pyproject.toml; do not edit.' >> requirements.txt
	sed -E '/^(nvidia-|cuda-|triton)/d' $(VENV)/lock.txt >> requirements.txt

release: $(STAMP)  ## name a release everywhere (VERSION=0.2.0 ADDRESS=https://github.com/owner/name)
	@PYTHONPATH=tests $(BIN)/python -m notebook_tools.release "$(VERSION)" "$(ADDRESS)"

clean:  ## remove the environment and everything made by running
	rm -rf $(VENV) build dist runs *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf

# The stamp is written last: an installation that broke off is taken up again by the next call.
$(STAMP): requirements.txt pyproject.toml
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  for p in $(PYTHON) python3.11 python3.12 python3.13 python3 python; do \
	    if "$$p" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; \
	    then found=$$p; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "No Python 3.11, 3.12 or 3.13 (with venv) found. Install one and call make again:"; \
	    echo "  Debian, Ubuntu:  sudo apt install python3 python3-venv"; \
	    echo "  Fedora:          sudo dnf install python3.13"; \
	    echo "  macOS:           brew install python@3.13, or the installer of python.org"; \
	    echo "  elsewhere:       make $(MAKECMDGOALS) PYTHON=/path/to/python3.13"; \
	    exit 1; \
	  fi; \
	  echo "Making $(VENV) with $$($$found --version) ..."; \
	  "$$found" -m venv --clear $(VENV) || exit 1; \
	fi
	@echo "Installing the exact versions of requirements.txt (once; some minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.txt -e .
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true  # on all cores; pip would take one
	@touch $@
