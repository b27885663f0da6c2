#!/usr/bin/env bash
# Makes what the suite needs: its files and helper programs out of runc's Go module, runc itself,
# and the two root file systems that its cases start from. Does nothing where it is there already.
#
#     assets.sh DIRECTORY     as root
set -euo pipefail

out=$1
version=v1.5.2 # the release that tests/differential compares with
suite=bookworm

mkdir -p "$out"
exec 9>"$out/lock"
flock 9

work=$out/new
rm -rf "$work"
mkdir "$work"
trap 'rm -rf "$work"' EXIT

# Has a function make a file or directory, unless it has done so before from the same.
make() { # NAME FUNCTION
    local from
    from=$(declare -f "$2"; echo "$version $suite")
    if [ -e "$out/$1" ] && [ "$(cat "$out/$1.from" 2>/dev/null)" = "$from" ]; then return; fi
    echo "making $1"
    "$2" "$work/$1"
    rm -rf "${out:?}/$1"
    mv "$work/$1" "$out/$1"
    echo "$from" >"$out/$1.from"
}

# --- runc, its cases and their helpers ------------------------------------------------------

source_tree() { # DIRECTORY
    local module program
    export GOWORK=off GOFLAGS='-trimpath -mod=readonly -p=2'
    # Outside of any module, so that no go.mod has a say.
    module=$(cd / && go mod download -json "github.com/opencontainers/runc@$version" | jq -r .Dir)
    # What is downloaded is read-only and not executable, and a build may want to write.
    cp -r --no-preserve=mode "$module" "$1"
    find "$1/tests" -name '*.sh' -exec chmod a+x {} +
    mkdir "$1/tests/cmd/_bin"
    cd "$1"
    for program in recvtty sd-helper seccompagent fs-idmap pidfd-kill remap-rootfs key_label; do
        go build -tags seccomp -o tests/cmd/_bin/ "./tests/cmd/$program"
    done
    go build -tags seccomp,urfave_cli_no_docs -ldflags "-X main.gitCommit=$version" -o runc .
    cd "$OLDPWD"
}

# --- Root file systems ----------------------------------------------------------------------
# Not compressed, because most cases unpack one. The suite leaves out what is called ./dev/...

# Like the image busybox of Docker: every applet a hard link in /bin, and no /proc and /sys, which
# some cases make their own way.
busybox_image() { # TAR
    local root=$1.root
    mkdir -p "$root"/{bin,dev,etc,home,lib,root,tmp,usr/bin,usr/sbin,var/spool/mail,var/www}
    chmod 1777 "$root/tmp"
    chmod 700 "$root/root"
    cp "$(command -v busybox)" "$root/bin/busybox"
    busybox --list | grep -vx busybox | while read -r applet; do
        ln "$root/bin/busybox" "$root/bin/$applet"
    done
    ln -s ../../bin/env "$root/usr/bin/env"
    cat >"$root/etc/passwd" <<-'END'
	root:x:0:0:root:/root:/bin/sh
	daemon:x:1:1:daemon:/usr/sbin:/bin/false
	bin:x:2:2:bin:/bin:/bin/false
	sys:x:3:3:sys:/dev:/bin/false
	mail:x:8:8:mail:/var/spool/mail:/bin/false
	www-data:x:33:33:www-data:/var/www:/bin/false
	nobody:x:65534:65534:nobody:/home:/bin/false
	END
    cat >"$root/etc/group" <<-'END'
	root:x:0:
	daemon:x:1:
	bin:x:2:
	sys:x:3:
	tty:x:5:
	mail:x:8:
	www-data:x:33:
	users:x:100:
	nobody:x:65534:
	END
    tar -C "$root" -cf "$1" .
    rm -rf "$root"
}

debian_image() { # TAR
    local root=$1.root
    debootstrap --variant=minbase "$suite" "$root" >"$out/debootstrap.log" 2>&1 \
        || { tail -20 "$out/debootstrap.log" >&2; exit 1; }
    rm -rf "$root"/var/{cache,lib}/{apt,dpkg,debconf}/* \
        "$root"/usr/share/{doc,man,locale,info,bash-completion,zoneinfo}
    tar -C "$root" --exclude './dev/*' -cf "$1" .
    rm -rf "$root"
}

make source source_tree
make busybox.tar busybox_image
make debian.tar debian_image

# Where the suite looks for them before it would download others.
data=$out/source/tests/integration/testdata
for image in busybox debian; do
    ln -f "$out/$image.tar" "$data/$image-$(go env GOARCH).tar.xz"
done
