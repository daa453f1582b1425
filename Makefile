# The front door. `make help` lists the targets.
BUILD ?= build
JOBS  ?= $(shell nproc)
CMAKE_FLAGS ?=
# Looked up when it is used: `make packages` may have installed ninja by then. A folder keeps the generator that it has.
GENERATOR = $(shell command -v ninja >/dev/null 2>&1 && echo "-G Ninja")
DEMO_MINUTES ?= 5
FUZZ_SECONDS ?= 600
PREFIX ?= /usr/local

PYTHON ?= python3

.PHONY: all install demo test test-long bench bench-kernels count-table ptxas-table gpu-deps gpu-check sanitize sanitize-threads fuzz configure packages format clean help

all: configure ## build the programs into this folder
	@cmake --build $(BUILD) -j $(JOBS) --target programs

configure: packages
	@mkdir -p $(BUILD)
	@if [ -f $(BUILD)/CMakeCache.txt ]; then cmake -S . -B $(BUILD) $(CMAKE_FLAGS); else cmake -S . -B $(BUILD) $(GENERATOR) $(CMAKE_FLAGS); fi \
	  >$(BUILD)/configure.log 2>&1 || { cat $(BUILD)/configure.log; rm -f $(BUILD)/CMakeCache.txt; exit 2; }
	@grep 'kiln:' $(BUILD)/configure.log

packages: ## install what is missing from the distribution (or print the line to run)
	@scripts/install_packages.sh

install: configure ## programs, library, headers, CMake package and pkg-config file under PREFIX (/usr/local)
	@cmake --build $(BUILD) -j $(JOBS) --target programs kiln
	@cmake --install $(BUILD) --prefix "$(PREFIX)" >$(BUILD)/install.log || { cat $(BUILD)/install.log; exit 2; }
	@echo "installed under $(PREFIX)"

demo: ## install, build, get sample pictures, train five minutes, show where the results are
	@scripts/demo.sh $(DEMO_MINUTES)

test: configure ## build and run every test that does not take long
	@cmake --build $(BUILD) -j $(JOBS)
	@cd $(BUILD) && ctest --output-on-failure -j $(JOBS) -LE long

test-long: configure ## the long ones: twenty runs of three ranks, one of which is killed
	@cmake --build $(BUILD) -j $(JOBS)
	@cd $(BUILD) && ctest --output-on-failure -L long

sanitize: packages ## the executor's and kernels' tests under AddressSanitizer and UBSan
	@$(MAKE) --no-print-directory configure BUILD=$(BUILD)-asan CMAKE_FLAGS="-DKILN_SANITIZE=address -DKILN_CUDA=OFF -DKILN_BIN=$(CURDIR)/$(BUILD)-asan/bin -DCMAKE_BUILD_TYPE=Sanitize"
	@cmake --build $(BUILD)-asan -j $(JOBS) --target sanitized_tests
	@cd $(BUILD)-asan && ctest --output-on-failure -L sanitize

sanitize-threads: packages ## two trainings and two generators at once under ThreadSanitizer
	@$(MAKE) --no-print-directory configure BUILD=$(BUILD)-tsan CMAKE_FLAGS="-DKILN_SANITIZE=thread -DKILN_CUDA=OFF -DKILN_BIN=$(CURDIR)/$(BUILD)-tsan/bin -DCMAKE_BUILD_TYPE=Sanitize"
	@cmake --build $(BUILD)-tsan -j $(JOBS) --target threads_test
	@cd $(BUILD)-tsan && ctest --output-on-failure -R '^threads$$'

fuzz: packages ## libFuzzer on the readers of pictures, safetensors and .pth files (needs clang; FUZZ_SECONDS each)
	@scripts/fuzz.sh $(FUZZ_SECONDS)

bench: configure ## training steps of FastGAN, BigGAN and SSW-GAN, and FastGAN's sampling, beside PyTorch's (PYTHON=: one that has torch)
	@cmake --build $(BUILD) -j $(JOBS) --target bench_fastgan bench_biggan bench_sswgan
	@$(PYTHON) bench/fastgan_bench.py
	@$(PYTHON) bench/fastgan_sample_bench.py
	@$(PYTHON) bench/biggan_bench.py
	@$(PYTHON) bench/sswgan_bench.py

bench-kernels: configure ## check and time every fused kernel (docs/kernels.md)
	@cmake --build $(BUILD) -j $(JOBS) --target bench_kernels
	@./bench_kernels

count-table: configure ## write the counted tables of docs/gpu.md anew
	@cmake --build $(BUILD) -j $(JOBS) --target bench_fastgan
	@$(PYTHON) scripts/gpu_tables.py count

ptxas-table: configure ## write the table of registers in docs/gpu.md anew (needs nvcc)
	@cmake --build $(BUILD) -j $(JOBS) --target kiln_kernels_gpu
	@$(PYTHON) scripts/gpu_tables.py ptxas $(BUILD)

gpu-deps: ## download the packages that a bare GPU machine needs (DEPS=folder, SOURCES=apt sources of another release)
	@test -n "$(DEPS)" || { echo "gpu-deps: name a folder: make gpu-deps DEPS=folder" >&2; exit 2; }
	@scripts/gpu_deps.sh "$(DEPS)" "$(SOURCES)"

gpu-check: ## all that a GPU must show, into one report (OUT=folder, DEPS=folder of packages, PART=one part, DATA=pictures)
	@test -n "$(OUT)" || { echo "gpu-check: name a folder for the report: make gpu-check OUT=folder" >&2; exit 2; }
	@$(PYTHON) scripts/gpu_check.py --out "$(OUT)" $(if $(DEPS),--deps "$(DEPS)") $(foreach p,$(PART),--part $(p)) $(if $(DATA),--data "$(DATA)")

format: ## clang-format over all sources
	@git ls-files '*.h' '*.cpp' '*.cu' | xargs clang-format -i

clean: ## remove the builds
	@rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-tsan build-demo build-fuzz

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20
