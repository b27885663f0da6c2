//! The default container: one builder for every face that makes a spec of its own.

use std::path::PathBuf;

use super::oci::{
    Capability, Linux, LinuxBuilder, LinuxCapabilities, LinuxCapabilitiesBuilder, LinuxCpuBuilder,
    LinuxDeviceCgroupBuilder, LinuxIdMapping, LinuxIdMappingBuilder, LinuxMemoryBuilder,
    LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxPidsBuilder, LinuxResources,
    LinuxResourcesBuilder, Mount, MountBuilder, Process, ProcessBuilder, RootBuilder, Spec,
    SpecBuilder, UserBuilder,
};
use super::to_json;
use crate::error::Result;
use crate::seccomp;

/// Where programs are looked for if nobody says.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What files of `/proc` and `/sys` tell about the machine and other containers, or let one do
/// to them. The list is Docker's; entries a kernel does not have are skipped. Docker also hides
/// the thermal counters of each processor, which takes a look at the machine: add those to
/// `linux.maskedPaths` where they matter.
const MASKED: [&str; 12] = [
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
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Files that change the whole machine when root writes to them.
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Docker's capabilities: what packages and servers need inside their own namespaces.
const CAPABILITIES: [Capability; 14] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// The group of terminals.
const TTY: u32 = 5;

/// Which network a container has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// One of its own, with a loopback interface and nothing else.
    #[default]
    None,
    /// The host's.
    Host,
}

/// A container as a careful Docker would set it up, with what callers most often choose.
///
/// ```
/// use locule::spec::{Template, validate};
///
/// let mut template = Template::new("/srv/images/debian", ["sh", "-c", "echo hello"]);
/// template.memory = Some(256 << 20);
/// validate(&template.spec()).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// `NAME=value` each. A usual `PATH` is added if there is none, and `TERM` with a terminal.
    pub env: Vec<String>,
    /// The working directory. Default: `/`.
    pub cwd: PathBuf,
    /// Numeric user and group in the container. Default: root.
    pub user: (u32, u32),
    /// Further groups. In a rootless container, where the kernel lets nobody set them, they are
    /// left out.
    pub additional_gids: Vec<u32>,
    /// The hostname; the host's own if empty. Default: `locule`.
    pub hostname: String,
    /// The directory that becomes the root; relative to the bundle.
    pub rootfs: PathBuf,
    /// Whether the root is mounted read-only.
    pub readonly: bool,
    /// The caller's own user and group on the host, when it is not root: the container gets a
    /// user namespace in which `user` stands for them, and no other id exists.
    pub rootless: Option<(u32, u32)>,
    /// Users of the container's user namespace, which it has if there are any. `rootless` does not
    /// count then.
    pub uid_mappings: Vec<LinuxIdMapping>,
    /// The same for groups.
    pub gid_mappings: Vec<LinuxIdMapping>,
    /// The network.
    pub network: Network,
    /// The most memory, in bytes. Swap is the host's to give.
    pub memory: Option<u64>,
    /// The most processor time, in processors: 1.5 is one and a half.
    pub cpus: Option<f64>,
    /// The most processes and threads.
    pub pids: Option<i64>,
    /// Further binds: path on the host, path in the container, whether read-only. Everything
    /// mounted below the source comes along.
    pub mounts: Vec<(PathBuf, PathBuf, bool)>,
    /// Whether the program gets a terminal.
    pub terminal: bool,
}

impl Template {
    /// The defaults for this root and program.
    pub fn new<A: Into<String>>(
        rootfs: impl Into<PathBuf>,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        Template {
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: "/".into(),
            user: (0, 0),
            additional_gids: Vec::new(),
            hostname: "locule".into(),
            rootfs: rootfs.into(),
            readonly: false,
            rootless: None,
            uid_mappings: Vec::new(),
            gid_mappings: Vec::new(),
            network: Network::None,
            memory: None,
            cpus: None,
            pids: None,
            mounts: Vec::new(),
            terminal: false,
        }
    }

    /// The spec. It passes [`validate`](super::validate()) if the caller's own values do. Pure.
    pub fn spec(&self) -> Spec {
        let root = RootBuilder::default().path(self.rootfs.clone()).readonly(self.readonly);
        let spec = SpecBuilder::default()
            .version(super::OCI_VERSION)
            .root(built(root.build()))
            .process(self.process())
            .mounts(self.all_mounts())
            .linux(self.linux());
        let mut spec = built(spec.build());
        spec.set_hostname(Some(self.hostname.clone()).filter(|name| !name.is_empty()));
        spec.set_annotations(None);
        spec
    }

    /// The spec as the text of a `config.json`.
    ///
    /// # Errors
    ///
    /// `Spec` if a path is not UTF-8, which JSON cannot carry.
    pub fn json(&self) -> Result<Vec<u8>> {
        to_json(&self.spec())
    }

    fn process(&self) -> Process {
        let (uid, gid) = self.user;
        let mut user = UserBuilder::default().uid(uid).gid(gid);
        if self.single_id().is_none() && !self.additional_gids.is_empty() {
            user = user.additional_gids(self.additional_gids.clone());
        }
        let mut process = built(
            ProcessBuilder::default()
                .terminal(self.terminal)
                .user(built(user.build()))
                .args(self.args.clone())
                .env(self.environment())
                .cwd(self.cwd.clone())
                .capabilities(capabilities())
                .no_new_privileges(true)
                .build(),
        );
        // The container's limits are those of the caller, as everywhere outside containers.
        process.set_rlimits(None);
        process
    }

    fn environment(&self) -> Vec<String> {
        let has = |name: &str| self.env.iter().any(|entry| entry.starts_with(name));
        let path = (!has("PATH=")).then(|| PATH.to_owned());
        let term = (self.terminal && !has("TERM=")).then(|| "TERM=xterm".to_owned());
        path.into_iter().chain(term).chain(self.env.iter().cloned()).collect()
    }

    fn all_mounts(&self) -> Vec<Mount> {
        const INERT: [&str; 3] = ["nosuid", "noexec", "nodev"];
        let with = |more: &[&'static str]| [&INERT[..], more].concat();
        let mut devpts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
        if self.maps_group(TTY) {
            devpts.push("gid=5");
        }
        let mut mounts = vec![
            mount("proc", "proc", "/proc", &INERT),
            mount("tmpfs", "tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("devpts", "devpts", "/dev/pts", &devpts),
            mount("tmpfs", "shm", "/dev/shm", &with(&["mode=1777", "size=65536k"])),
            mount("mqueue", "mqueue", "/dev/mqueue", &INERT),
            self.sysfs(&with(&["ro"])),
            mount("cgroup", "cgroup", "/sys/fs/cgroup", &with(&["relatime", "ro"])),
            mount("tmpfs", "tmpfs", "/tmp", &["nosuid", "nodev", "mode=1777"]),
        ];
        mounts.extend(self.mounts.iter().map(|(source, destination, readonly)| {
            let access = if *readonly { "ro" } else { "rw" };
            bind(source.clone(), destination.clone(), &["rbind", "rprivate", access])
        }));
        mounts
    }

    /// The kernel lets nobody mount sysfs who does not own the network namespace: it shows the
    /// network's devices. There the host's is bound instead, read-only with all below it: the
    /// host's cgroups are, of which some may belong to this user (CVE-2023-25809).
    fn sysfs(&self, options: &[&'static str]) -> Mount {
        if self.user_namespace().is_some() && self.network == Network::Host {
            let options = [&["rbind", "rprivate", "rro"], options].concat();
            bind("/sys".into(), "/sys".into(), &options)
        } else {
            mount("sysfs", "sysfs", "/sys", options)
        }
    }

    fn linux(&self) -> Linux {
        let mut kinds = vec![
            LinuxNamespaceType::Pid,
            LinuxNamespaceType::Ipc,
            LinuxNamespaceType::Uts,
            LinuxNamespaceType::Mount,
            LinuxNamespaceType::Cgroup,
        ];
        if self.network == Network::None {
            kinds.push(LinuxNamespaceType::Network);
        }
        let mut linux = LinuxBuilder::default()
            .masked_paths(MASKED.map(String::from))
            .readonly_paths(READ_ONLY.map(String::from))
            .resources(self.resources())
            .seccomp(seccomp::default_profile());
        if let Some((uids, gids)) = self.user_namespace() {
            kinds.push(LinuxNamespaceType::User);
            linux = linux.uid_mappings(uids).gid_mappings(gids);
        }
        let namespaces: Vec<LinuxNamespace> = kinds
            .into_iter()
            .map(|kind| built(LinuxNamespaceBuilder::default().typ(kind).build()))
            .collect();
        built(linux.namespaces(namespaces).build())
    }

    /// The caller's ids, if they are all that there is in the container.
    fn single_id(&self) -> Option<(u32, u32)> {
        self.rootless.filter(|_| self.uid_mappings.is_empty() && self.gid_mappings.is_empty())
    }

    /// The mappings of the user namespace, if there is to be one.
    fn user_namespace(&self) -> Option<(Vec<LinuxIdMapping>, Vec<LinuxIdMapping>)> {
        if let Some((uid, gid)) = self.single_id() {
            return Some((vec![single_id(self.user.0, uid)], vec![single_id(self.user.1, gid)]));
        }
        let (uids, gids) = (&self.uid_mappings, &self.gid_mappings);
        (!uids.is_empty() || !gids.is_empty()).then(|| (uids.clone(), gids.clone()))
    }

    /// Whether a group exists in the container. Of a single id nobody means the terminals' group.
    fn maps_group(&self, gid: u32) -> bool {
        let within = |map: &LinuxIdMapping| {
            gid.checked_sub(map.container_id()).is_some_and(|offset| offset < map.size())
        };
        match self.single_id() {
            Some(_) => false,
            None => self.user_namespace().is_none_or(|(_, gids)| gids.iter().any(within)),
        }
    }

    fn resources(&self) -> LinuxResources {
        // Without rules of its own a container gets the runtime's few harmless devices.
        let none = LinuxDeviceCgroupBuilder::default().allow(false).access("rwm");
        let mut resources = LinuxResourcesBuilder::default().devices(vec![built(none.build())]);
        if let Some(bytes) = self.memory {
            let limit = i64::try_from(bytes).unwrap_or(i64::MAX);
            resources = resources.memory(built(LinuxMemoryBuilder::default().limit(limit).build()));
        }
        if let Some(cpus) = self.cpus {
            const PERIOD: u64 = 100_000;
            // The kernel takes no quota below a millisecond.
            let quota = ((cpus * PERIOD as f64).round() as i64).max(1_000);
            let cpu = LinuxCpuBuilder::default().period(PERIOD).quota(quota);
            resources = resources.cpu(built(cpu.build()));
        }
        if let Some(limit) = self.pids {
            resources = resources.pids(built(LinuxPidsBuilder::default().limit(limit).build()));
        }
        built(resources.build())
    }
}

/// Inheritable and ambient stay empty: a program gets capabilities by being root, not by being
/// started by it (CVE-2022-29162).
fn capabilities() -> LinuxCapabilities {
    let set = || CAPABILITIES.into_iter().collect::<super::oci::Capabilities>();
    let mut capabilities = built(
        LinuxCapabilitiesBuilder::default()
            .bounding(set())
            .effective(set())
            .permitted(set())
            .build(),
    );
    capabilities.set_inheritable(None);
    capabilities.set_ambient(None);
    capabilities
}

fn single_id(container: u32, host: u32) -> LinuxIdMapping {
    let mapping = LinuxIdMappingBuilder::default().container_id(container).host_id(host);
    built(mapping.size(1_u32).build())
}

fn mount(kind: &str, source: &str, destination: &str, options: &[&str]) -> Mount {
    let mount = MountBuilder::default().typ(kind).source(source).destination(destination);
    built(mount.options(owned(options)).build())
}

fn bind(source: PathBuf, destination: PathBuf, options: &[&str]) -> Mount {
    let mount = MountBuilder::default().typ("bind").source(source).destination(destination);
    built(mount.options(owned(options)).build())
}

fn owned(options: &[&str]) -> Vec<String> {
    options.iter().map(|option| option.to_string()).collect()
}

/// The builders of oci-spec fail for a missing field only, and every field has a default.
fn built<T>(result: Result<T, oci_spec::OciSpecError>) -> T {
    result.expect("every field has a default")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{parse, validate};

    fn template() -> Template {
        Template::new("rootfs", ["sh"])
    }

    fn options_of(spec: &Spec, destination: &str) -> Vec<String> {
        let mounts = spec.mounts().as_ref().unwrap();
        let mount = mounts.iter().find(|m| m.destination().as_os_str() == destination).unwrap();
        mount.options().clone().unwrap_or_default()
    }

    fn namespaces(spec: &Spec) -> Vec<LinuxNamespaceType> {
        let namespaces = spec.linux().as_ref().unwrap().namespaces().as_ref().unwrap();
        namespaces.iter().map(|namespace| namespace.typ()).collect()
    }

    #[test]
    fn every_variant_passes_and_survives_json() {
        for rootless in [None, Some((1000, 1000))] {
            for network in [Network::None, Network::Host] {
                for user in [(0, 0), (33, 44)] {
                    let template = Template {
                        rootless,
                        network,
                        user,
                        memory: Some(u64::MAX),
                        cpus: Some(0.5),
                        pids: Some(100),
                        mounts: vec![("/srv".into(), "/data".into(), true)],
                        terminal: true,
                        ..template()
                    };
                    let spec = template.spec();
                    validate(&spec).unwrap();
                    assert_eq!(parse(&template.json().unwrap()).unwrap(), spec);
                }
            }
        }
    }

    #[test]
    fn nothing_comes_from_the_defaults_of_the_types_library() {
        let json: serde_json::Value = serde_json::from_slice(&template().json().unwrap()).unwrap();
        assert!(json["annotations"].is_null());
        assert!(json["process"]["rlimits"].is_null());
        assert!(json["process"]["capabilities"]["ambient"].is_null());
        assert!(json["process"]["capabilities"]["inheritable"].is_null());
        assert!(json["linux"]["uidMappings"].is_null());
        assert_eq!(json["root"]["readonly"], false);
        assert_eq!(json["hostname"], "locule");
        assert_eq!(json["process"]["capabilities"]["bounding"].as_array().unwrap().len(), 14);
    }

    #[test]
    fn a_rootless_container_maps_its_user_to_the_caller() {
        let template = Template { rootless: Some((1000, 100)), user: (33, 44), ..template() };
        let spec = template.spec();
        let linux = spec.linux().as_ref().unwrap();
        assert_eq!(linux.uid_mappings().as_deref().unwrap(), [single_id(33, 1000)]);
        assert_eq!(linux.gid_mappings().as_deref().unwrap(), [single_id(44, 100)]);
        assert!(namespaces(&spec).contains(&LinuxNamespaceType::User));
        assert!(!options_of(&spec, "/dev/pts").iter().any(|option| option.starts_with("gid=")));
    }

    #[test]
    fn mapped_ids_become_a_user_namespace_and_groups_stay() {
        let range = |container: u32, size: u32| {
            let mapping = LinuxIdMappingBuilder::default().container_id(container);
            built(mapping.host_id(100_000_u32).size(size).build())
        };
        let mapped = Template {
            rootless: Some((1000, 1000)),
            uid_mappings: vec![range(0, 10)],
            gid_mappings: vec![range(0, 10)],
            additional_gids: vec![0, 7],
            ..template()
        };
        let spec = mapped.spec();
        validate(&spec).unwrap();
        let linux = spec.linux().as_ref().unwrap();
        assert_eq!(linux.uid_mappings().as_deref().unwrap(), [range(0, 10)]);
        assert!(namespaces(&spec).contains(&LinuxNamespaceType::User));
        assert!(options_of(&spec, "/dev/pts").contains(&"gid=5".to_owned()));
        let groups = spec.process().as_ref().unwrap().user().additional_gids().clone();
        assert_eq!(groups, Some(vec![0, 7]));
        for gids in [range(0, 5), range(6, 1)] {
            let spec = Template { gid_mappings: vec![gids], ..mapped.clone() }.spec();
            assert!(!options_of(&spec, "/dev/pts").contains(&"gid=5".to_owned()));
        }
        let hosts = Template { network: Network::Host, ..mapped };
        assert!(options_of(&hosts.spec(), "/sys").contains(&"rbind".to_owned()));
    }

    #[test]
    fn nobody_sets_groups_in_a_rootless_container() {
        let root = Template { additional_gids: vec![0, 7], ..template() };
        let groups =
            |t: Template| t.spec().process().as_ref().unwrap().user().additional_gids().clone();
        assert_eq!(groups(root.clone()), Some(vec![0, 7]));
        assert_eq!(groups(Template { rootless: Some((1, 1)), ..root }), None);
    }

    #[test]
    fn a_rootless_container_in_the_hosts_network_sees_the_hosts_sysfs() {
        let both = Template { rootless: Some((1, 1)), network: Network::Host, ..template() };
        let options = options_of(&both.spec(), "/sys");
        assert!(["rbind", "rro"].iter().all(|option| options.iter().any(|o| o == option)));
        assert!(!namespaces(&both.spec()).contains(&LinuxNamespaceType::Network));
        let root = Template { network: Network::Host, ..template() };
        assert!(!options_of(&root.spec(), "/sys").contains(&"rbind".to_owned()));
    }

    #[test]
    fn the_callers_environment_wins_over_the_defaults() {
        assert_eq!(template().environment(), [PATH]);
        let own = Template { env: vec!["PATH=/x".into()], terminal: true, ..template() };
        assert_eq!(own.environment(), ["TERM=xterm", "PATH=/x"]);
    }

    #[test]
    fn limits_become_resources() {
        let template =
            Template { memory: Some(1 << 20), cpus: Some(1.5), pids: Some(7), ..template() };
        let resources = template.resources();
        assert_eq!(resources.memory().unwrap().limit(), Some(1 << 20));
        let cpu = resources.cpu().as_ref().unwrap();
        assert_eq!((cpu.quota(), cpu.period()), (Some(150_000), Some(100_000)));
        assert_eq!(resources.pids().unwrap().limit(), 7);
    }

    #[test]
    fn a_path_that_json_cannot_carry_is_refused() {
        use std::os::unix::ffi::OsStringExt;
        let odd = PathBuf::from(std::ffi::OsString::from_vec(vec![b'/', 0xff]));
        let template = Template { rootfs: odd, ..template() };
        assert_eq!(template.json().unwrap_err().category(), crate::Category::Spec);
    }
}
