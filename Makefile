# Builds, installs and checks Locule. `make help` lists the targets.

PREFIX  ?= /usr/local
LIBDIR  ?= $(PREFIX)/lib
DESTDIR ?=

CARGO   ?= cargo
CC      ?= cc
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
# Changes only when a released program could break: docs/abi-stability.md.
SONAME  := liblocule.so.0

OUT     := target/locule
RUST    := target/release/liblocule_ffi.a
SYMBOLS := ffi/symbols.txt
LIBS    := $(OUT)/lib/$(SONAME) $(OUT)/lib/liblocule.so $(OUT)/lib/liblocule.a
KEEPER  := $(OUT)/libexec/locule-keeper
BINARY  := $(OUT)/bin/locule
TOOL    := $(OUT)/bin/locule-plugin

.PHONY: help build lib stage plugins demo test test-rust test-python test-go test-fuzz fuzz test-refusals test-invariants test-differential test-images test-soak test-runc test-engines test-vm soak bench bench-images deps header test-abi install uninstall fmt lint clean FORCE
.DELETE_ON_ERROR:

help:
	@echo "make demo       run containers from C, Go and Python programs"
	@echo "make test       run every test (as root)"
	@echo "make soak       run 10,000 containers each from a Python and a Go program"
	@echo "make bench      measure, beside runc and crun; QUICK=1 for a short run"
	@echo "make bench-images   measure images, beside umoci, skopeo and podman"
	@echo "make deps       install what the build and the tests need (Debian, Ubuntu; as root)"
	@echo "make build      compile everything"
	@echo "make lib        liblocule.so, liblocule.a and the keeper, in $(OUT)"
	@echo "make install    PREFIX=$(PREFIX) DESTDIR=$(DESTDIR); also: uninstall"
	@echo "make plugins    build the example plugins, and install what that needs (as root)"
	@echo "make header     write include/locule.h from ffi/src"
	@echo "make test-abi   check the C ABI"
	@echo "make fuzz       feed TARGET (or all) for TIME=300 seconds; SEED=N repeats a run"
	@echo "make test-images     compare images with umoci, skopeo, podman and a registry; SEED=N IMAGES=N"
	@echo "make test-refusals   check every error; ONLY=\"WORD...\" chooses, SHOW=1 prints them"
	@echo "make test-runc  run runc's own suite with our command; COMMAND=/a/program, ROOTLESS=1"
	@echo "make test-engines    run containerd, Docker and podman with the command; ENGINES=\"NAME...\""
	@echo "                chooses among them, ONLY=\"WORD...\" among the cases, RUNTIME=runc compares"
	@echo "make test-vm    run the cgroup, keeper and lifecycle suites in virtual machines"
	@echo "make fmt lint clean"

build: lib $(BINARY) $(TOOL)
	$(CARGO) build --release --workspace --exclude locule-cli

# Each by itself: the command does without the compiler that the tool for plugins brings along.
$(BINARY): FORCE
	CARGO="$(CARGO)" CC="$(CC)" hosts/cli/build.sh $@

$(TOOL): FORCE
	$(CARGO) build --release -p locule-plugin-tool
	install -D -m 755 target/release/locule-plugin $@

lib: $(LIBS) $(KEEPER)

# --- The libraries -------------------------------------------------------------------------
# Cargo makes the objects, the linker the libraries: cargo's own cdylib has no soname and no
# symbol versions, and exports more than the ABI.

# With Wasm plugins, of which most is the compiler for them, and images: `plugins` runs plugins that
# are in the cache, `images` does without registries; `make lib FEATURES=` has neither.
FEATURES ?= plugins-compile registry
WITH_FEATURES = --no-default-features --features "$(FEATURES)"

# `--crate-type` because cargo does no LTO for a crate that is made an rlib at the same time.
$(RUST): FORCE
	$(CARGO) rustc --release -p locule-ffi --lib --crate-type staticlib $(WITH_FEATURES)

# The roots of the link, and who else may see them.
$(OUT)/roots $(OUT)/globals $(OUT)/locule.map &: $(SYMBOLS)
	@mkdir -p $(@D)
	sed '/^#/d;s/ .*//' $< >$(OUT)/globals
	sed 's/^/-u /' $(OUT)/globals >$(OUT)/roots
	awk '!/^#/ && NF { of[$$2] = of[$$2] " " $$1 ";" } \
	     END { for (v in of) print v " { global:" of[v] " local: *; };" }' $< >$(OUT)/locule.map

# nodelete: unloading Rust code under running threads crashes, so dlclose keeps the library.
$(OUT)/lib/$(SONAME): $(RUST) $(OUT)/roots $(OUT)/locule.map
	@mkdir -p $(@D)
	$(CC) -shared -o $@ @$(OUT)/roots $(RUST) \
	    -Wl,-soname,$(SONAME) -Wl,--version-script=$(OUT)/locule.map \
	    -Wl,--gc-sections -Wl,-z,defs -Wl,-z,relro -Wl,-z,now -Wl,-z,nodelete \
	    -Wl,--as-needed $(shell pkg-config --libs libseccomp 2>/dev/null) -lgcc_s -lm

$(OUT)/lib/liblocule.so: $(OUT)/lib/$(SONAME)
	ln -sf $(SONAME) $@

# One object in which everything but the ABI is local, so that a program can link it beside
# another Rust library, of whichever compiler. The bitcode that the standard library carries
# for LTO goes: the binutils would hand it to an LLVM that is too old for it.
$(OUT)/lib/liblocule.a: $(RUST) $(OUT)/roots $(OUT)/globals
	@mkdir -p $(@D)
	$(LD) -r --gc-sections --force-group-allocation -o $(OUT)/locule.o @$(OUT)/roots $(RUST)
	objcopy --keep-global-symbols=$(OUT)/globals -R .llvmbc -R .llvmcmd $(OUT)/locule.o
	rm -f $@
	$(AR) rcs $@ $(OUT)/locule.o

$(KEEPER): $(RUST)
	@mkdir -p $(@D)
	$(CARGO) run -q --release -p locule-keeper --bin locule-keeper-image >$@
	chmod 755 $@

# --- Installing ----------------------------------------------------------------------------

BINDIR     = $(DESTDIR)$(PREFIX)/bin
MANDIR     = $(DESTDIR)$(PREFIX)/share/man/man1
BASHDIR    = $(DESTDIR)$(PREFIX)/share/bash-completion/completions
ZSHDIR     = $(DESTDIR)$(PREFIX)/share/zsh/site-functions
FISHDIR    = $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
INCLUDEDIR = $(DESTDIR)$(PREFIX)/include
LIBEXECDIR = $(DESTDIR)$(PREFIX)/libexec/locule
DOCDIR     = $(DESTDIR)$(PREFIX)/share/doc/locule
PCDIR      = $(DESTDIR)$(LIBDIR)/pkgconfig
CMAKEDIR   = $(DESTDIR)$(LIBDIR)/cmake/locule
# The installed tree may be moved: its files find each other by relative paths.
relative   = $(shell realpath -m --relative-to=$(1) $(2))
configure  = sed -e 's|@VERSION@|$(VERSION)|' -e 's|@PREFIX@|$(call relative,$(2),$(DESTDIR)$(PREFIX))|' \
             -e 's|@LIBDIR@|$(call relative,$(2),$(DESTDIR)$(LIBDIR))|' bindings/c/$(1).in >$(2)/$(1)

install: lib $(BINARY) $(TOOL)
	install -d $(BINDIR) $(MANDIR) $(BASHDIR) $(ZSHDIR) $(FISHDIR)
	install -m 755 -s $(BINARY) $(BINDIR)
	$(BINARY) man $(MANDIR)
	$(BINARY) completion bash >$(BASHDIR)/locule
	$(BINARY) completion zsh >$(ZSHDIR)/_locule
	$(BINARY) completion fish >$(FISHDIR)/locule.fish
	install -d $(INCLUDEDIR) $(LIBEXECDIR) $(DOCDIR) $(PCDIR) $(CMAKEDIR)
	install -m 644 include/locule.h $(INCLUDEDIR)
	install -m 755 -s $(OUT)/lib/$(SONAME) $(DESTDIR)$(LIBDIR)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/liblocule.so
	install -m 644 $(OUT)/lib/liblocule.a $(DESTDIR)$(LIBDIR)
	strip --strip-debug $(DESTDIR)$(LIBDIR)/liblocule.a
	install -m 755 $(KEEPER) $(LIBEXECDIR)
	install -m 755 -s $(TOOL) $(LIBEXECDIR)
	$(call configure,locule.pc,$(PCDIR))
	$(call configure,locule-config.cmake,$(CMAKEDIR))
	$(call configure,locule-config-version.cmake,$(CMAKEDIR))
	install -m 644 docs/*.md LICENSE $(DOCDIR)

uninstall:
	rm -f $(BINDIR)/locule $(MANDIR)/locule.1 $(MANDIR)/locule-*.1 $(BASHDIR)/locule \
	    $(ZSHDIR)/_locule $(FISHDIR)/locule.fish
	rm -f $(INCLUDEDIR)/locule.h $(PCDIR)/locule.pc $(DESTDIR)$(LIBDIR)/$(SONAME) \
	    $(DESTDIR)$(LIBDIR)/liblocule.so $(DESTDIR)$(LIBDIR)/liblocule.a
	rm -rf $(LIBEXECDIR) $(DOCDIR) $(CMAKEDIR)

# --- Plugins -------------------------------------------------------------------------------

# The examples that the tests load.
COMPONENTS := $(abspath target/plugins)
# Crates that are no members of the workspace, because they are compiled by another compiler, too.
GUESTS     := plugins/sdk/rust plugins/examples/policy

plugins:
	@plugins/build.sh --install-toolchains policy stamp inject

# --- Showing and testing -------------------------------------------------------------------

# What finds the library that has just been built, installed into a folder of the build.
STAGE  := $(abspath $(OUT)/stage)
WITH   := PKG_CONFIG_PATH=$(STAGE)/lib/pkgconfig LD_LIBRARY_PATH=$(STAGE)/lib
PYTHON := $(OUT)/venv/bin/python

stage: lib
	@$(MAKE) -s install PREFIX=$(STAGE) DESTDIR= >/dev/null

# As a user installs it: pip builds a wheel that carries the library.
$(PYTHON): FORCE | lib
	@test -x $@ || python3 -m venv $(OUT)/venv
	@$@ -m pip install -q --disable-pip-version-check --force-reinstall --no-deps ./bindings/python

demo: deps stage $(PYTHON)
	@echo "=== C ==="
	@$(WITH) sh -c '$(CC) -o $(OUT)/run bindings/c/examples/run.c $$(pkg-config --cflags --libs locule)'
	@$(WITH) $(OUT)/run
	@echo "=== Go ==="
	@cd bindings/go && $(WITH) go run ./examples/run
	@echo "=== Python ==="
	@$(PYTHON) bindings/python/examples/run.py

test: deps lint test-rust test-abi test-python test-go test-refusals test-invariants test-soak test-fuzz test-engines test-vm

test-rust: plugins
	$(CARGO) test --workspace
	for guest in $(GUESTS); do \
	    $(CARGO) test --locked --manifest-path $$guest/Cargo.toml --target-dir $(COMPONENTS)/host || exit; \
	done

# One bundle, two runtimes. SEED=N repeats a run, BUNDLES=N makes it longer.
test-differential: deps
	$(if $(SEED),LOCULE_SEED=$(SEED)) $(if $(BUNDLES),LOCULE_BUNDLES=$(BUNDLES)) \
	    $(CARGO) test -p locule-differential

# Images beside umoci, skopeo, podman and a registry: see tests/README.md.
IMAGE_PACKAGES := umoci skopeo docker-registry openssl podman conmon crun debootstrap
test test-images: PACKAGES += $(IMAGE_PACKAGES)
test-images: deps
	$(if $(SEED),LOCULE_SEED=$(SEED)) $(if $(IMAGES),LOCULE_IMAGES=$(IMAGES)) \
	    $(CARGO) test -p locule-images

test-python: $(PYTHON) plugins
	@$(PYTHON) -m pip install -q --disable-pip-version-check pytest mypy setuptools wheel
	LOCULE_TEST_PLUGIN=$(COMPONENTS) $(PYTHON) -m pytest -q -rs bindings/python/tests

test-go: stage plugins
	cd bindings/go && $(WITH) go vet ./... && $(WITH) LOCULE_TEST_PLUGIN=$(COMPONENTS) go test -race ./...
	cd tests && $(WITH) go vet ./...

bench: PACKAGES += runc crun
bench: deps
	bench/run.sh $(if $(QUICK),quick)

# Beside umoci, skopeo and podman. ROUNDS=N makes it longer.
bench-images: PACKAGES += umoci skopeo podman conmon crun debootstrap e2fsprogs
bench-images: deps $(BINARY)
	unshare --mount --propagation private bench/images.py $(BINARY) bench/IMAGES.md $(ROUNDS)

# Everything that reads what somebody else wrote, fed by libFuzzer: see tests/README.md.
TIME ?= 300
fuzz:
	tests/fuzz/run.sh $(TIME) $(TARGET)
test-fuzz: TIME = 15
# The same every time, so that nothing else fails a change than what it breaks.
test-fuzz: export SEED ?= 1
test-fuzz: fuzz

# runc's own suite with our command, or with COMMAND=/a/program: see tests/README.md. ROOTLESS=1 as an ordinary user.
COMMAND ?= $(abspath $(BINARY))
test-runc: PACKAGES += bats gawk jq iproute2 debootstrap
test-runc: deps $(BINARY)
	tests/runc-integration/run.sh $(if $(ROOTLESS),--rootless) $(COMMAND)

# Whether a host is left as it was: in C, Python and Go.
test-invariants: stage $(PYTHON) plugins
	$(WITH) LOCULE_TEST_PLUGIN=$(COMPONENTS) PYTHON=$(abspath $(PYTHON)) tests/invariants/run.sh

# Thousands of containers from one program: nothing fails, grows or stays. `make soak` is the full
# number, `make test-soak SOAK=N` any other.
SOAK ?= 1000
soak: SOAK = 10000
soak: test-soak
test-soak: stage $(PYTHON)
	$(WITH) PYTHON=$(abspath $(PYTHON)) tests/soak/run.sh $(SOAK)

# The table of what is refused, in three languages: see tests/refusals/run.py. ONLY="WORD..."
# chooses among the cases, and SHOW=1 prints the messages.
test-refusals: stage
	@$(WITH) sh -c '$(CC) -Wall -Wextra -Werror -o $(OUT)/refusals-c tests/refusals/drive.c \
	    $$(pkg-config --cflags --libs locule)'
	@cd tests && $(WITH) go build -o $(abspath $(OUT))/refusals-go ./refusals/go
	@python3 tests/refusals/run.py $(OUT) $(if $(SHOW),--show) $(ONLY)

# Real engines with the command as their runtime: see tests/README.md. RUNTIME=runc takes another,
# ENGINES="NAME..." and ONLY="WORD..." choose.
ENGINE_PACKAGES := containerd docker.io podman conmon containernetworking-plugins iptables runc
test test-engines: PACKAGES += $(ENGINE_PACKAGES)
test-engines: deps $(BINARY)
	@cd tests && go build -o $(abspath $(OUT))/cri ./engines/cri
	@RUNTIME="$(RUNTIME)" ONLY="$(ONLY)" tests/engines/run.py $(ENGINES)

# On other kernels and below systemd, in virtual machines: two at a time, all of them in any case.
VM_PACKAGES := $(if $(filter x86_64,$(shell uname -m)),qemu-system-x86 debootstrap cpio kmod xz-utils e2fsprogs)
test test-vm: PACKAGES += $(VM_PACKAGES)
test-vm: deps
	@tests/vm/run.sh prepare
	@$(MAKE) -s -j2 -k $(addprefix test-vm-,A B C); code=$$?; tests/vm/report.sh; exit $$code
test-vm-%:
	@tests/vm/run.sh $* >target/vm/suites-$*.log 2>&1

# --- Working on Locule ---------------------------------------------------------------------

# What the build and the tests take from the system. As fast as nothing if it is all there. No
# service is started that comes along: the suites start their own.
PACKAGES := gcc g++ make binutils pkg-config libseccomp-dev busybox-static uidmap python3-venv \
    libjemalloc2 libcap2-bin
deps:
	@command -v $(CARGO) >/dev/null || echo "cargo is missing: see https://rustup.rs"
	@command -v dpkg-query >/dev/null || { echo "not Debian or Ubuntu: install what there is called $(PACKAGES)"; exit 0; }; \
	missing=; for package in $(PACKAGES); do \
	    dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ]; then echo "missing:$$missing; run: sudo make deps"; exit 1; fi; \
	policy=/usr/sbin/policy-rc.d; \
	if [ ! -e $$policy ]; then \
	    trap 'rm -f /usr/sbin/policy-rc.d' EXIT; printf '#!/bin/sh\nexit 101\n' >$$policy; chmod 755 $$policy; \
	fi; \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing

header:
	UPDATE=1 $(CARGO) test -q -p locule-ffi --test header the_committed_header

test-abi: lib
	tests/abi/run.sh

fmt:
	$(CARGO) fmt --all
	for guest in $(GUESTS); do $(CARGO) fmt --manifest-path $$guest/Cargo.toml; done

lint:
	$(CARGO) fmt --all --check
	for guest in $(GUESTS); do $(CARGO) fmt --manifest-path $$guest/Cargo.toml --check || exit; done
	$(CARGO) clippy --workspace --all-targets -- -D warnings

clean:
	$(CARGO) clean
