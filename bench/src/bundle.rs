//! The bundles: `config.json` from the table that `floor/floor.c` compiles in.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::Result;

/// Every line that is not a comment is `NAME(a, b, ...)` with JSON values.
const TABLE: &str = include_str!("../bundle/default.def");

/// Stands in a template for the container's own name.
const NAME: &str = "@NAME@";

/// What Docker gives a container by default.
const DOCKER_CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// What Docker hides on a machine with two processors.
const DOCKER_MASKED: [&str; 14] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/system/cpu/cpu0/thermal_throttle",
    "/sys/devices/system/cpu/cpu1/thermal_throttle",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Where the bundles are and in which cgroup their containers go.
pub struct Bundles {
    directory: PathBuf,
    cgroup: String,
}

impl Bundles {
    /// Bundles below `directory`, which holds `rootfs`; containers below the cgroup `cgroup`.
    pub fn new(directory: &Path, cgroup: &str) -> Bundles {
        Bundles { directory: directory.to_owned(), cgroup: cgroup.to_owned() }
    }

    /// Writes the bundle of the container `name` that runs `args`, and returns its path.
    pub fn write(&self, name: &str, args: &[&str]) -> Result<PathBuf> {
        self.write_config(name, self.config(args)?)
    }

    /// The same with the seccomp profile of Locule's default container.
    pub fn write_filtered(&self, name: &str, args: &[&str]) -> Result<PathBuf> {
        let mut config = self.config(args)?;
        config["linux"]["seccomp"] = profile()?;
        self.write_config(name, config)
    }

    /// The bundle of a container as Docker asks for one by default, with limits.
    pub fn write_like_docker(&self, name: &str, args: &[&str]) -> Result<PathBuf> {
        let mut config = self.config(args)?;
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(DOCKER_CAPABILITIES);
        }
        config["process"]["noNewPrivileges"] = json!(false);
        config["process"]["oomScoreAdj"] = json!(0);
        config["root"]["readonly"] = json!(false);
        config["linux"]["maskedPaths"] = json!(DOCKER_MASKED);
        config["linux"]["seccomp"] = profile()?;
        let allow = |kind, major, minor| {
            json!({ "allow": true, "type": kind, "major": major, "minor": minor,
                    "access": "rwm" })
        };
        config["linux"]["resources"] = json!({
            "devices": [
                { "allow": false, "access": "rwm" },
                allow("c", 1, 3), allow("c", 1, 5), allow("c", 1, 7), allow("c", 1, 8),
                allow("c", 1, 9), allow("c", 5, 0), allow("c", 5, 1), allow("c", 5, 2),
                { "allow": true, "type": "c", "major": 136, "access": "rwm" },
                { "allow": true, "type": "c", "access": "m" },
                { "allow": true, "type": "b", "access": "m" },
            ],
            // The one controller that a hybrid machine has left for version 2.
            "hugepageLimits": [{ "pageSize": "2MB", "limit": 1 << 30 }],
        });
        self.write_config(name, config)
    }

    /// The same with a hook, which is what plugins are there instead of.
    pub fn write_hooked(&self, name: &str, args: &[&str]) -> Result<PathBuf> {
        let mut config = self.config(args)?;
        config["hooks"] = json!({ "createRuntime": [{ "path": "/bin/true" }] });
        self.write_config(name, config)
    }

    fn write_config(&self, name: &str, config: Value) -> Result<PathBuf> {
        let bundle = self.directory.join(name);
        fs::create_dir_all(&bundle)?;
        let text = serde_json::to_string_pretty(&config)?.replace(NAME, name);
        fs::write(bundle.join("config.json"), text)?;
        Ok(bundle)
    }

    /// Writes a template for many containers, to be used with [`of_template`].
    pub fn write_template(&self, name: &str, args: &[&str]) -> Result<PathBuf> {
        let file = self.directory.join(name);
        fs::write(&file, serde_json::to_string_pretty(&self.config(args)?)?)?;
        Ok(file)
    }

    fn config(&self, args: &[&str]) -> Result<Value> {
        let root = self.directory.join("rootfs");
        default_config(args, &root, &format!("{}/{NAME}", self.cgroup))
    }
}

/// The seccomp profile of Locule's default container.
fn profile() -> Result<Value> {
    let mut profile = serde_json::to_value(locule::seccomp::default_profile())?;
    // The others have no name for the native architecture, and take it if none is given.
    profile.as_object_mut().ok_or("a profile is an object")?.remove("architectures");
    Ok(profile)
}

/// The configuration of the container `name`.
pub fn of_template(template: &str, name: &str) -> String {
    template.replace(NAME, name)
}

fn default_config(args: &[&str], root: &Path, cgroup: &str) -> Result<Value> {
    let mut hostname = Value::Null;
    let [mut namespaces, mut capabilities, mut limits, mut mounts, mut masked, mut read_only] =
        [const { Vec::new() }; 6];
    for (kind, fields) in rows()? {
        match kind {
            "HOSTNAME" => hostname = fields[0].clone(),
            "NAMESPACE" => namespaces.push(json!({ "type": fields[0] })),
            "CAPABILITY" => capabilities.push(fields[0].clone()),
            "RLIMIT" => {
                limits.push(json!({ "type": fields[0], "soft": fields[2], "hard": fields[2] }));
            }
            "MOUNT" => {
                let options = fields[3].as_str().unwrap_or_default().split(',');
                let options: Vec<&str> = options.filter(|option| !option.is_empty()).collect();
                mounts.push(json!({
                    "destination": fields[0], "type": fields[1], "source": fields[2],
                    "options": options,
                }));
            }
            "MASKED" => masked.push(fields[0].clone()),
            "READONLY" => read_only.push(fields[0].clone()),
            other => return Err(format!("unknown line {other} in the table").into()),
        }
    }
    Ok(json!({
        "ociVersion": "1.0.2", // what crun 1.8 takes
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
            "rlimits": limits,
            "noNewPrivileges": true,
        },
        "root": { "path": root, "readonly": true },
        "hostname": hostname,
        "mounts": mounts,
        "linux": {
            "cgroupsPath": cgroup,
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": namespaces,
            "maskedPaths": masked,
            "readonlyPaths": read_only,
        },
    }))
}

fn rows() -> Result<Vec<(&'static str, Vec<Value>)>> {
    let mut rows = Vec::new();
    for line in TABLE.lines() {
        let Some((kind, rest)) = line.split_once('(') else { continue };
        if !kind.bytes().all(|byte| byte.is_ascii_uppercase()) {
            continue;
        }
        let fields = rest.strip_suffix(')').ok_or("a line of the table has no end")?;
        rows.push((kind, serde_json::from_str(&format!("[{fields}]"))?));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_gives_a_complete_configuration() {
        let config = default_config(&["/true"], Path::new("/root"), "/cgroup").unwrap();
        assert_eq!(config["mounts"].as_array().unwrap().len(), 7);
        assert_eq!(config["linux"]["namespaces"].as_array().unwrap().len(), 6);
        assert_eq!(config["mounts"][0]["options"].as_array().unwrap().len(), 0);
        assert_eq!(config["hostname"], "bench");
    }
}
