//! Every operation a plan can hold, and what carrying it out means.
//!
//! An operation is mechanism: all policy has been decided by the compiler. A *slot* is an
//! index into the descriptors that travel with the plan. A path that is *in the root* is
//! resolved beneath the container's root by descriptor, with symlinks confined to it.

use core::ffi::CStr;

use crate::wire::{Field, List, Malformed, Numbers, Reader, Value};

macro_rules! operations {
    ($($(#[$doc:meta])* $code:literal $name:ident {
        $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)?
    })*) => {
        /// One step of a plan.
        #[allow(missing_docs, reason = "the variants' texts say what their fields are")]
        #[derive(Debug, Clone, Copy)]
        pub enum Operation<'a> {
            $($(#[$doc])* $name { $($(#[$field_doc])* $field: $type),* },)*
        }

        impl<'a> Operation<'a> {
            /// The number that stands for the operation in an encoded plan.
            pub fn code(&self) -> u16 {
                match self { $(Operation::$name { .. } => $code,)* }
            }

            /// The operation's name.
            pub fn name(&self) -> &'static str {
                match self { $(Operation::$name { .. } => stringify!($name),)* }
            }

            /// The name of the operation with this number.
            pub fn name_of(code: u16) -> Option<&'static str> {
                match code { $($code => Some(stringify!($name)),)* _ => None }
            }

            pub(crate) fn decode(code: u16, reader: &mut Reader<'a>) -> Result<Self, Malformed> {
                let _ = &reader;
                Ok(match code {
                    $($code => Operation::$name { $($field: <$type>::decode(reader)?),* },)*
                    other => return Err(Malformed::UnknownOperation(other)),
                })
            }

            #[cfg(feature = "encode")]
            pub(crate) fn encode(&self, out: &mut alloc::vec::Vec<u8>) {
                let _ = &out;
                match self {
                    $(Operation::$name { $($field),* } => { $($field.encode(out);)* })*
                }
            }

            /// Calls `visit` with the name and value of each field.
            pub fn fields(&self, visit: &mut dyn FnMut(&'static str, Value<'a>)) {
                let _ = &visit;
                match self {
                    $(Operation::$name { $($field),* } => {
                        $(visit(stringify!($field), $field.value());)*
                    })*
                }
            }
        }
    };
}

operations! {
    // ---- Stream::Launch: the keeper prepares to create the process -------------------

    /// Create the process in new namespaces: `flags` are `CLONE_NEW*` bits for `clone3`.
    /// Never holds `CLONE_NEWCGROUP` or `CLONE_NEWTIME`, which the child unshares itself, and in a
    /// user namespace not `CLONE_NEWIPC`.
    1 NewNamespaces { flags: u64 }
    /// Enter the pid or time namespace in `slot` for the process that is about to be created.
    /// With `stage` 0 the keeper enters and leaves again (`setns` on its own `for_children`).
    2 JoinForChild { kind: u64, slot: u32 }
    /// Create the process directly in the cgroup v2 directory in `slot` (`CLONE_INTO_CGROUP`).
    3 IntoCgroup { slot: u32 }
    /// Create the process through an intermediate child that first joins the user namespace
    /// (and then `kinds` of others) of the process in `slot`, or the namespace in `slot`
    /// itself when `kinds` is 0. Needed where the keeper lacks privilege over the namespaces.
    4 ThroughUserNamespace { slot: u32, kinds: u64 }

    // ---- Stream::Parent: the keeper acts on the waiting process -------------------------

    /// Write `deny` to `/proc/PID/setgroups`.
    10 DenySetgroups {}
    /// Write the user id map of the process.
    11 UidMap { map: &'a CStr }
    /// Write the group id map of the process.
    12 GidMap { map: &'a CStr }
    /// Run a setuid helper (`newuidmap`, `newgidmap`) as `program PID args...`; it must exit 0.
    13 RunIdMapper { program: &'a CStr, args: List<'a> }
    /// Set a resource limit: of the waiting process in [`Stream::Parent`](crate::Stream),
    /// of the acting process elsewhere.
    14 ResourceLimit { resource: u32, soft: u64, hard: u64 }
    /// Write `oom_score_adj`, of the same process as in [`Operation::ResourceLimit`].
    15 OomScoreAdj { value: i32 }
    /// Each [`Operation::Mount`] and [`Operation::Bind`] that follows in this stream is made by
    /// the keeper, with its ids mapped and `propagation` set (`MS_*` bits), and handed to the
    /// process for an [`Operation::Attach`]. The map is that of a user namespace with these
    /// maps or, if they are empty, of the process's own.
    16 IdMap { uid: &'a CStr, gid: &'a CStr, propagation: u64 }

    // ---- Stream::Child: the process becomes the container's ------------------------------

    /// Write "0" to the `cgroup.procs` file in `slot`.
    20 EnterCgroup { slot: u32 }
    /// `setns` to the namespace in `slot`, of `kind` (one `CLONE_NEW*` bit). In
    /// [`Stream::Launch`](crate::Stream) it is an intermediate process that joins, before it
    /// creates the new one in a new user namespace, which would have no power to join.
    21 JoinNamespace { kind: u64, slot: u32 }
    /// `setns` to the namespaces `kinds` of the process whose pidfd is in `slot`.
    22 JoinProcess { slot: u32, kinds: u64 }
    /// `unshare(flags)`, for `CLONE_NEWCGROUP` and `CLONE_NEWIPC`.
    23 Unshare { flags: u64 }
    /// Unshare a time namespace, write `offsets` to `/proc/self/timens_offsets`, enter it.
    24 NewTimeNamespace { offsets: &'a CStr }
    /// Become id 0 in the user namespace just created or joined: `setgid(0)`, `setuid(0)`.
    25 BecomeRoot {}
    /// `setsid()`.
    26 NewSession {}
    /// Join a new session keyring; not an error where the kernel forbids it.
    27 NewKeyring {}
    /// Bring the loopback interface up.
    28 LoopbackUp {}
    /// Change the propagation of every mount in the namespace (`MS_PRIVATE`, `MS_SLAVE`, ...,
    /// with `MS_REC`).
    29 Propagation { flags: u64 }
    /// Make `path` (on the host) the container's root: a bind mount of itself and all below.
    /// `kind` is one of [`root`].
    30 Root { path: &'a CStr, kind: u32 }
    /// Make an overlay the container's root: `lower` on the host is its topmost read-only layer,
    /// with those of `below` beneath it in this order. The changes go to the directories `upper` and
    /// `work` in `changes`, made if missing, or, if that is empty, to a tmpfs with which they vanish.
    /// In any case a tmpfs is mounted over the directory `scratch`.
    31 OverlayRoot { lower: &'a CStr, below: List<'a>, changes: &'a CStr, scratch: &'a CStr }
    /// As [`Operation::OverlayRoot`] of `/` where the user namespace forbids one overlay of
    /// everything: a tmpfs mounted over `scratch` becomes the root, and each of the later
    /// [`Operation::OverlayEntry`] fills a name of it.
    32 OverlayRootByEntry { scratch: &'a CStr }
    /// Directory `name` of the host's `/`, overlaid, at the same name in the new root.
    33 OverlayEntry { name: &'a CStr }
    /// Create a directory in the root, with its parents, if missing.
    34 Directory { path: &'a CStr, mode: u32 }
    /// Create a symbolic link in the root, unless something is there.
    35 Symlink { path: &'a CStr, target: &'a CStr }
    /// Mount a new filesystem at `target` in the root, which is created if missing.
    /// `options` go to `fsconfig` one by one (`key=value` or `flag`); `set` and `clear` are
    /// `MOUNT_ATTR_*` bits; `recursive_set`/`recursive_clear` the same for `AT_RECURSIVE`;
    /// `propagation` is 0 or `MS_*` bits. `flags` are [`mount`] bits.
    36 Mount {
        fstype: &'a CStr, source: &'a CStr, target: &'a CStr, options: List<'a>,
        set: u64, clear: u64, recursive_set: u64, recursive_clear: u64,
        propagation: u64, flags: u32,
    }
    /// Bind `source` (on the host) to `target` in the root; fields as in [`Operation::Mount`].
    37 Bind {
        source: &'a CStr, target: &'a CStr,
        set: u64, clear: u64, recursive_set: u64, recursive_clear: u64,
        propagation: u64, flags: u32,
    }
    /// Create a device node, or a FIFO, in the root. An existing node must be the same device.
    /// `mode` holds the file type (`S_IFCHR`, `S_IFBLK`, `S_IFIFO`) and the permissions.
    38 MakeDevice { path: &'a CStr, mode: u32, major: u32, minor: u32, uid: u32, gid: u32 }
    /// Make a path in the root read-only, keeping its other attributes; skipped if missing.
    39 ReadonlyPath { path: &'a CStr }
    /// Hide a path in the root: a directory under an empty read-only tmpfs, anything else
    /// under the null device; skipped if missing.
    40 MaskPath { path: &'a CStr }
    /// Change what is mounted at a path in the root; fields as in [`Operation::Mount`]. The
    /// filesystem itself is reconfigured if there are `options`.
    41 Remount {
        path: &'a CStr, options: List<'a>,
        set: u64, clear: u64, recursive_set: u64, recursive_clear: u64, propagation: u64,
    }
    /// Make the root mount itself read-only.
    42 ReadonlyRoot {}
    /// `pivot_root` into the root and drop the old one; the working directory becomes `/`.
    43 Pivot {}
    /// Set the propagation of the new root mount.
    44 RootPropagation { flags: u64 }
    /// Open a new pty in the container, make it the controlling terminal and descriptors 0 to 2,
    /// and hand the master to the host. `flags` are [`terminal`](crate::terminal) bits.
    45 Terminal { rows: u32, columns: u32, flags: u32, uid: u32 }
    /// Make the descriptor in `slot` descriptor `target` of the program.
    46 Descriptor { target: u32, slot: u32 }
    /// `sethostname`.
    47 Hostname { name: &'a CStr }
    /// `setdomainname`.
    48 Domainname { name: &'a CStr }
    /// Write a sysctl: `name` has slashes, relative to `/proc/sys`.
    49 Sysctl { name: &'a CStr, value: &'a CStr }
    /// `umask`.
    50 Umask { mask: u32 }
    /// Set `no_new_privs`.
    51 NoNewPrivileges {}
    /// Install a seccomp filter (`flags` as for `seccomp(2)`).
    52 Seccomp { flags: u64, program: &'a [u8] }
    /// Drop every capability outside `mask` from the bounding set.
    53 BoundingCapabilities { mask: u64 }
    /// Set supplementary groups (unless `keep_groups` is 1), gid and uid, keeping the
    /// permitted capabilities.
    54 User { uid: u32, gid: u32, groups: Numbers<'a>, keep_groups: u32 }
    /// Set the capability sets; ambient ones that cannot be raised are skipped.
    55 Capabilities { effective: u64, permitted: u64, inheritable: u64, ambient: u64 }
    /// Change to a directory in the container, which must be reachable from its root. With the
    /// `attempt` 1 one that may not be entered is left to a later such step, whose `attempt` is 2.
    56 WorkingDirectory { path: &'a CStr, attempt: u32 }
    /// Find the program of `name` by `path` (a `PATH` value) as execvp would, and keep what
    /// was found for [`Operation::Exec`].
    57 Program { name: &'a CStr, path: &'a CStr }
    /// Tell the keeper that the child has come to the point of the runtime hooks, and wait
    /// until it has run [`Stream::Hooks`](crate::Stream). If `network` is 1 the keeper gets a
    /// socket by which it knows the child's network namespace.
    58 Checkpoint { network: u32 }
    /// Tell the keeper that the container is created, and wait for start.
    59 Gate {}
    /// `personality(2)`.
    60 Personality { persona: u64 }
    /// Write an LSM label for the next exec: `kind` 0 AppArmor, 1 SELinux.
    61 SecurityLabel { kind: u32, label: &'a CStr }
    /// `sched_setattr` with these values.
    62 Scheduler {
        policy: u32, flags: u64, nice: i32, priority: u32, runtime: u64, deadline: u64, period: u64,
    }
    /// `ioprio_set` of the process.
    63 IoPriority { value: u32 }
    /// `sched_setaffinity` with this bit mask, 32 processors a number.
    64 Affinity { mask: Numbers<'a> }

    /// Attach the next of the mounts that the keeper made ([`Operation::IdMap`]) to `target` in
    /// the root; fields as in [`Operation::Mount`].
    65 Attach { target: &'a CStr, propagation: u64, flags: u32 }
    /// `set_mempolicy`: `policy` is a mode and its flags, `nodes` a bit mask, 32 nodes a number.
    70 MemoryPolicy { policy: u32, nodes: Numbers<'a> }
    /// The filter of the [`Operation::Seccomp`] that follows has a listener, which goes to
    /// whoever listens at `path` on the host, or else over the socket in `slot`: with its
    /// *container process state*, the texts of `state` with the process's pid (the one the
    /// keeper knows it by) between each two of them.
    71 Listener { slot: u32, path: &'a CStr, state: List<'a> }

    /// Write "0" to the `tasks` file of a resctrl group in `slot`.
    66 EnterResctrlGroup { slot: u32 }
    /// Unmount the root of [`Operation::Root`] again, with all that has been mounted in it. What
    /// was created there for it to be mounted on stays.
    67 DropRoot {}

    // ---- Stream::Start ---------------------------------------------------------------------

    /// Execute the program that [`Operation::Program`] found. `HOME` is taken from the
    /// container's `/etc/passwd` when `env` has none.
    80 Exec { args: List<'a>, env: List<'a> }

    // ---- Hooks, in several streams ------------------------------------------------------------

    /// Run a hook and wait. Its standard input is `state_head` and, unless `state_tail` is
    /// empty, the container's pid in decimal (the pid the acting process knows it by) and
    /// `state_tail`. `timeout` is in milliseconds, 0 for none. It must exit 0. An empty `HOME=` of
    /// its environment becomes that of the process. A hook of the process itself starts in the
    /// container's root.
    90 Hook {
        path: &'a CStr, args: List<'a>, env: List<'a>, timeout: u64,
        state_head: &'a CStr, state_tail: &'a CStr,
    }

    // ---- Stream::Hooks, before them -----------------------------------------------------------

    /// Move the interface `name` of the keeper's network namespace into the child's, as
    /// `new_name` (the same if it is empty; a `%d` in it stands for the lowest number that is
    /// free), with its permanent addresses of global scope, and bring it up. If the creation
    /// fails later, the interface goes back to where it was, with its name, all its addresses
    /// and its state; of its routes only those return that come with the addresses.
    91 MoveInterface { name: &'a CStr, new_name: &'a CStr }

    // ---- Stream::Cleanup: the host is gone -------------------------------------------------------

    /// Kill every process in the cgroup directory `path` and below; nothing if it is missing.
    100 KillCgroup { path: &'a CStr }
    /// Remove the cgroup directory `path` and those below; nothing if it is missing.
    101 RemoveCgroup { path: &'a CStr }
    /// Remove the resctrl group `path`; nothing if it is missing.
    103 RemoveResctrlGroup { path: &'a CStr }
    /// Remove the container's state directory `path` with the files in it.
    102 RemoveState { path: &'a CStr }
}

/// The most read-only layers of an overlay (`OVL_MAX_STACK` of the kernel).
pub const MAX_LAYERS: usize = 500;

impl<'a> Operation<'a> {
    /// The host's paths that the process opens for this. One that it may not reach the keeper opens
    /// for it, by its number among those of all its operations.
    pub fn sources(&self) -> impl Iterator<Item = &'a CStr> + use<'a> {
        let (single, list) = match *self {
            Operation::Bind { source, .. } => ([Some(source), None, None], List::EMPTY),
            Operation::OverlayRoot { lower, below, changes, scratch } => {
                ([Some(scratch), Some(changes), Some(lower)], below)
            }
            Operation::OverlayRootByEntry { scratch } => ([Some(scratch), None, None], List::EMPTY),
            _ => ([None; 3], List::EMPTY),
        };
        single.into_iter().flatten().chain(list.iter())
    }
}

/// Bits of the `flags` of [`Operation::Mount`], [`Operation::Bind`] and [`Operation::Attach`].
pub mod mount {
    /// A bind that includes the mounts below the source.
    pub const RECURSIVE: u32 = 1;
    /// The target must be a real directory reached without any symlink (proc, sysfs).
    pub const STRICT_TARGET: u32 = 2;
    /// Copy what the mount hides into the new filesystem.
    pub const COPY_UP: u32 = 4;
    /// The new filesystem's root gets the permissions of the target, if that was there.
    pub const TARGET_MODE: u32 = 8;
    /// The ids of the mounts below the source are mapped as well.
    pub const MAP_RECURSIVE: u32 = 16;
    /// If mounting fails for lack of privilege, bind the host's mount of this type
    /// (`/sys` for sysfs) instead.
    pub const FALL_BACK_TO_BIND: u32 = 32;
    /// The top of a bind has none of `nosuid`, `nodev`, `noexec`, `nosymfollow` and `ro` that is
    /// not asked for, unless a user namespace may not take it away.
    pub const ONLY_THESE: u32 = 64;
}

/// Values of `kind` of [`Operation::Root`].
pub mod root {
    /// `pivot_root` follows.
    pub const PIVOT: u32 = 0;
    /// `MS_MOVE` and `chroot` instead of `pivot_root`, for a host that runs from an initramfs.
    pub const MOVE: u32 = 1;
}

/// Bits of `flags` of `Terminal`.
pub mod terminal {
    /// Bind it to `/dev/console`.
    pub const CONSOLE: u32 = 1;
    /// Line ends pass as they are written: no `ONLCR`.
    pub const RAW_OUTPUT: u32 = 2;
}

/// Values of `kind` of the joining operations, as in `clone(2)`.
pub mod join {
    /// Time namespace.
    pub const TIME: u64 = 0x0000_0080;
    /// Mount namespace.
    pub const MOUNT: u64 = 0x0002_0000;
    /// Cgroup namespace.
    pub const CGROUP: u64 = 0x0200_0000;
    /// UTS namespace.
    pub const UTS: u64 = 0x0400_0000;
    /// IPC namespace.
    pub const IPC: u64 = 0x0800_0000;
    /// User namespace.
    pub const USER: u64 = 0x1000_0000;
    /// Pid namespace.
    pub const PID: u64 = 0x2000_0000;
    /// Network namespace.
    pub const NETWORK: u64 = 0x4000_0000;
}
