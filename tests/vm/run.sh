#!/usr/bin/env bash
# Starts a virtual machine with a Debian kernel and systemd, and runs a command there as root.
# See tests/README.md.
#
#     run.sh A|B|C [--with FILE]... [COMMAND [ARGUMENT]...]
#     run.sh prepare              only makes what all runs need
#
# The test programs of this tree and each FILE are in the command's PATH. Without a command: the
# suites of the machine. Ends with the command's exit code; 120 if the machine failed.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
out=$PWD/target/vm
broken=120

usage() { sed -n 's/^#     //p' "$0" >&2; exit 2; }

case ${1-} in
    A) kernel=6.12 options= ;;
    B) kernel=6.1 options='systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1' ;;
    C) kernel=6.1 options= ;;
    prepare) ;;
    *) usage ;;
esac
machine=$1
shift
files=()
while [ "${1-}" = --with ]; do
    [ $# -ge 2 ] || usage
    files+=("$2")
    shift 2
done
[ $# -gt 0 ] || set -- suites "$machine"

missing() { echo "skipped: virtual machines: $*"; exit 0; }
[ "$(uname -m)" = x86_64 ] || missing "an x86-64 machine"
# The test programs need the C library that they were built with.
grep -q VERSION_CODENAME=bookworm /etc/os-release || missing "Debian 12"
[ "$(id -u)" = 0 ] || missing "root"
for program in qemu-system-x86_64 debootstrap cpio xz depmod mkfs.ext4 busybox; do
    command -v $program >/dev/null || missing "$program"
done
"$here/assets.sh" "$out"

# All at once, as `cargo test --workspace` builds them, so that nothing is built twice.
built=$(cargo test --workspace --no-run 2>&1) || { echo "$built" >&2; exit 1; }
[ "$machine" != prepare ] || exit 0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# --- The disk with the programs -------------------------------------------------------------

program() { # NAME IN-THE-LIST [CRATE]
    local path
    path=$(sed -n "s|^ *Executable $2 (\(.*/${3-}[^/]*\))\$|\1|p" <<<"$built")
    [ -f "$path" ] || { echo "cargo builds not one $2, but: $path" >&2; exit 1; }
    objcopy --strip-debug "$path" "$work/programs/$1"
}
mkdir "$work/programs"
program cgroup tests/cgroup.rs
program lifecycle cases/main.rs lifecycle-
for name in endings failures inside interfaces memory; do
    program "keeper-$name" "tests/$name.rs"
done
program keeper-lifecycle tests/lifecycle.rs
program checkpoint tests/checkpoint.rs
objcopy --strip-debug target/debug/locule "$work/programs/locule"
cc -O -static -o "$work/programs/debug-exit" "$here/debug-exit.c"
cp "$here/suites" "${files[@]}" "$work/programs"
printf '#!/bin/sh\nexec%s\n' "$(printf ' %q' "$@")" >"$work/programs/command"
chmod -R a+rX "$work/programs"
chmod a+x "$work/programs"/*
truncate -s 512M "$work/programs.ext4"
mkfs.ext4 -q -F -O ^has_journal -d "$work/programs" "$work/programs.ext4"

# --- The machine ----------------------------------------------------------------------------

log=$out/console-$machine.log
disk() { echo "if=virtio,format=raw,snapshot=on,file=$1"; }
set +e
timeout --foreground "${LOCULE_VM_TIMEOUT:-1800}" qemu-system-x86_64 \
    -accel tcg,thread=multi -machine q35 -cpu max -smp "${LOCULE_VM_PROCESSORS:-1}" -m 1536 \
    -nodefaults -no-user-config -display none -no-reboot \
    -kernel "$out/kernel-$kernel/vmlinuz" -initrd "$out/kernel-$kernel/initramfs" \
    -append "console=ttyS0 panic=-1 loglevel=4 mitigations=off nokaslr no_timer_check \
        random.trust_cpu=1 cryptomgr.notests rcupdate.rcu_expedited=1 \
        systemd.unit=vm.target systemd.show_status=error $options" \
    -drive "$(disk "$out/root-$kernel.ext4")" -drive "$(disk "$work/programs.ext4")" \
    -device isa-debug-exit,iobase=0x501,iosize=2 \
    -serial "file:$log" -serial stdio </dev/null \
    | sed -u -e "/^@@EXIT /{ s///; w $work/marker" -e 'd; }'
status=${PIPESTATUS[0]}
set -e

# --- How it ended ---------------------------------------------------------------------------

code=$(cat "$work/marker" 2>/dev/null || true)
if [ -n "$code" ] && [ "$status" = $(((code & 127) << 1 | 1)) ]; then
    exit "$code"
fi
case $status in
    124) echo "machine $machine took too long" >&2 ;;
    *) echo "machine $machine ended without an exit code; qemu's is $status" >&2 ;;
esac
sed 's/^/    | /' "$log" >&2
exit $broken
