# `make demo` runs the main job on its embedded default, `make test` passes the tests; each sets up
# what it needs first. PYTHON names another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OUT    ?= out
JOBS   ?= 2
FRESH  ?= 20
SEQUENCES ?= 500
# The newest torch that pyproject.toml admits; with an open range, pip would look for a newer one.
TORCH  := 2.13.0

.PHONY: help demo test fuzz sim reference lint setup check clean
.DELETE_ON_ERROR:

help:
	@echo "make demo   describe, plan, generate, verify, train, synthesise and report a default design into $(OUT)/"
	@echo "make test   lint, type check and all tests"
	@echo "make fuzz   random designs that no run has seen: RTL against the golden model, FRESH=20 times six"
	@echo "make sim    the Verilog in cocotb, as in a project of your own: SEQUENCES=500 random sequences of faults"
	@echo "make reference  resources and clock of three designs, and what changed since they were kept: minutes"
	@echo "make lint   lint and type check only"
	@echo "make setup  a virtual environment in $(VENV)/ with everything installed"
	@echo "make check  whether this machine has what set-up needs"
	@echo "make clean  remove $(VENV)/, $(OUT)/ and caches in this folder"

demo: setup
	$(BIN)/python -m streamtrain.build --out $(OUT)

test: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

fuzz: setup
	$(BIN)/python -m pytest -n $(JOBS) -v tests/simulate/test_random_designs.py --fresh $(FRESH)

sim: setup
	$(BIN)/python -m pytest -v -s tests/sim --sequences $(SEQUENCES)

reference: setup
	$(BIN)/python benchmarks/reference.py --route

lint: setup
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

setup: $(VENV)/.installed

# The stamp is made anew whenever the dependencies may have changed.
$(VENV)/.installed: pyproject.toml Makefile
	@$(MAKE) --no-print-directory check
	$(PYTHON) -m venv $(VENV)
	@echo "Installing torch $(TORCH), then streamtrain with what development needs: a minute or two"
	@$(BIN)/python -m pip install --quiet "torch==$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@

# Each line: what to try, what is missing if that fails, and the Debian package that brings it.
check:
	@missing=; \
	need() { what=$$1; package=$$2; shift 2; \
		"$$@" >/dev/null 2>&1 || { echo "missing: $$what (Debian package: $$package)" >&2; missing="$$missing $$package"; }; }; \
	need "Python 3.11 or newer as $(PYTHON)" python3 \
		$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))'; \
	need "Python's venv and ensurepip modules" python3-venv $(PYTHON) -c 'import ensurepip, venv'; \
	need "g++, which compiles simulations" g++ g++ --version; \
	need "make, which their compilation uses" make make --version; \
	need "perl, which Verilator is started with" perl perl -e 1; \
	if [ -n "$$missing" ]; then echo "install with: sudo apt-get install$$missing" >&2; exit 1; fi

clean:
	rm -rf $(VENV) $(OUT) .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
