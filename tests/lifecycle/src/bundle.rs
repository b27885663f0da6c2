//! Root filesystems and configurations for the cases.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// A static busybox, if this machine has one.
pub fn busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox", "/usr/local/bin/busybox"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| is_static(path))
}

/// Whether an ELF file has no interpreter.
fn is_static(path: &Path) -> bool {
    let Ok(bytes) = fs::read(path) else { return false };
    let Some(head) = bytes.get(..64).filter(|head| head.starts_with(b"\x7fELF\x02")) else {
        return false;
    };
    let word = |at: usize, len: usize| {
        head[at..at + len].iter().rev().fold(0usize, |n, &byte| n << 8 | usize::from(byte))
    };
    let (table, size, count) = (word(32, 8), word(54, 2), word(56, 2));
    const PT_INTERP: [u8; 4] = [3, 0, 0, 0];
    (0..count).all(|i| bytes.get(table + i * size..).is_some_and(|e| !e.starts_with(&PT_INTERP)))
}

/// What the cases run, as links to busybox.
const APPLETS: &[&str] = &[
    "sh", "true", "false", "cat", "echo", "sleep", "ls", "id", "env", "pwd", "stty", "mknod", "dd",
    "test", "kill", "ps", "hostname", "grep", "readlink", "head", "tail", "tr", "touch", "mkdir",
    "rm", "mount", "umount", "stat", "wc", "cut", "sort", "yes", "seq", "printf", "chmod", "chown",
    "ip", "tty", "timeout", "uname", "cp", "find", "sync",
];

/// Makes a root filesystem with busybox at `root`.
pub fn make_rootfs(root: &Path, busybox: &Path) -> io::Result<()> {
    for name in ["bin", "dev", "proc", "sys", "etc", "root", "run", "home", "mnt", "opt"] {
        fs::create_dir_all(root.join(name))?;
    }
    fs::create_dir_all(root.join("tmp"))?;
    fs::set_permissions(root.join("tmp"), PermissionsExt::from_mode(0o1777))?;
    fs::set_permissions(root, PermissionsExt::from_mode(0o755))?;
    fs::copy(busybox, root.join("bin/busybox"))?;
    for name in APPLETS {
        symlink("busybox", root.join("bin").join(name))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\napp:x:1000:\n")?;
    fs::write(root.join("etc/secret"), "secret\n")?;
    fs::write(root.join("bin/not-executable"), "#!/bin/sh\n")?;
    fs::write(root.join("bin/not-a-program"), "\x01\x02\x03")?;
    fs::set_permissions(root.join("bin/not-a-program"), PermissionsExt::from_mode(0o755))
}

const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// A configuration of the usual kind: namespaces, mounts, masks, a read-only root.
pub fn spec(rootfs: &Path, args: &[&str]) -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "env": ["PATH=/bin", "HOME=/root"],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": CAPABILITIES,
                "effective": CAPABILITIES,
                "permitted": CAPABILITIES
            }
        },
        "root": { "path": rootfs, "readonly": true },
        "hostname": "inside",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "nodev", "mode=1777"] }
        ],
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" },
                { "type": "uts" }, { "type": "mount" }, { "type": "cgroup" }
            ],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

/// Makes a configuration one for an ordinary user: a user namespace that maps this user to
/// root, and nothing that needs more than that.
pub fn make_rootless(spec: &mut Value, uid: u32, gid: u32) {
    let linux = &mut spec["linux"];
    linux["namespaces"].as_array_mut().expect("namespaces").push(json!({ "type": "user" }));
    linux["uidMappings"] = json!([{ "containerID": 0, "hostID": uid, "size": 1 }]);
    linux["gidMappings"] = json!([{ "containerID": 0, "hostID": gid, "size": 1 }]);
}

/// Writes a bundle with this configuration.
pub fn write(directory: &Path, spec: &Value) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::write(directory.join("config.json"), spec.to_string())
}
