#!/bin/sh
# Checks the C ABI: what the library exports, what the header says, and that programs built in
# every supported way run. One line a check. Run by `make test-abi`, from the top of the tree.
set -u

out=target/abi
lib=target/locule/lib
here=tests/abi
warnings='-Wall -Wextra -Werror'
private='-lseccomp -lpthread -ldl -lm'
failed=0

rm -rf $out
mkdir -p $out/include-0.1
cp $here/locule-0.1.h $out/include-0.1/locule.h
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)

# check TITLE FUNCTION...: runs it; its output is shown only if it fails.
check() {
    title=$1
    shift
    if "$@" >$out/log 2>&1; then
        echo "ok       $title"
    else
        echo "FAILED   $title"
        sed 's/^/         | /' $out/log
        failed=$((failed + 1))
    fi
}

skip() {
    echo "skipped: $1: $2 is missing"
}

# The names of the functions that a header declares.
functions() {
    sed -n '/^typedef/d; s/^[a-z].*\<\(locule_[a-z_]*\)(.*/\1/p' "$1" | sort
}

listed() {
    sed '/^#/d; s/ /@@/' ffi/symbols.txt | sort
}

# --- The library ---------------------------------------------------------------------------

exports_are_the_list() {
    nm -D --defined-only --with-symbol-versions $lib/liblocule.so.0 |
        awk '$2 != "A" { print $3 }' | sort >$out/exported
    listed | diff - $out/exported
}

static_exports_are_the_list() {
    nm -g --defined-only $lib/liblocule.a | awk 'NF == 3 { print $3 }' | sort >$out/exported
    listed | sed 's/@@.*//' | diff - $out/exported
}

header_declares_the_list() {
    functions include/locule.h >$out/declared
    listed | sed 's/@@.*//' | diff - $out/declared
}

nothing_was_removed() {
    functions $here/locule-0.1.h >$out/declared
    listed | sed 's/@@.*//' | comm -13 - $out/declared >$out/removed
    cat $out/removed
    test ! -s $out/removed
}

dynamic_section() {
    readelf -dW $lib/liblocule.so.0 >$out/dynamic
    cat $out/dynamic
    grep -q 'SONAME.*\[liblocule.so.0\]' $out/dynamic &&
        grep -q 'FLAGS_1.*NOW.*NODELETE' $out/dynamic &&
        ! grep -q TEXTREL $out/dynamic &&
        ! grep NEEDED $out/dynamic | grep -Ev 'libc\.so|libm\.so|libgcc_s|libseccomp|ld-linux'
}

stack_is_not_executable() {
    readelf -lW $lib/liblocule.so.0 | grep GNU_STACK | tee /dev/stderr | grep -qv RWE
}

# --- The header ----------------------------------------------------------------------------

header_is_fresh() {
    cargo test -q -p locule-ffi --test header
}

layout_agrees() {
    cargo test -q -p locule-ffi --test layout
}

compiles() {
    "$@" -fsyntax-only $warnings -pedantic -Iinclude
}

# --- Programs ------------------------------------------------------------------------------

# build NAME ARGUMENTS...: compiles $here/NAME.c against the current header.
build() {
    name=$1
    shift
    cc -std=gnu11 $warnings -Iinclude -DVERSION_OF_THE_BUILD="\"$version\"" \
        -o $out/$name $here/$name.c "$@"
}

# Runs a program with a fresh state directory.
run() {
    state=$(mktemp -d) || return 1
    "$@" "$state"
    status=$?
    rm -rf "$state"
    return $status
}

shared() {
    echo "-L$lib -llocule -Wl,-rpath,$PWD/$lib"
}

loading_changes_nothing() {
    build load -ldl && run $out/load $PWD/$lib/liblocule.so.0
}

refusals_name_every_function() {
    functions include/locule.h | while read -r function; do
        grep -q "\<$function(" $here/refusals.c || echo "$function is not called"
    done >$out/uncalled
    cat $out/uncalled
    test ! -s $out/uncalled
}

refusals() {
    build refusals $(shared) && run $out/refusals
}

# The same under the leak checker, which must not run under a debugger.
leaks() {
    build refusals -fsanitize=leak $(shared) && run $out/refusals
}

lifecycle() {
    build lifecycle $(shared) && run timeout 120 $out/lifecycle
}

plugins() {
    build plugin $(shared) && run timeout 120 $out/plugin
}

# A busybox that needs no libraries, for the tree that becomes an image.
static_busybox() {
    for place in $(command -v busybox) /bin/busybox; do
        readelf -lW "$place" 2>/dev/null | grep -q INTERP || { echo "$place"; return; }
    done
}

images() {
    build image $(shared) && run timeout 120 $out/image "$(static_busybox)"
}

old_header() {
    cc -std=c99 $warnings -I$out/include-0.1 -o $out/old $here/consumer.c $(shared) &&
        run $out/old
}

static_library() {
    build consumer $lib/liblocule.a $private && run $out/consumer
}

beside_another_rust_library() {
    rustc --edition 2024 --crate-type staticlib -o $out/libbeside.a $here/beside.rs &&
        build beside $lib/liblocule.a $out/libbeside.a $private && $out/beside
}

# --- Installing ----------------------------------------------------------------------------

root=$PWD/$out/root

installs() {
    make -s install PREFIX=/opt/locule DESTDIR="$root" && find "$root" -type f
}

pkg_config() {
    export PKG_CONFIG_PATH=$root/opt/locule/lib/pkgconfig
    test "$(pkg-config --modversion locule)" = "$version" &&
        test -x "$(pkg-config --variable=keeper locule)" &&
        cc -std=c99 $warnings $(pkg-config --cflags locule) -o $out/installed $here/consumer.c \
            $(pkg-config --libs locule) -Wl,-rpath,"$(pkg-config --variable=libdir locule)" &&
        run $out/installed
}

cmake_package() {
    cmake -S $here/cmake -B $out/cmake -DCMAKE_PREFIX_PATH="$root/opt/locule" &&
        cmake --build $out/cmake && run $out/cmake/consumer-locule && run $out/cmake/consumer-static
}

uninstalls() {
    make -s uninstall PREFIX=/opt/locule DESTDIR="$root"
    find "$root" ! -type d
    test -z "$(find "$root" ! -type d)"
}

examples() {
    for source in bindings/c/examples/*.c; do
        cc -std=c99 -pedantic $warnings -Iinclude -o "$out/$(basename "$source" .c)" "$source" \
            $(shared) || return 1
    done
}

check 'the shared library exports the list, versioned, and nothing else' exports_are_the_list
check 'the static library exports the list and nothing else' static_exports_are_the_list
check 'the header declares the list' header_declares_the_list
check 'nothing of the first header was removed' nothing_was_removed
check 'soname, immediate binding, no unloading, few dependencies' dynamic_section
check 'the stack is not executable' stack_is_not_executable
check 'include/locule.h is what the sources say' header_is_fresh
check 'structs have the same layout in C and in Rust' layout_agrees
check 'the header is C99 and may be included twice' compiles cc -std=c99 $here/include_twice.c
if command -v g++ >/dev/null; then
    check 'the header is C++17' compiles g++ -std=c++17 -x c++ $here/include_twice.c
else
    skip 'the header is C++17' g++
fi
check 'loading the library changes nothing in the process' loading_changes_nothing
check 'the refusals call every function' refusals_name_every_function
check 'NULL and nonsense are refused' refusals
check 'refusals leak nothing' leaks
if [ "$(id -u)" = 0 ]; then
    check 'a container lives and ends as the header says' lifecycle
    check 'plugins change, refuse and see as the header says' plugins
    if [ -n "$(static_busybox)" ]; then
        check 'images come, go and run as the header says' images
    else
        skip 'images come, go and run as the header says' 'a busybox without libraries'
    fi
else
    skip 'a container lives and ends as the header says' root
    skip 'plugins change, refuse and see as the header says' root
    skip 'images come, go and run as the header says' root
fi
check 'a program built with the first header runs' old_header
check 'a program linked with the static library runs' static_library
check 'the static library links beside another Rust library' beside_another_rust_library
check 'the examples compile' examples
check 'make install' installs
check 'a program built with pkg-config runs' pkg_config
if command -v cmake >/dev/null; then
    check 'programs built with CMake run' cmake_package
else
    skip 'programs built with CMake run' cmake
fi
check 'make uninstall leaves no file' uninstalls

if [ $failed -ne 0 ]; then
    echo "$failed checks failed"
    exit 1
fi
