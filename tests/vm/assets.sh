#!/usr/bin/env bash
# Makes what the virtual machines start from, out of Debian packages: kernels, their initramfs, and
# a root file system for each. Does nothing where it is there already.
#
#     assets.sh DIRECTORY     as root
set -euo pipefail

out=$1
here=$(cd "$(dirname "$0")" && pwd)
suite=bookworm
# A name of ours and the package that stands for the newest kernel of that line.
kernels='6.12 linux-image-6.12-cloud-amd64
6.1 linux-image-cloud-amd64'
packages=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,uidmap,procps,kmod,iproute2,libseccomp2,busybox-static,criu,iptables,nftables

mkdir -p "$out"
exec 9>"$out/lock"
flock 9

work=$out/new
rm -rf "$work"
mkdir "$work"
trap 'rm -rf "$work"' EXIT

# Has a function make a file or directory, unless it has done so before from the same.
make() { # NAME FROM FUNCTION [ARGUMENT]...
    local from
    from=$(declare -f "$3"; printf '%s\n' "$2" "${@:4}")
    if [ -e "$out/$1" ] && [ "$(cat "$out/$1.from" 2>/dev/null)" = "$from" ]; then return; fi
    echo "making $1 for virtual machines"
    "${@:3}" "$work/$1"
    rm -rf "${out:?}/$1"
    mv "$work/$1" "$out/$1"
    echo "$from" >"$out/$1.from"
}

# --- The files of Debian --------------------------------------------------------------------

base() { # ROOT
    local root=$1
    debootstrap --variant=minbase --include="$packages" "$suite" "$root" >"$out/debootstrap.log" 2>&1 \
        || { tail -20 "$out/debootstrap.log" >&2; exit 1; }
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* \
        "$root"/usr/share/{doc,man,locale,info,bash-completion}
    chroot "$root" useradd --create-home --uid 1000 --shell /bin/sh tester
}
make base "$suite $packages" base

# --- Kernels --------------------------------------------------------------------------------

# What mounts the root file system. The other modules are loaded from there.
initramfs() { # MODULES-ROOT VERSION TARGET
    local tree=$work/initramfs file
    mkdir -p "$tree"/{bin,dev,proc,root}
    cp "$(command -v busybox)" "$tree/bin/busybox"
    {
        echo '#!/bin/busybox sh'
        echo '/bin/busybox mount -t devtmpfs dev /dev'
        modprobe --dirname="$1" --set-version="$2" --show-depends --all \
            virtio_pci virtio_blk ext4 crc32c_generic \
            | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
                case $file in
                    *.xz) xz -dc "$file" >"$tree/$(basename "$file" .xz)" ;;
                    *) cp "$file" "$tree" ;;
                esac
                echo "/bin/busybox insmod /$(basename "$file" .xz)"
            done
        echo 'until [ -b /dev/vda ]; do /bin/busybox sleep 0.1; done'
        echo '/bin/busybox mount -t ext4 -o rw /dev/vda /root'
        echo '/bin/busybox umount /dev'
        echo 'exec /bin/busybox switch_root /root /sbin/init'
    } >"$tree/init"
    chmod 755 "$tree/init"
    (cd "$tree" && find . | cpio --quiet -o -H newc) >"$3"
    rm -rf "$tree"
}

download() { # PACKAGE
    package=$(apt-cache depends "$1" | awk '$1 == "Depends:" { print $2; exit }')
    [ -n "$package" ] && (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root "$package")
}

kernel() { # PACKAGE TARGET
    local package version
    # The lists may be older than the archive.
    download "$1" || { apt-get update -qq && download "$1"; }
    dpkg -x "$work/$package"_*.deb "$work/deb"
    version=${package#linux-image-}
    depmod --basedir="$work/deb" "$version"
    mkdir "$2"
    mv "$work/deb/boot/vmlinuz-$version" "$2/vmlinuz"
    initramfs "$work/deb" "$version" "$2/initramfs"
    mv "$work/deb/lib/modules" "$2/modules"
    rm -rf "$work/deb" "$work"/*.deb
}
while read -r name package; do
    make "kernel-$name" "$(declare -f initramfs download)" kernel "$package"
done <<<"$kernels"

# --- Root file systems ----------------------------------------------------------------------

image() { # KERNEL TARGET
    local root=$work/root unit
    cp -a "$out/base" "$root"
    cp -a "$out/kernel-$1/modules" "$root/usr/lib/modules"
    cp -R "$here/guest/." "$root"
    mkdir -p "$root/programs" "$root/var/lib/systemd/linger"
    touch "$root/var/lib/systemd/linger/tester"
    echo vm >"$root/etc/hostname"
    # What only takes time.
    for unit in timers.target getty.target systemd-timesyncd.service systemd-journal-flush.service \
        systemd-update-utmp.service systemd-random-seed.service modprobe@drm.service \
        modprobe@efi_pstore.service dev-hugepages.mount sys-kernel-debug.mount \
        sys-kernel-tracing.mount sys-kernel-config.mount; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit"
    done
    truncate -s 2G "$2"
    mkfs.ext4 -q -F -O ^has_journal -d "$root" "$2"
    rm -rf "$root"
}
guest=$(cd "$here/guest" && find . -type f | sort | xargs sha256sum)
while read -r name package; do
    make "root-$name.ext4" "$guest $(cat "$out/base.from" "$out/kernel-$name.from")" image "$name"
done <<<"$kernels"
