//! A bundle, who runs it and what happens to it; and the files it is made of.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;

use serde_json::{Value, json};

/// Where the bundle under test is, in the worker's own mount namespace.
pub const BUNDLE: &str = "/mnt/bundle";

pub struct Bundle {
    pub name: String,
    pub config: Value,
    /// Who calls the runtime.
    pub user: u32,
    /// Whether Locule's keeper stays with the container.
    pub keeper: bool,
    /// What is done while it runs.
    pub steps: Vec<Step>,
}

#[derive(Clone)]
pub enum Step {
    Pause,
    Resume,
    /// With this process document.
    Exec(Value),
    Kill(i32),
    Update(Value),
    /// Kills the container before it is started.
    KillBeforeStart,
}

impl Bundle {
    pub fn new(name: impl Into<String>, config: Value) -> Self {
        Bundle { name: name.into(), config, user: 0, keeper: false, steps: Vec::new() }
    }

    /// The programs are in the template: busybox, and the probe.
    pub fn lay_out(&self, template: &Path, id: &str) -> io::Result<()> {
        let bundle = Path::new(BUNDLE);
        fs::create_dir(bundle)?;
        let root = bundle.join("rootfs");
        for directory in [
            "",
            "bin",
            "dev",
            "proc",
            "sys",
            "etc",
            "tmp",
            "run",
            "mnt",
            "work/deep/deeper",
            "masked/directory",
            "readonly/directory",
            "copied/directory",
            "empty",
        ] {
            fs::create_dir_all(root.join(directory))?;
        }
        fs::hard_link(template.join("probe"), root.join("probe"))?;
        fs::hard_link(template.join("busybox"), root.join("bin/busybox"))?;
        for (path, text) in [
            ("etc/passwd", "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/work:/bin/sh\n"),
            ("etc/group", "root:x:0:\nextra:x:1001:app\n"),
            ("work/file", "work\n"),
            ("masked/file", "secret\n"),
            ("masked/directory/file", "secret\n"),
            ("readonly/file", "readonly\n"),
            ("readonly/directory/file", "readonly\n"),
            ("copied/file", "copied\n"),
            ("copied/directory/file", "copied below\n"),
            ("not-executable", "#!/bin/busybox sh\n"),
        ] {
            fs::write(root.join(path), text)?;
        }
        symlink("busybox", root.join("bin/sh"))?;
        symlink("file", root.join("copied/link"))?;
        symlink("/work/deep", root.join("link"))?;
        symlink("../masked/file", root.join("readonly/link"))?;
        let mode = |path: &str, mode| {
            fs::set_permissions(root.join(path), PermissionsExt::from_mode(mode))
        };
        mode("tmp", 0o1777)?;
        mode("copied", 0o2750)?;
        mode("copied/file", 0o4711)?;
        mode("work/deep", 0o711)?;
        // What is bound into the container.
        for directory in ["host/tree/inner", "host/tree/below", "host/plain"] {
            fs::create_dir_all(bundle.join(directory))?;
        }
        fs::write(bundle.join("host/file"), "of the host\n")?;
        fs::write(bundle.join("host/tree/file"), "in a tree\n")?;
        fs::write(bundle.join("host/plain/file"), "plain\n")?;
        fs::write(bundle.join("hooks"), "")?;
        if self.user == 0 {
            chown(root.join("copied/directory"), Some(1000), Some(1001))?;
        } else {
            own(bundle, self.user)?;
        }
        let mut config = self.config.clone();
        let path = &mut config["linux"]["cgroupsPath"];
        if let Some(text) = path.as_str() {
            *path = json!(text.replace("ID", id));
        }
        fs::write(bundle.join("config.json"), serde_json::to_vec_pretty(&config)?)
    }
}

/// Gives all but the programs to a user.
fn own(path: &Path, user: u32) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            own(&entry?.path(), user)?;
        }
    } else if fs::symlink_metadata(path)?.nlink() > 1 {
        return Ok(());
    }
    lchown(path, Some(user), Some(user))
}

pub const CAPABILITIES: &[&str] = &[
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

/// What the usual configurations have in common. The probe waits, and looks at the usual paths.
pub fn plain() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["/probe", "--wait", "/masked/file", "/readonly/file", "/work", "/proc/kcore",
                     "/proc/sys/kernel/hostname", "/sys", "/tmp"],
            "env": ["PATH=/bin", "HOME=/root"],
            "cwd": "/",
            "capabilities": {
                "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES
            }
        },
        "root": { "path": "rootfs" },
        "hostname": "inside",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] }
        ],
        "linux": {
            "cgroupsPath": "/ID-above/ID",
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" },
                { "type": "uts" }, { "type": "mount" }
            ]
        }
    })
}
