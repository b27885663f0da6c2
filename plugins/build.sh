#!/bin/bash
# Builds the example plugins from source, each into target/plugins/NAME.wasm. What is newer than its
# sources is left as it is.
#
#   plugins/build.sh [--install-toolchains] [NAME...]
#
# Without names: policy, stamp and inject. `count` has to be named, for its toolchain and the
# component are large. With --install-toolchains what is missing is installed: packages of the
# distribution by apt-get, as root; others into target/plugins/tools.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly root=$PWD out=$PWD/target/plugins
readonly tools=$out/tools
readonly componentize_qjs=0.4.5 componentize_py=0.25.1

fail() {
    echo "plugins/build.sh: $*" >&2
    exit 1
}

# --- Toolchains ----------------------------------------------------------------------------

install=no

# Sees to it that packages of the distribution are there.
packages() {
    local missing=()
    for package; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
            missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    local command="apt-get install -y --no-install-recommends ${missing[*]}"
    [[ $install == yes ]] || fail "cannot build $name: run \`$command\`, or give --install-toolchains"
    ((UID == 0)) || fail "only root can install: $command"
    export DEBIAN_FRONTEND=noninteractive
    # The lists of packages may be missing or old.
    $command >&2 || { apt-get update >&2 && $command >&2; }
}

# Sees to it that a program of our own is there, or lets a command bring it.
tool() {
    local program=$1
    shift
    [[ ! -x $program ]] || return 0
    [[ $install == yes ]] || fail "cannot build $name: $program is missing; give --install-toolchains"
    "$@" >&2
}

# The linker that makes components comes with the toolchains of rustup, beside the one that it calls.
linker() {
    local directory
    for directory in "$(rustc --print sysroot 2>/dev/null)"/lib/rustlib/*/bin; do
        PATH=$PATH:$directory
    done
    command -v wasm-component-ld >/dev/null ||
        fail "cannot build $name: there is no wasm-component-ld; install a current Rust by rustup"
}

# --- Languages -----------------------------------------------------------------------------
# Each function builds the example in `source` into the file in `component`.

# With the target that rustup has, or else with Debian's second compiler, whose source of the
# standard library is compiled along. That one is called by its full name, to be in nobody's way.
rust() {
    local cargo=(cargo) standard_library=() target=wasm32-unknown-unknown
    local PATH=$PATH
    linker
    if [[ ! -d $(rustc --print target-libdir --target $target) ]]; then
        packages rustc-web cargo-web rust-web-src
        cargo=(env RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 /usr/bin/cargo)
        standard_library=('-Zbuild-std=std,panic_abort' -Zbuild-std-features=optimize_for_size)
    fi
    env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u CARGO_BUILD_RUSTFLAGS -u RUSTC_WRAPPER \
        CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-component-ld \
        "${cargo[@]}" build --release --locked --target $target "${standard_library[@]}" \
        --manifest-path "$source/Cargo.toml" --target-dir "$out/rust"
    cp "$out/rust/$target/release/$name.wasm" "$component"
}

c() {
    local PATH=$PATH
    linker
    packages clang-19 wasi-libc
    "$source/bindings.sh" --check
    local objects=() object
    mkdir -p "$out/c/$name"
    for file in "$source"/*.c "$source"/gen/*.c; do
        object=$out/c/$name/$(basename "$file" .c).o
        clang-19 --target=wasm32-wasi -std=c11 -Oz -flto -Wall -Wextra -Werror -c "$file" -o "$object"
        objects+=("$object")
    done
    wasm-component-ld --component-type "$source/wit" --no-entry -s "${objects[@]}" \
        -L/usr/lib/wasm32-wasi -lc -o "$component"
}

javascript() {
    # Not by the packages' names: they may have come another way.
    { command -v node && command -v npm; } >/dev/null || packages nodejs npm
    local prefix=$tools/componentize-qjs-$componentize_qjs
    local program=$prefix/node_modules/.bin/componentize-qjs
    tool "$program" npm install --prefix "$prefix" --no-audit --no-fund \
        "componentize-qjs@$componentize_qjs"
    "$program" --wit "$source/wit" --world "$name" --js "$source/$name.js" --sync --stub-wasi \
        --opt-size --output "$component" >/dev/null
}

python() {
    python3 -c 'import ensurepip' 2>/dev/null || packages python3-venv
    local prefix=$tools/componentize-py-$componentize_py
    tool "$prefix/bin/componentize-py" python_tool
    # It looks for modules where it is called, and none may have the name of the world.
    (cd "$source" && "$prefix/bin/componentize-py" --quiet --wit-path wit --world "$name" componentize \
        --stub-wasi plugin --output "$component")
}

python_tool() {
    python3 -m venv "$prefix" && "$prefix/bin/pip" install --quiet "componentize-py==$componentize_py"
}

# --- The examples --------------------------------------------------------------------------

# Whether the component is newer than everything that it is made from.
is_fresh() {
    [[ -e $out/$name.wasm ]] &&
        [[ -z $(find -L "$@" plugins/wit plugins/build.sh -name target -prune -o \
            -type f ! -name '*.md' -newer "$out/$name.wasm" -print -quit) ]]
}

build() {
    local name=$1 language=$2
    shift 2
    local source=$root/plugins/examples/$name component=$out/.$name.wasm
    ! is_fresh "plugins/examples/$name" "$@" || return 0
    echo "building plugins/examples/$name" >&2
    $language
    mv "$component" "$out/$name.wasm"
}

[[ ${1-} != --install-toolchains ]] || { install=yes; shift; }
(($#)) || set -- policy stamp inject
mkdir -p "$out"
for example; do
    case $example in
        policy) build policy rust plugins/sdk/rust ;;
        stamp) build stamp c ;;
        inject) build inject javascript ;;
        count) build count python ;;
        *) fail "there is no example $example: there are policy, stamp, inject and count" ;;
    esac
done
