#!/usr/bin/env bash
# Makes a Debian root file system for images out of packages, unless it is there.
#
#     assets.sh DIRECTORY     as root
set -euo pipefail

out=$1
mkdir -p "$out"
exec 9>"$out/lock"
flock 9
if [ -e "$out/debian" ]; then exit; fi
rm -rf "$out/new"
echo "making a Debian root file system"
debootstrap --variant=minbase bookworm "$out/new" >"$out/debootstrap.log" 2>&1 \
    || { tail -20 "$out/debootstrap.log" >&2; exit 1; }
rm -rf "$out"/new/var/cache/apt/* "$out"/new/var/lib/apt/lists/*
mv "$out/new" "$out/debian"
