//! `spec`: a configuration to begin with.

use std::fs::File;
use std::io::Write;
use std::process::ExitCode;

use clap::ArgMatches;
use serde_json::{Value, json};

use super::Done;
use crate::arguments::path;
use crate::failure::Failure;

pub fn spec(own: &ArgMatches) -> Done {
    let file = path(own, "bundle").unwrap_or_default().join("config.json");
    let mut document = example();
    if own.get_flag("rootless") {
        without_root(
            &mut document,
            nix::unistd::geteuid().as_raw(),
            nix::unistd::getegid().as_raw(),
        );
    }
    let text = serde_json::to_string_pretty(&document).map_err(|e| Failure::of(e.to_string()))?;
    // What somebody has written is not lost.
    let mut made = File::create_new(&file).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::of(format!("file {} exists. Remove it first", file.display()))
        }
        _ => Failure::of(format!("{}: {error}", file.display())),
    })?;
    writeln!(made, "{text}")?;
    Ok(ExitCode::SUCCESS)
}

fn example() -> Value {
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let mut namespaces: Vec<Value> =
        ["pid", "network", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind })).into();
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        // What version 1 shows without one does no harm.
        namespaces.push(json!({ "type": "cgroup" }));
    }
    json!({
        "ociVersion": locule::spec::OCI_VERSION,
        "process": {
            "terminal": true,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm"
            ],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "locule",
        "mounts": [
            mount("/proc", "proc", "proc", &[]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts",
                  &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm",
                  &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup",
                  &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": namespaces,
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware",
                "/proc/scsi"
            ],
            "readonlyPaths": [
                "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"
            ]
        }
    })
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    let mut mount = json!({ "destination": destination, "type": kind, "source": source });
    if !options.is_empty() {
        mount["options"] = json!(options);
    }
    mount
}

/// One user in a user namespace, the host's network, and nothing that needs privilege.
fn without_root(document: &mut Value, uid: u32, gid: u32) {
    let linux = &mut document["linux"];
    linux.as_object_mut().map(|linux| linux.remove("resources"));
    let namespaces = linux["namespaces"].as_array_mut().expect("an example has them");
    namespaces.retain(|namespace| namespace["type"] != "network");
    namespaces.push(json!({ "type": "user" }));
    linux["uidMappings"] = json!([{ "containerID": 0, "hostID": uid, "size": 1 }]);
    linux["gidMappings"] = json!([{ "containerID": 0, "hostID": gid, "size": 1 }]);
    for mount in document["mounts"].as_array_mut().expect("an example has them") {
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| {
                let option = option.as_str().unwrap_or_default();
                !option.starts_with("gid=") && !option.starts_with("uid=")
            });
        }
        if mount["destination"] == "/sys" {
            // Without a network namespace of its own there is no new sysfs.
            *mount =
                self::mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]);
        }
    }
}
