# The course in a few commands. Each makes the virtual environment .venv when it is missing.
#   make run     run the lessons and write a report       make lab   open them in JupyterLab
#   make test    everything CI runs                       make check  its quick part
#   make help    the rest
# A computer without an NVIDIA GPU can do with PyTorch's small CPU build: add TORCH=cpu, as in `make run TORCH=cpu`.

PYTHON ?= python3
# Which build of PyTorch: empty for the ordinary one, cpu for the small one. The first choice is remembered.
TORCH ?= $(shell cat .venv/torch 2>/dev/null)
# Versions that are known to work together; CONSTRAINTS= takes the newest of everything instead.
CONSTRAINTS ?= --constraint constraints.txt
# What is installed with the course. Whoever teaches adds nbgrader: EXTRAS=dev,teach.
EXTRAS ?= dev
ALL := dev,teach,export,heic
UV_VERSION := 0.13.9

ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
else
BIN := .venv/bin
endif
READY := .venv/ready$(TORCH)
# uv knows PyTorch's own index for each backend by this name.
BACKEND := $(if $(TORCH),--torch-backend=$(TORCH))

.PHONY: setup run test check lab docs docs-preview docs-publish book readme notebooks bench help clean

# Nothing but the installation, for a container that is made before it is used.
setup: $(READY)

run: $(READY)
	@$(BIN)/course run

test: EXTRAS = $(ALL)
test: .venv/extras
	@$(BIN)/python tests/run_all.py

# Formatting, types and the tests that are not marked `slow`: what to run before each commit.
check: $(READY)
	@$(BIN)/python tests/run_all.py --quick

lab: $(READY)
	@$(BIN)/course lab

notebooks: $(READY)
	@$(BIN)/python website/record.py

bench: .venv/bench
	@$(BIN)/python benchmarks/peers/compare.py
	@$(BIN)/python benchmarks/run.py
	@$(BIN)/python benchmarks/start.py
	@$(BIN)/python benchmarks/strategies.py
	@$(BIN)/python benchmarks/test_part.py measure
	@$(BIN)/python benchmarks/pieces.py
	@$(BIN)/python benchmarks/rules.py
	@$(BIN)/python benchmarks/quality.py
	@$(BIN)/python benchmarks/deploy.py
	@$(BIN)/python benchmarks/rare.py
	@$(BIN)/python benchmarks/minutes.py

.venv/bench: $(READY)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python $(BACKEND) $(CONSTRAINTS) --editable ".[dev,bench,export]"
	@touch $@

# For `make test` in a .venv that was made without them.
.venv/extras: $(READY)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python $(BACKEND) $(CONSTRAINTS) --editable ".[$(ALL)]"
	@touch $@

docs: $(READY)
	@$(BIN)/python website/build.py

# Puts the site of `make docs` on the branch gh-pages of origin.
docs-publish: $(READY)
	@$(BIN)/smalldocs publish gh-pages . --no-render

docs-preview: $(READY)
	@$(BIN)/python website/build.py --serve

# The whole course as one file, _docs/course.epub or, with FORMAT=pdf, course.pdf; it needs Quarto.
FORMAT ?= epub
book: $(READY)
	@$(BIN)/python website/build.py --format $(FORMAT)

readme: $(READY)
	@$(BIN)/python website/readme.py

help:
	@sed -n '1,5s/^# //p' Makefile
	@echo "  make notebooks  run all lessons and save their outputs    make bench  measure, beside the peers"
	@echo "  make docs       build the site (Quarto, or smalldocs)     make docs-preview  build it and serve it"
	@echo "  make readme     write README.md from nbs/index.ipynb      make setup  install, and nothing else"
	@echo "  make book       the course as EPUB (FORMAT=pdf: PDF); only with Quarto"
	@echo "  make clean      remove .venv and what was built"

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10))" || \
		{ echo "The course needs Python 3.10 or newer; name one with: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@echo "Setting up .venv (once; a few minutes and about 6 GB with the GPU build of PyTorch) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python $(BACKEND) $(CONSTRAINTS) --editable ".[$(EXTRAS)]"
	@echo "$(TORCH)" > .venv/torch
	@touch $@

clean:
	rm -rf .venv _docs _proc _book_proc *.egg-info
