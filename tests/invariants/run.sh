#!/usr/bin/env bash
# Runs the hosts in C, Python and Go that check what containers do to them: once in each variant,
# and once for each --break, which they must notice. One line for each item, and a sum at the end.
# Run by `make test-invariants`, which says in PKG_CONFIG_PATH, LD_LIBRARY_PATH and PYTHON where
# the library is, and in LOCULE_TEST_PLUGIN where the example plugins are.
#
#     run.sh [LANGUAGE...]        c, python and go by default
set -u -o pipefail

# Others may mount and unmount on this machine meanwhile, which a mount namespace does not see.
if [ "$(id -u)" = 0 ] && [ "${1-}" != --inside ]; then
    exec unshare --mount "$0" --inside "$@"
fi
[ "${1-}" != --inside ] || shift

here=$(cd "$(dirname "$0")" && pwd)
out=$here/../../target/invariants
passed=0 failed=0 skipped=0

# What the host does with --break, and the item that must not be fine then.
breaks='
umask               umask
umask-for-a-moment  nor for a moment; descriptors are close-on-exec
child               no child, at no time
child               no SIGCHLD, no other signal from a container
fd                  descriptors
thread              threads: none added, none renamed
directory           working directory and root of every thread
environment         environment
mask                signal mask of every thread
handler             signal dispositions, all 64
output              nothing written to descriptors 0 to 2, nothing read
subreaper           dumpable and subreaper flags
namespace           namespaces of every thread
keyring             keyrings, timer slack, signal stack, memory policy of every worker
oom                 oom_score_adj
limit               resource limits
memory              resident memory does not grow
address-space       address space stays bounded, at every moment
'

tell() { # passed|failed LINE
    local count=$1
    shift
    ((++$count))
    printf '%s\n' "$*"
}

skip() { # WHAT MISSING
    ((++skipped))
    echo "skipped: $1: $2"
}

# The hosts tell how large their address space is. An allocator that has a part of it for each
# thread would say more of itself than of the library.
export MALLOC_ARENA_MAX=2

# A directory that every user may reach, as the host's own, and an empty one in it.
scratch=$(mktemp -d) && chmod 755 "$scratch" || exit 1
trap 'rm -rf "$scratch"' EXIT
fresh() {
    rm -rf "$scratch/work" && mkdir "$scratch/work" && echo "$scratch/work"
}

# Runs a host and counts its lines. What it says besides is shown if it fails.
# check LANGUAGE VARIANT COMMAND...
check() {
    local title="$1 $2" status line some=0
    shift 2
    timeout -k 5 120 "$@" >"$scratch/lines" 2>"$scratch/errors"
    status=$?
    while IFS= read -r line; do
        case $line in
            "ok "*) tell passed "$line"; some=1 ;;
            FAILED*) tell failed "$line"; some=2 ;;
            *) echo "         | $line" ;;
        esac
    done <"$scratch/lines"
    # One that breaks down in the middle, or before, has not passed.
    if [ $some = 0 ] || { [ $some = 1 ] && [ $status != 0 ]; }; then
        tell failed "FAILED   $title: the host ended with status $status"
        sed 's/^/         | /' "$scratch/errors"
    fi
}

# Whether a host that breaks the rules is told so. notice LANGUAGE WHAT COMMAND...
notice() {
    local language=$1 what=$2 item name
    shift 2
    timeout -k 5 120 "$@" "$(fresh)" --break "$what" >"$scratch/lines" 2>&1
    while read -r name item; do
        [ "$name" = "$what" ] || continue
        if grep -qF "FAILED   $language plain: $item: " "$scratch/lines"; then
            tell passed "ok       $language --break $what is noticed: $item"
        else
            tell failed "FAILED   $language --break $what is not noticed: $item"
            grep -v '^ok ' "$scratch/lines" | sed 's/^/         | /'
        fi
    done <<<"$breaks"
}

notice_all() { # LANGUAGE COMMAND...
    local language=$1 what
    shift
    for what in $(awk 'NF && !seen[$1]++ { print $1 }' <<<"$breaks"); do
        notice "$language" "$what" "$@" plain
    done
}

enough_memory() {
    awk '/^MemAvailable/ { exit $2 < 3000000 }' /proc/meminfo
}

# The variants that a host in any language brings about itself. usual LANGUAGE COMMAND...
usual() {
    local language=$1 variant
    shift
    for variant in plain sigchld-ignored foreign-reaper no-clone3 resident-2g plugins; do
        if [ $variant = resident-2g ] && ! enough_memory; then
            skip "$language $variant" '3 GB of free memory'
        elif [ $variant = plugins ] && [ ! -e "${LOCULE_TEST_PLUGIN-}/stamp.wasm" ]; then
            skip "$language $variant" 'LOCULE_TEST_PLUGIN, a folder with stamp.wasm'
        else
            check "$language" $variant "$@" $variant "$(fresh)"
        fi
    done
}

# --- C ---------------------------------------------------------------------------------------

# All capabilities that may be had here, by number: "CAPABILITY" with the number in its place.
capabilities() { # FORMAT
    local bounding number list=
    bounding=$((16#$(awk '/^CapBnd/ { print $2 }' /proc/self/status)))
    for ((number = 0; number < 63; number++)); do
        ((bounding >> number & 1)) && list+=,${1/CAPABILITY/$number}
    done
    echo "${list#,}"
}

ordinary=(setpriv --reuid 64123 --regid 64123 --clear-groups)
fresh_for_ordinary() {
    fresh && chown 64123:64123 "$scratch/work"
}

# As check, with a root filesystem of one program for images.
# with_tree LANGUAGE VARIANT COMMAND...
with_tree() {
    local tree=$scratch/tree busybox
    for busybox in $(command -v busybox) /bin/busybox ''; do
        ! readelf -lW "$busybox" 2>/dev/null | grep -q INTERP && [ -n "$busybox" ] && break
    done
    if [ -z "$busybox" ]; then
        skip "$1 $2" 'a busybox without libraries'
        return
    fi
    rm -rf "$tree" && mkdir -p "$tree/bin" "$tree/etc" "$tree/tmp" && cp "$busybox" "$tree/bin/busybox" &&
        ln "$tree/bin/busybox" "$tree/bin/sh" && ln -s busybox "$tree/bin/sleep" &&
        echo 'root:x:0:0::/:/bin/sh' >"$tree/etc/passwd"
    LOCULE_TEST_TREE=$tree check "$@"
}

in_c() {
    local host=$out/host variant preload all
    ${CC:-cc} -std=gnu11 -O1 -Wall -Wextra -Werror -o "$host" "$here/host.c" \
        $(pkg-config --cflags --libs locule) || { tell failed 'FAILED   c: does not compile'; return; }
    usual c "$host"
    for variant in ordinary-user closed-stdio few-descriptors; do
        check c $variant "$host" $variant "$(fresh)"
    done
    for variant in images images-ordinary-user; do
        with_tree c $variant "$host" $variant "$(fresh)"
    done

    preload=$(ldconfig -p | awk '/libjemalloc\.so\.2/ { print $NF; exit }')
    if [ -n "$preload" ]; then
        check c preloaded-malloc env LD_PRELOAD="$preload" "$host" preloaded-malloc "$(fresh)"
    else
        skip 'c preloaded-malloc' 'libjemalloc2'
    fi

    # The setting is that of a pid namespace. Its first process is not to be the host, which
    # would get every orphan as its child.
    if unshare -pf --mount-proc sh -c 'echo 2 >/proc/sys/vm/memfd_noexec' 2>"$scratch/errors"; then
        check c memfd-noexec unshare -pf --mount-proc sh -c \
            'echo 2 >/proc/sys/vm/memfd_noexec && "$0" memfd-noexec "$1"' "$host" "$(fresh)"
    else
        skip 'c memfd-noexec' 'vm.memfd_noexec, of Linux 6.3'
    fi

    # Linked with the library, because such a program takes no LD_LIBRARY_PATH.
    ${CC:-cc} -std=gnu11 -O1 -o "$scratch/host" "$here/host.c" $(pkg-config --cflags locule) \
        "$(pkg-config --variable=libdir locule)/liblocule.a" -lseccomp -lpthread -ldl -lm
    all=$(capabilities +cap_CAPABILITY)
    check c ambient-capabilities "${ordinary[@]}" --inh-caps "$all" --ambient-caps "$all" \
        "$scratch/host" ambient-capabilities "$(fresh_for_ordinary)"
    if setcap "$(capabilities CAPABILITY)=ep" "$scratch/host" 2>/dev/null; then
        check c file-capabilities "${ordinary[@]}" \
            "$scratch/host" file-capabilities "$(fresh_for_ordinary)"
    else
        skip 'c file-capabilities' 'setcap (libcap2-bin), or a filesystem for it'
    fi

    notice_all c "$host"
}

# --- Python and Go ---------------------------------------------------------------------------

in_python() {
    local python=${PYTHON:-python3}
    if ! "$python" -c 'import locule' 2>/dev/null; then
        skip python 'the package locule'
        return
    fi
    usual python "$python" "$here/host.py"
    notice_all python "$python" "$here/host.py"
}

in_go() {
    if ! command -v go >/dev/null; then
        skip go go
        return
    fi
    (cd "$here/go" && go build -o "$out/host-go" .) || { tell failed 'FAILED   go: does not compile'; return; }
    usual go "$out/host-go"
    notice_all go "$out/host-go"
}

mkdir -p "$out"
if [ "$(id -u)" != 0 ]; then
    skip 'the host invariants' root
else
    [ $# != 0 ] || set -- c python go
    for language in "$@"; do
        in_"$language"
    done
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
