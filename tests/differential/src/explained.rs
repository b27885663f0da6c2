//! Differences to the oracle that are meant. Users read of them in
//! docs/differences-to-runc.md.

pub struct Row {
    /// How the oracle's line looks, empty if it has none: `*` is anything, and `~` the same as the
    /// `~` of that number in `ours`.
    pub oracle: &'static str,
    /// How Locule's line looks.
    pub ours: &'static str,
    pub reason: &'static str,
}

pub const ROWS: &[Row] = &[
    Row {
        oracle: "*status SigIgn:\\x090000000080000000",
        ours: "*status SigIgn:\\x090000000000000000",
        reason: "every signal has its default disposition; under runc signal 32 is ignored",
    },
    Row {
        oracle: "~prctl pdeathsig=0",
        ours: "~prctl pdeathsig=9",
        reason: "a process dies with its keeper",
    },
    Row {
        oracle: "exec fd *=/dev/null flags=8000 ~",
        ours: "exec fd *=/dev/null flags=28002 ~",
        reason: "another process's /dev/null is the container's, not the host's",
    },
    Row {
        oracle: "~fd 2=/mnt/messages* flags=~ uid=* ~",
        ours: "~fd 2=/mnt/messages* flags=~ uid=* ~",
        reason: "a file of the host's that is a standard stream keeps its owner",
    },
    Row {
        oracle: "exec env 0=HOME=/root",
        ours: "exec env 0=PATH=/bin",
        reason: "another process without an environment has the container's",
    },
    Row {
        oracle: "",
        ours: "exec env 1=HOME=/root",
        reason: "another process without an environment has the container's",
    },
    Row {
        oracle: "exec rlimit ~=*",
        ours: "exec rlimit ~=*",
        reason: "another process without limits has the container's",
    },
    Row {
        oracle: "exec oom_score_adj=*",
        ours: "exec oom_score_adj=77",
        reason: "another process's oomScoreAdj counts",
    },
    Row {
        oracle: "mount /mnt=root / on / options rw,relatime tags  is tmpfs recursive rw,mode=755",
        ours: "mount /mnt=root / on / options rw,nosuid,nodev,relatime tags  is tmpfs recursive rw,mode=755",
        reason: "recursive options count for new filesystems, too",
    },
    Row {
        oracle: "mount ~=root / on ~ options ro,relatime tags ~ is tmpfs tmpfs ro,size=4k,nr_inodes=1~",
        ours: "mount ~=root / on ~ options ro,nosuid,nodev,noexec,relatime tags ~ is tmpfs none ro,nr_inodes=1,mode=555~",
        reason: "a masked directory can do even less",
    },
    Row {
        oracle: "~=d 1777 0:0",
        ours: "~=d 0555 0:0",
        reason: "a masked directory can do even less",
    },
    Row {
        oracle: "path ~ filesystem=1021994 flags=1021",
        ours: "path ~ filesystem=1021994 flags=102f",
        reason: "a masked directory can do even less",
    },
    Row {
        oracle: "mount ~=root /null on ~ options rw,* tags * is *",
        ours: "mount ~=root /null on ~ options ro,nosuid,noexec,relatime tags * is devtmpfs *",
        reason: "a masked file is the host's null device: nothing in the container could be put in its place",
    },
    Row {
        oracle: "path ~ filesystem=1021994 flags=1020",
        ours: "path ~ filesystem=1021994 flags=102b",
        reason: "a masked file is the host's null device: nothing in the container could be put in its place",
    },
    Row {
        oracle: "path ~ filesystem=1021994 flags=22",
        ours: "path ~ filesystem=1021994 flags=102b",
        reason: "a masked file is the host's null device: nothing in the container could be put in its place",
    },
    Row {
        oracle: "path ~=d ~ 0:0",
        ours: "path ~=d ~ 1000:100*",
        reason: "what is copied up keeps its owner",
    },
    Row {
        oracle: "* /dev/mqueue=d 1777 *",
        ours: "* /dev/mqueue=d 1777 *",
        reason: "/dev/mqueue belongs to who made the ipc namespace",
    },
    Row {
        oracle: "keyring=keyring;0;0;*;_ses.*",
        ours: "keyring=keyring;0;0;*;_ses",
        reason: "the session keyring has no name",
    },
    Row {
        oracle: "keyring=keyring;0;0;*;_ses.*",
        ours: "keyring=keyring;65534;65534;*;_ses",
        reason: "the session keyring has no name",
    },
    Row {
        oracle: "mount ~ tags master is devtmpfs ~",
        ours: "mount ~ tags  is devtmpfs ~",
        reason: "a device bound from the host does not follow the host's mounts",
    },
    Row {
        oracle: "mount /sys/fs/cgroup~=root / on /sys options * is tmpfs tmpfs rw,mode=755~",
        ours: "mount /sys/fs/cgroup~=root / on /sys options * is tmpfs tmpfs rw,size=64k,mode=755~",
        reason: "the tmpfs with the cgroups is small, and read-only if the mount is to be",
    },
    Row {
        oracle: "path /sys/fs/cgroup filesystem=1021994 flags=102e",
        ours: "path /sys/fs/cgroup filesystem=1021994 flags=102f",
        reason: "the tmpfs with the cgroups is small, and read-only if the mount is to be",
    },
    Row {
        oracle: "path /sys/fs/cgroup write=yes",
        ours: "path /sys/fs/cgroup write=EROFS",
        reason: "the tmpfs with the cgroups is small, and read-only if the mount is to be",
    },
    Row {
        oracle: "path /sys/fs/cgroup write=EACCES",
        ours: "path /sys/fs/cgroup write=EROFS",
        reason: "the tmpfs with the cgroups is small, and read-only if the mount is to be",
    },
    Row {
        oracle: "mount /sys/fs/cgroup/~ tags * is cgroup * rw,~",
        ours: "mount /sys/fs/cgroup/~ tags * is cgroup cgroup rw,~",
        reason: "cgroups do not follow the host's mounts",
    },
    Row {
        oracle: "mount /sys/fs/cgroup/~ options *,nosuid,nodev,noexec,relatime tags ~ is cgroup * rw,~",
        ours: "mount /sys/fs/cgroup/~ options *relatime tags ~ is cgroup cgroup rw,~",
        reason: "cgroups have the options that are asked for",
    },
    Row {
        oracle: "",
        ours: "mount /sys/fs/cgroup/unified*",
        reason: "of a hybrid host the version 2 hierarchy is there, too",
    },
    Row {
        oracle: "left the cgroup *-above*",
        ours: "",
        reason: "a creation that fails leaves no cgroup above the container's, either",
    },
    Row {
        oracle: "created cgroup ~=*differential-~",
        ours: "created cgroup ~=locule/differential-~",
        reason: "without a cgroupsPath a container's cgroup is /locule/ID",
    },
    Row {
        oracle: "* setting memory.kmem.tcp.limit_in_bytes=9223372036854771712",
        ours: "* setting memory.kmem.tcp.limit_in_bytes=67108864",
        reason: "memory.kernelTCP counts",
    },
    Row {
        oracle: "exec status Umask:*",
        ours: "exec status Umask:*",
        reason: "another process has the umask of its own user",
    },
    Row {
        oracle: "update=refused: *cpu.shares: invalid argument*",
        ours: "update=fine",
        reason: "an update of an idle group leaves its shares alone",
    },
    Row {
        oracle: "mount ~ tags shared is ~",
        ours: "mount ~ tags shared,master is ~",
        reason: "a shared root also follows the host",
    },
    Row {
        oracle: "mount ~ tags shared is tmpfs shared ~",
        ours: "mount ~ tags  is tmpfs shared ~",
        reason: "a recursive rootfsPropagation is for every mount",
    },
    Row {
        oracle: "mount ~ tags  is ~",
        ours: "mount ~ tags master is ~",
        reason: "a bind without a propagation follows the host if the root does",
    },
    Row { oracle: "mount *#*=root /null on *", ours: "", reason: "what is masked is covered once" },
    Row {
        oracle: "mount *#*=root / on / options ro,* tags shared is tmpfs tmpfs ro,*",
        ours: "",
        reason: "what is masked is covered once",
    },
    Row {
        oracle: "mount ~=root ~ on * options ro,relatime tags shared is *",
        ours: "mount ~=root ~ on / options ro,relatime tags shared,master is *",
        reason: "what is masked is covered once",
    },
    Row {
        oracle: "mount ~=root ~ options ro,noexec,relatime tags ~ is tmpfs *",
        ours: "mount ~=root ~ options r*,relatime tags ~ is tmpfs *",
        reason: "a mount takes no option from one that it hides",
    },
    Row {
        oracle: "mount ~=root ~ options rw,~ tags ~ is tmpfs tmpfs *",
        ours: "mount ~=root ~ options ro,~ tags ~ is tmpfs tmpfs *",
        reason: "a later mount may hide a read-only tmpfs",
    },
    Row {
        oracle: "path ~ filesystem=1021994 flags=1029",
        ours: "path ~ filesystem=1021994 flags=102*",
        reason: "a mount takes no option from one that it hides",
    },
    Row {
        oracle: "path ~ write=EROFS",
        ours: "path ~ write=yes",
        reason: "a mount takes no option from one that it hides",
    },
    Row {
        oracle: "path ~ write=EROFS",
        ours: "path ~ write=EACCES",
        reason: "a mount takes no option from one that it hides",
    },
    Row {
        oracle: "create=refused: *ata*defaults*",
        ours: "create=fine",
        reason: "defaults is an option of every mount",
    },
    Row {
        oracle: "create=refused: *tmpcopyup: failed to copy*: invalid argument*",
        ours: "create=fine",
        reason: "what is copied up may belong to an id that the container does not have",
    },
    Row {
        oracle: "create=refused: *device or resource busy*",
        ours: "create=fine",
        reason: "a filesystem can be mounted where it is mounted already",
    },
    Row {
        oracle: "create=refused: *tmpcopyup: failed to setup tmpdir*",
        ours: "create=fine",
        reason: "tmpcopyup works where the host's mounts are unbindable",
    },
    Row {
        oracle: "create=refused: *read-only: mount * flags=MS_BIND|MS_REC: invalid argument*",
        ours: "create=fine",
        reason: "paths can be write-protected where the host's mounts are unbindable",
    },
    Row {
        oracle: "create=refused: *MS_REMOUNT|MS_BIND: no such file or directory*",
        ours: "create=fine",
        reason: "a later mount may hide a read-only tmpfs",
    },
    Row {
        oracle: "create=refused: *MS_REMOUNT|MS_BIND: invalid argument*",
        ours: "create=fine",
        reason: "a later mount may hide a read-only tmpfs",
    },
    Row {
        oracle: "mount /mnt=root / on / options rw,noatime tags unbindable is tmpfs contradiction rw,mode=755",
        ours: "mount /mnt=root / on / options rw,relatime tags  is tmpfs contradiction rw,mode=755",
        reason: "of contradicting options the last one counts",
    },
    Row {
        oracle: "create=fine",
        ours: "create=refused: *create the device *something else is there*",
        reason: "a device of a user namespace has the numbers that are asked for",
    },
    Row {
        oracle: "create=refused: *cap_last_cap*",
        ours: "create=fine",
        reason: "proc may be mounted with subset=pid",
    },
    Row {
        oracle: "create=refused: *cgroup* to rootfs* invalid argument*",
        ours: "create=fine",
        reason: "cgroups can be mounted on a host with unbindable mounts",
    },
    Row {
        oracle: "create=refused: *sysfs* to rootfs* operation not permitted*",
        ours: "create=fine",
        reason: "a user namespace without a network of its own sees the host's sysfs",
    },
    Row {
        oracle: "create=fine",
        ours: "create=refused: *hostname would change the host*",
        reason: "a hostname without a uts namespace for it is refused",
    },
    Row {
        oracle: "create=fine",
        ours: "create=refused: *contradicts the field *",
        reason: "a sysctl that contradicts hostname or domainname is refused",
    },
    Row {
        oracle: "create=refused: *cannot punch hole*",
        ours: "create=fine",
        reason: "what later device rules undo need not be possible in version 1",
    },
    Row {
        oracle: "create=fine",
        ours: "create=refused: *leaves its hierarchy or names its root (at /linux/cgroupsPath)",
        reason: "a cgroupsPath with .. is refused",
    },
    Row {
        oracle: "create=fine",
        ours: "create=refused: *died while it was set up: it was killed by signal 31",
        reason: "what the filter kills in the set-up fails the creation",
    },
    Row {
        oracle: "start=fine",
        ours: "start=refused: *hook * exited with status * (at /hooks/startContainer/*",
        reason: "start waits until the program is executed",
    },
    Row {
        oracle: "~status Cap*:\\x09000001ff*",
        ours: "~status Cap*:\\x090000000000000000",
        reason: "without process.capabilities there are none",
    },
    Row {
        oracle: "mknod *=yes",
        ours: "mknod *=EPERM",
        reason: "without process.capabilities there are none",
    },
    Row {
        oracle: "hook ~ directory=/mnt/bundle*",
        ours: "hook ~ directory=/",
        reason: "hooks on the host start in /",
    },
    Row {
        oracle: "hook ~ environment=*",
        ours: "hook ~ environment=PATH=/sbin:/usr/sbin:/bin:/usr/bin SHLVL=1 ",
        reason: "a hook on the host has the environment of the configuration and no other",
    },
    Row {
        oracle: "hook poststart ~ state=~\"created\"~",
        ours: "hook poststart ~ state=~\"running\"~",
        reason: "poststart hooks are told that the container is running",
    },
];
