//! The compiler with fixed facts about the host, for the fuzz targets.

use std::path::Path;

use super::*;
use crate::cgroup::Hierarchy;
use crate::container::Rootfs;
use crate::resctrl::Group;
use crate::spec;

/// Who compiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Root of the machine, with cgroups.
    Root,
    /// An ordinary user without cgroups, on an overlay of the host's own root.
    User,
}

fn facts(caller: Caller) -> HostFacts {
    let root = HostFacts {
        euid: 0,
        egid: 0,
        privileged: true,
        in_user_namespace: false,
        setgroups_denied: false,
        network_admin: true,
        selinux: true,
        last_capability: 40,
        id_mappers: Some(IdMappers {
            newuidmap: "/usr/bin/newuidmap".into(),
            newgidmap: "/usr/bin/newgidmap".into(),
        }),
        root_entries: Vec::new(),
        cgroups: Hierarchies::from_list(vec![Hierarchy {
            controllers: ["cpu", "memory", "pids"].map(str::to_owned).to_vec(),
            unified: true,
            mount_point: "/sys/fs/cgroup".into(),
            own: "/".into(),
            parent_writable: true,
        }]),
    };
    match caller {
        Caller::Root => root,
        Caller::User => HostFacts {
            euid: 1000,
            egid: 100,
            privileged: false,
            network_admin: false,
            root_entries: vec![
                RootEntry { name: "bin".into(), link: Some("usr/bin".into()) },
                RootEntry { name: "usr".into(), link: None },
            ],
            cgroups: Hierarchies::none(),
            ..root
        },
    }
}

/// Profiles are compiled by a target of their own.
fn program(_: &oci::LinuxSeccomp) -> Result<Arc<seccomp::Program>> {
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    Ok(Arc::new(seccomp::Program { bpf: vec![0; 16], flags }))
}

fn resctrl(spec: &spec::Spec) -> Result<Option<Group>> {
    let rdt = spec.linux().as_ref().and_then(|linux| linux.intel_rdt().as_ref());
    rdt.map(|rdt| Group::of(rdt, "box", Some(Path::new("/sys/fs/resctrl")))).transpose()
}

/// The plan that creates a container.
pub fn compile_container(spec: &spec::Spec, caller: Caller) -> Result<Plan> {
    let facts = facts(caller);
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
    let location = facts.cgroups.locate(path, "box", facts.is_rootless())?;
    container::compile_container(&ContainerInput {
        spec,
        id: "box",
        bundle: Path::new("/bundle"),
        state_dir: Path::new("/run/locule/box"),
        rootfs: if caller == Caller::User { Rootfs::Overlay } else { Rootfs::Direct },
        lower: &[],
        changes: None,
        facts: &facts,
        location: &location,
        resctrl: resctrl(spec)?.as_ref(),
        descriptors: Descriptors { stdio: [true; 3], pass: 2, raw_output: false },
        seccomp: &program,
        takes_listener: caller == Caller::User,
        keep_groups: container::denies_setgroups(spec, &facts),
    })
}

/// The plan that runs another process in a container of `spec`.
pub fn compile_exec(spec: &spec::Spec, process: &spec::Process, caller: Caller) -> Result<Plan> {
    let facts = facts(caller);
    let location = facts.cgroups.locate(None, "box", facts.is_rootless())?;
    exec::compile_exec(&ExecInput {
        container: About { spec, id: "box", bundle: Path::new("/bundle") },
        init: 4711,
        process,
        facts: &facts,
        location: &location,
        resctrl: resctrl(spec)?.as_ref(),
        descriptors: Descriptors { stdio: [true, false, true], pass: 1, raw_output: false },
        keep_groups: caller == Caller::User,
        gate: true,
        seccomp: &program,
        takes_listener: caller == Caller::Root,
    })
}

/// The encoded plan, and how many descriptors go with it.
pub fn encoded(plan: &Plan) -> (&[u8], usize) {
    (&plan.bytes, plan.slots.len())
}
