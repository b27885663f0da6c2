#!/bin/sh
# Builds the benchmark and runs it where every contender finds the same: a private mount
# namespace with nothing but cgroup v2. Leaves no cgroup, mount or process.
#
# usage: run.sh [quick]       the tables, also written to bench/RESULTS.md
#        run.sh trace floor|locule COUNT COMMAND...
#                             COUNT starts under a tracer: strace -f -r -T -o FILE, perf stat
set -eu

here=$(cd "$(dirname "$0")" && pwd)
build=${CARGO_TARGET_DIR:-$here/../target}
work=$build/bench

if [ "${1-}" != --inside ]; then
    for program in runc crun unshare cargo "${CC:-cc}"; do
        command -v "$program" >/dev/null || {
            echo "skipped: $program is missing" \
                 "(apt-get install --no-install-recommends runc crun gcc libc6-dev)" >&2
            exit 1
        }
    done
    [ "$(id -u)" = 0 ] || { echo "skipped: the benchmark needs root" >&2; exit 1; }
    mkdir -p "$work"
    (cd "$here/.." && cargo build -q --release -p locule-bench)
    "$here/../hosts/cli/build.sh" "$work/locule"
    "$here/../plugins/build.sh" --install-toolchains policy
    # Static, so that no dynamic linker is measured; the container's program has no libc at all.
    ${CC:-cc} -O2 -Wall -Wextra -static -o "$work/floor" "$here/floor/floor.c"
    ${CC:-cc} -O2 -Wall -Wextra -static -nostdlib -ffreestanding -fno-stack-protector \
        -o "$work/true" "$here/bundle/true.c"
    cp "$build/release/locule-bench" "$work/locule-bench"
    cp "$here/../target/plugins/policy.wasm" "$work/policy.wasm"
    exec unshare --mount --propagation private "$0" --inside "$@"
fi
shift

umount -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p "$work/tmp"
mount -t tmpfs -o mode=755 bench "$work/tmp"
mkdir -p "$work/tmp/rootfs/proc" "$work/tmp/rootfs/dev" "$work/tmp/rootfs/sys"
cp "$work/true" "$work/tmp/rootfs/true"
cgroup=locule-bench-$$
mkdir "/sys/fs/cgroup/$cgroup"
# Held containers need several descriptors each.
ulimit -n "$(ulimit -H -n)"

remove() {
    trap - EXIT INT TERM HUP
    [ -d "/sys/fs/cgroup/$cgroup" ] || return 0
    # What a failed run has left; a complete one leaves empty directories.
    echo 1 >"/sys/fs/cgroup/$cgroup/cgroup.kill"
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        find "/sys/fs/cgroup/$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null && return 0
        sleep 0.1
    done
    echo "bench: cgroup $cgroup could not be removed" >&2
}
trap remove EXIT
trap 'remove; exit 1' INT TERM HUP

case ${1-} in
    trace)
        shift
        "$work/locule-bench" trace "$work/tmp" "$cgroup" "$work/floor" "$@" ;;
    quick) "$work/locule-bench" run "$work/tmp" "$cgroup" "$work/floor" "$here/RESULTS.md" quick ;;
    *) "$work/locule-bench" run "$work/tmp" "$cgroup" "$work/floor" "$here/RESULTS.md" ;;
esac
