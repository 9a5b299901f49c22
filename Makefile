# Two commands for a newcomer: `make demo` and `make test`. Both make their own .venv first.
PYTHON ?= python3
BIN := .venv/bin
DEMO ?= demo_run
REV ?= HEAD~1
SECONDS ?= 600
WIDTHS ?= 64 256
MICROBATCH ?= 8
SEED ?= 0
SHARDS := s3://stratagan/demo

.PHONY: demo demo-through-s3 scale chaos cost speed memory scoring label-free bf16 gpu reviewed equality fuzz test test-slow lab clean

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "StrataGAN needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[test]'
	touch $@

# Simulate cell videos, shard them into a local S3 store, train on two Ray workers, score the test set.
demo: .venv/ready
	rm -rf $(DEMO)
	$(BIN)/python -m cluster store $(DEMO)/store -- $(MAKE) --no-print-directory demo-through-s3

# Each line is what a user types, whose AWS variables name the store; any path may be s3://bucket/prefix or a folder.
demo-through-s3:
	$(BIN)/python -m data_tools simulate $(DEMO)/videos --sequences 16 --frames 8 --seed $(SEED)
	$(BIN)/python -m data_tools baxter $(DEMO)/videos --out $(SHARDS) --resolution 32 --seed $(SEED)
	$(BIN)/python -m data_tools inspect $(SHARDS) --out $(DEMO)/contact-sheets
	$(BIN)/python -m trainer train --data $(SHARDS) --out $(DEMO)/run --preset demo --workers 2 --seed $(SEED) --cache $(DEMO)/cache
	$(BIN)/python -m trainer evaluate $(DEMO)/run --cache $(DEMO)/cache

# The data path at its full size, 525,657 training patches through the local S3 store: about 10 minutes, 8 GB of disk.
scale: .venv/ready
	$(BIN)/python -m tests.benchmarks.scale

# Twenty small training runs that lose a worker, the driver or the S3 store and end like one that was left alone: half an hour.
chaos: .venv/ready
	$(BIN)/python -m tests.benchmarks.chaos

# What checkpoints cost a training run, at full speed and over a slow link to the store.
cost: .venv/ready
	$(BIN)/python -m tests.benchmarks.cost

# A training step against plain code that computes the same, and two workers against one: a quarter of an hour.
speed: .venv/ready
	$(BIN)/python -m tests.benchmarks.speed $(WIDTHS)

# What a step of the paper's networks takes in memory, in passes of MICROBATCH images: minutes.
memory: .venv/ready
	$(BIN)/python -m tests.benchmarks.memory $(MICROBATCH)

# Images a second of score, audit, calibration and cluster score beside ONNX: make scoring DO="RUN ...", minutes.
scoring: .venv/ready
	$(BIN)/python -m tests.benchmarks.scoring $(DO)

# Scores, audits and heat maps without labels on trained runs, as CSV: make label-free DO="scores RUN ...".
label-free: .venv/ready
	$(BIN)/python -m tests.benchmarks.label_free $(DO)

# A command of the trainer with bf16 as hardware rounds it, on a CPU without: make bf16 DO="train --precision bf16 ...".
bf16: .venv/ready
	$(BIN)/python -m tests.benchmarks.hardware_bf16 $(DO)

# The paper's networks on a GPU, nine minutes at most; torch and this repository are enough: make gpu PYTHON=python3.
gpu:
	$(PYTHON) -m tests.benchmarks.gpu gpu.json

# What decisions about training images teach the score: make reviewed DO="OUT.csv RUN ...", runs on labelled data.
reviewed: .venv/ready
	$(BIN)/python -m tests.benchmarks.reviewed $(DO)

# Whether this tree computes what the commit REV did, to the bit: half an hour; ONLY="'score-*'" for some cases.
equality: .venv/ready
	$(BIN)/python -m tests.benchmarks.equality $(REV) $(if $(ONLY),--only $(ONLY))

# Files and requests that others made, exchanged here and there: nothing but a line of error. SECONDS for each of ten.
fuzz: .venv/ready
	$(BIN)/python -m tests.benchmarks.fuzz --seconds $(SECONDS)

test: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m 'not slow and not lab' --durations=20

# What takes longer, all of it or a room: make test-slow ROOM=trainer (data_tools, trainer, tuning, cluster, k8s).
test-slow: .venv/ready
	$(BIN)/python -m pytest -m slow --durations=20 tests/$(ROOM)

# Training runs on three hosts made of network namespaces, through power cuts and pulled cables: root only, about 20 minutes.
lab: .venv/ready
	$(BIN)/python -m pytest -m lab -s tests/cluster/test_lab.py

clean:
	rm -rf .venv $(DEMO) scale_run cost_run chaos_run build *.egg-info
