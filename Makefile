# make bench   makes .venv, runs the default plan, prints the ranking, writes results/
# make test    makes .venv if it is missing, then lint, types, import direction and all tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: bench gpu test lint docker-check bench-gauntlet bench-standing bench-report bench-eight-bits bench-corruptions bench-torch bench-overhead bench-steadiness bench-twice bench-loadgen bench-accuracy-rate picture matrix clean

bench: $(READY)
	$(BIN)/bobrt bench

# What only a GPU can prove, then every runtime on it; the records are named after the GPU, to be committed.
gpu: $(READY)
	@command -v nvidia-smi >/dev/null || { echo "make gpu needs an NVIDIA GPU, and no nvidia-smi is here"; exit 3; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[tensorrt]' \
	  || echo "TensorRT or pycuda cannot be installed: their tests skip, and their cells say what is missing"
	status=0; $(BIN)/python -m pytest -m gpu || status=$$?; \
	  $(BIN)/bobrt bench --plan bench/plans/gpu.toml --results bench/published/$$(nvidia-smi --query-gpu=name \
	  --format=csv,noheader | head -n 1 | tr '[:upper:]' '[:lower:]' | tr -cs '[:alnum:]\n' '-') || status=$$?; \
	  exit $$status

# Two workers, each with half of the cores; a file's tests stay together. One test alone: .venv/bin/pytest PATH
test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/*.Dockerfile
	$(BIN)/shellcheck docker/smoke.sh .ci/run

# What can be proven of the images without Docker: their install lines in clean environments, the compose file, smoke.sh.
docker-check: $(READY)
	PYTHONPATH=tests $(BIN)/python -P tests/docker/replay.py

# The measuring loop around ONNX Runtime against a bare loop over the same session, interleaved.
bench-overhead: $(READY)
	ORT_DISABLE_TELEMETRY=1 $(BIN)/python -P tests/benchmarks/overhead.py

# How far this machine's own speed moves from process to process, by threads.
bench-steadiness: $(READY)
	$(BIN)/python -P tests/benchmarks/steadiness.py

# Two runs of the default plan: how many cells are called different though nothing is.
bench-twice: $(READY)
	$(BIN)/python -P tests/benchmarks/twice.py

# LoadGen's 90th percentile against ours on one session, interleaved.
bench-loadgen: $(READY)
	ORT_DISABLE_TELEMETRY=1 $(BIN)/python -P tests/benchmarks/loadgen.py

# The accuracy evaluation, images prepared meanwhile, against the engine alone on the same batches.
bench-accuracy-rate: $(READY)
	ORT_DISABLE_TELEMETRY=1 $(BIN)/python -P tests/benchmarks/accuracy_rate.py

# What a gauntlet costs beside the pass it is made of, and a probe beside ten epochs of SGD.
bench-gauntlet: $(READY)
	ORT_DISABLE_TELEMETRY=1 $(BIN)/python -P tests/benchmarks/gauntlet.py

# How long a standing of 1,000 backbones in 100 settings takes, and what missing cells do to an order.
bench-standing: $(READY)
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -P tests/benchmarks/standing.py

# How long 100,000 records take to be read, checked and listed.
bench-report: $(READY)
	PYTHONPATH=tests $(BIN)/python -P tests/benchmarks/reading.py

# What the int8 and fp8 files that TensorRT engines are built from lose on the test split, without a GPU: a committed result.
bench-eight-bits: $(READY)
	ORT_DISABLE_TELEMETRY=1 $(BIN)/python -P tests/benchmarks/eight_bits.py

# The README's picture: the HTML report of the committed gauntlet, in Debian's chromium.
picture: $(READY)
	$(BIN)/python -P tests/benchmarks/screenshot.py

# How fast each corruption of the gauntlet is made.
bench-corruptions: $(READY)
	$(BIN)/python -P tests/benchmarks/corruptions.py

# How PyTorch serves a network fastest: memory formats, torch.compile and what it is told.
bench-torch: $(READY)
	$(BIN)/python -P tests/benchmarks/torch_modes.py

# Every architecture of the catalogue: export, proof, every precision, TensorRT-RTX. Hours; stopped, it goes on.
matrix: $(READY)
	ORT_DISABLE_TELEMETRY=1 $(BIN)/python -P tests/benchmarks/matrix.py

# Two makes at once share the environment: the second waits for the first and finds it ready.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "bobrt needs Python 3.11 to 3.13: make PYTHON=python3.12")'
	@flock .venv.lock $(MAKE) --no-print-directory .install

.PHONY: .install
.install:
	@if [ ! -e $(READY) ] || [ pyproject.toml -nt $(READY) ] || [ constraints.txt -nt $(READY) ]; then \
	  set -e; \
	  [ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV); \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,quant,rtx,loadgen,diffusion,hub,report,dev]'; \
	  $(BIN)/python -m pip download --quiet --disable-pip-version-check -c constraints.txt -d $(VENV)/wheels . hatchling; \
	  touch $(READY); \
	fi

clean:
	rm -rf $(VENV) .venv.lock
