# The front door. `make help` lists the targets.
BUILD ?= build
JOBS  ?= $(shell nproc)
CMAKE_FLAGS ?=
# Looked up when it is used: `make packages` may have installed ninja by then. A folder keeps the generator that it has.
GENERATOR = $(shell command -v ninja >/dev/null 2>&1 && echo "-G Ninja")
DEMO_MINUTES ?= 5

PYTHON ?= python3

.PHONY: all demo test bench sanitize configure packages format clean help

all: configure ## build the programs into this folder
	@cmake --build $(BUILD) -j $(JOBS) --target programs

configure: packages
	@mkdir -p $(BUILD)
	@if [ -f $(BUILD)/CMakeCache.txt ]; then cmake -S . -B $(BUILD) $(CMAKE_FLAGS); else cmake -S . -B $(BUILD) $(GENERATOR) $(CMAKE_FLAGS); fi \
	  >$(BUILD)/configure.log 2>&1 || { cat $(BUILD)/configure.log; rm -f $(BUILD)/CMakeCache.txt; exit 2; }
	@grep 'kiln:' $(BUILD)/configure.log

packages: ## install what is missing from the distribution (or print the line to run)
	@scripts/install_packages.sh

demo: ## install, build, get sample pictures, train five minutes, show where the results are
	@scripts/demo.sh $(DEMO_MINUTES)

test: configure ## build and run every test
	@cmake --build $(BUILD) -j $(JOBS)
	@cd $(BUILD) && ctest --output-on-failure

sanitize: packages ## the executor's and kernels' tests under AddressSanitizer and UBSan
	@$(MAKE) --no-print-directory configure BUILD=$(BUILD)-asan CMAKE_FLAGS="-DKILN_SANITIZE=address -DKILN_CUDA=OFF -DKILN_BIN=$(CURDIR)/$(BUILD)-asan/bin -DCMAKE_BUILD_TYPE=Sanitize"
	@cmake --build $(BUILD)-asan -j $(JOBS) --target sanitized_tests
	@cd $(BUILD)-asan && ctest --output-on-failure -L sanitize

bench: configure ## FastGAN's training step beside PyTorch's (PYTHON=: one that has torch)
	@cmake --build $(BUILD) -j $(JOBS) --target bench_fastgan
	@$(PYTHON) bench/fastgan_bench.py

format: ## clang-format over all sources
	@git ls-files '*.h' '*.cpp' '*.cu' | xargs clang-format -i

clean: ## remove the builds
	@rm -rf $(BUILD) $(BUILD)-asan build-demo

help:
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
