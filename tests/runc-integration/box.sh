#!/usr/bin/env bash
# Runs one file of the suite where nothing outlives it and nothing of the machine is in its reach:
# in namespaces of its own, with empty /run and /tmp, and with cgroups that begin at one of ours.
#
#     box.sh SOURCE FILE USER LOG     as root; RUNC and ROOTLESS_FEATURES in the environment
#
# USER is root or rootless. LOG gets what bats prints. SIGTERM ends it early.
set -euo pipefail

if [ "${1-}" != --inside ]; then
    mapfile -t cgroups < <(findmnt --list --noheadings --output TARGET --types cgroup,cgroup2)
    cgroups=("${cgroups[@]/%//runc-integration-$$}")
    # shellcheck disable=SC2317 # called by the trap
    remove() {
        local cgroup try
        for cgroup in "${cgroups[@]}"; do
            # What was in there has been killed, but may still be on its way.
            for ((try = 0; try < 50; try++)); do
                [ -d "$cgroup" ] || continue 2
                find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
            done
            [ ! -d "$cgroup" ] || echo "left: $cgroup" >&2
        done
    }
    trap remove EXIT
    mkdir "${cgroups[@]}"
    for file in "${cgroups[@]/%//cpuset.cpus}" "${cgroups[@]/%//cpuset.mems}"; do
        # On version 1 an empty set lets nothing run.
        [ ! -e "$file" ] || cat "${file%/*/*}/${file##*/}" >"$file"
    done
    for file in "${cgroups[@]/%//cpu.rt_runtime_us}"; do
        # One case hands on two thirds of a second each second. What stays is for others.
        [ ! -e "$file" ] || echo 700000 2>/dev/null >"$file" || true
    done
    (
        for cgroup in "${cgroups[@]}"; do echo $BASHPID >"$cgroup/cgroup.procs"; done
        exec unshare --mount --net --pid --uts --ipc --cgroup --fork --kill-child --mount-proc \
            --propagation private "$0" --inside "$@"
    ) &
    box=$!
    # The first process in there minds no other signal.
    trap 'kill -KILL $box' TERM INT
    wait $box && status=0 || status=$?
    trap - TERM INT
    wait $box 2>/dev/null || true
    exit "$status"
fi
source=$2 file=$3 user=$4 log=$5

ip link set lo up
mount --make-rshared / # as systemd has it: some cases are about propagation
mount -t tmpfs -o mode=755 tmpfs /run
# One case writes the configuration of CRIU, and leaves it so.
[ ! -d /etc/criu ] || mount -t tmpfs tmpfs /etc/criu
mkdir /run/suite
mount --bind "$source" /run/suite # where an ordinary user can reach it
: >"$log"
touch /run/log
mount --bind "$log" /run/log

# --- cgroups ---------------------------------------------------------------------------------
# The same hierarchies again, in new places: there they begin at the cgroups we are in.

hierarchies=$(findmnt --list --noheadings --output TARGET,FSTYPE,OPTIONS --types cgroup,cgroup2)
if [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ]; then
    # The suite makes directories for controllers that are not mounted, too.
    mkdir /run/cgroup
    mount -t tmpfs -o mode=755 cgroup /run/cgroup
    find /sys/fs/cgroup -maxdepth 1 -type l -exec cp -P -t /run/cgroup {} +
    mount --rbind /run/cgroup /sys/fs/cgroup
fi
while read -r target type options; do
    # Of the options only the controllers and the name belong to the hierarchy.
    options=$(tr , '\n' <<<"$options" | grep -vxE 'rw|no.*|relatime|xattr|release_agent=.*' | paste -sd, || true)
    mkdir -p "$target"
    mount -t "$type" ${options:+-o "$options"} cgroup "$target"
done <<<"$hierarchies"

# --- The user --------------------------------------------------------------------------------
# An ordinary one is made as runc's own tests/rootless.sh makes it, but is known only in here.

as=()
become_ordinary() {
    local file root type cgroup
    mkdir -p /run/etc /run/user/1000 /run/home
    awk -F: '$1 != "rootless" && $3 != 1000' /etc/passwd >/run/etc/passwd
    awk -F: '$1 != "rootless" && $3 != 1000' /etc/group >/run/etc/group
    echo 'rootless:x:1000:1000::/run/home:/bin/bash' >>/run/etc/passwd
    echo 'rootless:x:1000:' >>/run/etc/group
    touch /run/etc/subuid /run/etc/subgid
    if [[ $ROOTLESS_FEATURES == *idmap* ]]; then
        export ROOTLESS_UIDMAP_START=100000 ROOTLESS_UIDMAP_LENGTH=65536
        export ROOTLESS_GIDMAP_START=200000 ROOTLESS_GIDMAP_LENGTH=65536
        echo "rootless:$ROOTLESS_UIDMAP_START:$ROOTLESS_UIDMAP_LENGTH" >/run/etc/subuid
        echo "rootless:$ROOTLESS_GIDMAP_START:$ROOTLESS_GIDMAP_LENGTH" >/run/etc/subgid
        # For a case of cwd.bats. 1000 is the first identity in the container that is mapped there.
        export ROOTLESS_AUX_UID=1024 ROOTLESS_AUX_DIR=/tmp/auxiliary
        mkdir -m 700 $ROOTLESS_AUX_DIR
        chown $((ROOTLESS_UIDMAP_START - 1000 + ROOTLESS_AUX_UID)) $ROOTLESS_AUX_DIR
    fi
    for file in passwd group subuid subgid; do mount --bind /run/etc/$file /etc/$file; done
    chown rootless: /run/home /run/user/1000
    chmod a+w /run/log

    if [[ $ROOTLESS_FEATURES == *cgroup* ]]; then
        # Also on version 2 of a machine with both: runc stops where it may not put a process, and
        # takes the hierarchies in a random order.
        while read -r root type _; do
            cgroup=$root/runc-cgroups-integration-test
            mkdir "$cgroup"
            chown rootless: "$cgroup"
            for file in "$cgroup"/{cgroup.procs,tasks,cgroup.subtree_control} \
                "$cgroup"/{cpuset.cpus,cpuset.mems,cpu.rt_period_us,cpu.rt_runtime_us}; do
                [ ! -e "$file" ] || chown rootless: "$file"
            done
            # To move there, one has to be allowed to write where both places meet.
            [ "$type" = cgroup ] || chown rootless: "$root/cgroup.procs"
        done <<<"$hierarchies"
    fi
    as=(setpriv --reuid rootless --regid rootless --init-groups
        env HOME=/run/home USER=rootless XDG_RUNTIME_DIR=/run/user/1000)
}

mount -t tmpfs -o mode=1777 tmpfs /tmp
[ "$user" = root ] || become_ordinary

# Some cases want a terminal; when its input ended, script would type a character into it.
mkfifo /run/input
exec <>/run/input
# What a failed case leaves running holds bats's own descriptors, and bats waits for it.
end_leftovers() {
    local plan
    until plan=$(sed -n 's/^1\.\.//p' /run/log 2>/dev/null) && [ -n "$plan" ] \
        && [ "$(grep -cE '^(not )?ok ' /run/log)" -ge "$plan" ]; do
        sleep 1
    done
    sleep 3
    pkill -x 'recvtty|seccompagent|pidfd-kill|sd-helper' || true
}
end_leftovers &

bats="bats --tap /run/suite/tests/integration/$file >/run/log 2>&1"
# Not with exec: the first process has to reap what becomes its child, and who changes its user is
# no longer killed with unshare.
"${as[@]}" script --quiet --return --command "$bats" /dev/null >/dev/null || exit
