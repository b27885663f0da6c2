//! The plan that creates a container: namespaces, root, mounts, the first process.
//!
//! The order of the steps is the one in which each still has the privilege it needs, and no
//! earlier one can be undone by a later one; see the comments at the places where it matters.

use std::ops::BitOr;
use std::path::{Path, PathBuf};

use locule_plan::{Operation, OwnedList, Stream, join, root};

use super::filesystem::{self, Place};
use super::hooks::{self, About};
use super::interfaces;
use super::listener::ListenerInput;
use super::process::{self, Descriptors, ProcessInput};
use super::{
    HostFacts, Plan, SeccompCompiler, Slot, Writer, c_path, c_string, mask_of, unsupported,
};
use crate::cgroup::Location;
use crate::container::Rootfs;
use crate::resctrl::Group;
use crate::spec::{oci, vocabulary};
use crate::{Category, Error, Result, Stage};

/// Everything that decides what a container's creation is.
pub(crate) struct ContainerInput<'a> {
    pub spec: &'a oci::Spec,
    pub id: &'a str,
    /// Absolute.
    pub bundle: &'a Path,
    /// The container's own state directory, absolute.
    pub state_dir: &'a Path,
    pub rootfs: Rootfs,
    /// Layers beneath the root, absolute.
    pub lower: &'a [PathBuf],
    /// What keeps the changes to the root, absolute.
    pub changes: Option<&'a Path>,
    pub facts: &'a HostFacts,
    pub location: &'a Location,
    pub resctrl: Option<&'a Group>,
    pub descriptors: Descriptors,
    pub seccomp: SeccompCompiler<'a>,
    /// Whether the caller wants the listener of the seccomp filter.
    pub takes_listener: bool,
    /// Whether the process keeps the groups it is born with.
    pub keep_groups: bool,
}

/// The namespaces of a spec, sorted out.
pub(super) struct Namespaces<'a> {
    list: Vec<(usize, u64, Option<&'a Path>)>,
}

impl<'a> Namespaces<'a> {
    pub(super) fn of(spec: &'a oci::Spec) -> Self {
        let declared = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
        let list = declared.map_or_else(Vec::new, |declared| {
            let entry = |(index, namespace): (usize, &'a oci::LinuxNamespace)| {
                let path = namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty());
                (index, vocabulary::namespace_flag(namespace.typ()), path)
            };
            declared.iter().enumerate().map(entry).collect()
        });
        Namespaces { list }
    }

    /// Whether the container has a namespace of this kind of its own, new or joined.
    pub(super) fn has(&self, kind: u64) -> bool {
        self.list.iter().any(|entry| entry.1 == kind)
    }

    pub(super) fn is_new(&self, kind: u64) -> bool {
        self.list.iter().any(|entry| entry.1 == kind && entry.2.is_none())
    }

    /// The `CLONE_NEW*` bits of all kinds, new or joined.
    pub(super) fn kinds(&self) -> u64 {
        self.list.iter().fold(0, |bits, entry| bits | entry.1)
    }

    fn joined(&self) -> impl Iterator<Item = (String, u64, &'a Path)> + '_ {
        self.list.iter().filter_map(|&(index, kind, path)| {
            Some((format!("/linux/namespaces/{index}"), kind, path?))
        })
    }
}

/// Compiles the creation of a container. `spec` has been validated.
pub(crate) fn compile_container(input: &ContainerInput<'_>) -> Result<Plan> {
    let spec = input.spec;
    let linux = spec.linux().as_ref();
    let namespaces = Namespaces::of(spec);
    let process = spec.process().as_ref().ok_or_else(|| {
        Error::new(Category::Spec, Stage::Compile, "process is missing").at("/process")
    })?;
    need_own_mounts(&namespaces)?;
    let mut out = Writer::default();

    // A process in a user namespace can no longer raise its limits: of one that is born there
    // the keeper raises them.
    let new_user = namespaces.is_new(join::USER);
    let born_there = new_user || namespaces.has(join::USER) && input.facts.privileged;
    let limits = if born_there { Stream::Parent } else { Stream::Child };
    process::limits(&mut out, limits, process, "/process");
    enter_namespaces(&mut out, input, &namespaces)?;
    if new_user {
        map_ids(&mut out, input)?;
    }

    out.child("", &Operation::NewSession {});
    out.child("", &Operation::NewKeyring {});
    if namespaces.is_new(join::NETWORK) {
        out.child("/linux/namespaces", &Operation::LoopbackUp {});
    }
    let terminal = process.terminal().unwrap_or(false);
    prepare_root(&mut out, input, &namespaces, terminal)?;
    settings(&mut out, spec)?;

    let becoming = ProcessInput {
        process,
        pointer: "/process",
        seccomp_profile: linux.and_then(|linux| linux.seccomp().as_ref()),
        seccomp: input.seccomp,
        listener: ListenerInput {
            container: About::of(input),
            init: None,
            is_callers: input.takes_listener,
        },
        facts: input.facts,
        keep_groups: input.keep_groups,
    };
    process::become_process(&mut out, &becoming)?;
    out.child("", &Operation::Gate {});

    if let Some(hooks) = spec.hooks() {
        let about = About::of(input);
        let (_, env) = process::command(process, "/process")?;
        hooks::push_start_container(&mut out, hooks.start_container().as_ref(), &about, env)?;
        let list = hooks.poststart().as_ref();
        hooks::push(&mut out, Stream::Poststart, "poststart", list, &about, "running")?;
    }
    process::execute(&mut out, &becoming)?;
    cleanup(&mut out, input)?;
    Ok(out.finish())
}

/// Setting up the root changes the mounts of everybody in the mount namespace, down to taking
/// the root away from them. Without one of its own the container would have to do without a
/// root, and would find the host's.
fn need_own_mounts(namespaces: &Namespaces<'_>) -> Result<()> {
    match namespaces.list.iter().find(|entry| entry.1 == join::MOUNT) {
        Some((_, _, None)) => Ok(()),
        Some((index, _, Some(_))) => Err(unsupported(
            &format!("/linux/namespaces/{index}/path"),
            "joining a mount namespace, whose root would be replaced for all in it,",
        )),
        None => Err(unsupported("/linux/namespaces", "a container without a mount namespace")),
    }
}

fn enter_namespaces(
    out: &mut Writer,
    input: &ContainerInput<'_>,
    namespaces: &Namespaces<'_>,
) -> Result<()> {
    let joins_user = namespaces.has(join::USER) && !namespaces.is_new(join::USER);
    let becomes_root = joins_user || namespaces.is_new(join::USER) && maps_root(input.spec);
    // The message queues of a new IPC namespace belong to who makes it, which has to be the
    // container's root and not the host's, whom the container does not know.
    let by_root = if becomes_root { join::IPC } else { 0 };
    let separately = join::CGROUP | join::TIME | by_root;
    let new = namespaces.list.iter().filter(|entry| entry.2.is_none());
    let new = new.fold(0, |bits, entry| bits | entry.1);
    out.push(
        Stream::Launch,
        "/linux/namespaces",
        &Operation::NewNamespaces { flags: new & !separately },
    );
    cgroup_entries(out, input.location);
    resctrl_entries(out, input.resctrl);

    // A new user namespace has no power over a namespace that is older than it, and one that is
    // joined none over its parent's: with the privilege to, an intermediate process joins all
    // others first. Without, the user namespace is what gives the power to join them.
    let first = namespaces.is_new(join::USER) || joins_user && input.facts.privileged;
    let mut joined: Vec<_> = namespaces.joined().collect();
    joined.sort_by_key(|(_, kind, _)| *kind != join::USER);
    for (pointer, kind, path) in joined {
        let slot =
            out.slot(Slot::Namespace { path: path.to_owned(), kind, pointer: pointer.clone() });
        // Pid and time namespaces: `setns` changes those of children only. From a user
        // namespace the keeper could not return to its own.
        let for_child = kind & (join::PID | join::TIME) != 0;
        match kind {
            // The new namespaces are born in it, or its root would have no power over them.
            join::USER => out.push(
                Stream::Launch,
                &pointer,
                &Operation::ThroughUserNamespace { slot, kinds: 0 },
            ),
            _ if first || for_child && input.facts.in_user_namespace => {
                out.push(Stream::Launch, &pointer, &Operation::JoinNamespace { kind, slot });
            }
            _ if for_child => {
                out.push(Stream::Launch, &pointer, &Operation::JoinForChild { kind, slot });
            }
            _ => out.child(&pointer, &Operation::JoinNamespace { kind, slot }),
        }
    }
    if namespaces.is_new(join::CGROUP) {
        // Not at clone3: the new namespace's root would be the keeper's own cgroup.
        out.child("/linux/namespaces", &Operation::Unshare { flags: join::CGROUP });
    }
    if namespaces.is_new(join::TIME) {
        let offsets = input.spec.linux().as_ref().and_then(|linux| linux.time_offsets().as_ref());
        let text = offsets.map_or_else(String::new, time_offsets);
        out.child(
            "/linux/timeOffsets",
            &Operation::NewTimeNamespace { offsets: &c_string(text, "/linux/timeOffsets")? },
        );
    }
    if becomes_root {
        out.child("", &Operation::BecomeRoot {});
    }
    if new & by_root != 0 {
        out.child("/linux/namespaces", &Operation::Unshare { flags: by_root });
    }
    Ok(())
}

/// How the process gets into its cgroups, numbered as [`Location::places`] is.
pub(super) fn cgroup_entries(out: &mut Writer, location: &Location) {
    for (index, place) in location.places().iter().enumerate() {
        let slot = out.slot(Slot::CgroupEntry(index));
        if place.unified {
            out.push(Stream::Launch, "/linux/cgroupsPath", &Operation::IntoCgroup { slot });
        } else {
            out.child("/linux/cgroupsPath", &Operation::EnterCgroup { slot });
        }
    }
}

/// How the process gets into its resctrl groups, numbered as [`Group::tasks`] is.
pub(super) fn resctrl_entries(out: &mut Writer, group: Option<&Group>) {
    for index in 0..group.map_or(0, |group| group.tasks().len()) {
        let slot = out.slot(Slot::ResctrlTasks(index));
        out.child("/linux/intelRdt", &Operation::EnterResctrlGroup { slot });
    }
}

/// The offsets as `/proc/self/timens_offsets` takes them.
fn time_offsets(offsets: &std::collections::HashMap<String, oci::LinuxTimeOffset>) -> String {
    let mut lines: Vec<_> = offsets
        .iter()
        .map(|(clock, offset)| {
            let (secs, nanosecs) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
            format!("{clock} {secs} {nanosecs}\n")
        })
        .collect();
    lines.sort(); // the map has no order, the plan must have one
    lines.concat()
}

/// The user on the host to whom the container's cgroup is to be given: whoever the process is,
/// if it has a cgroup namespace of its own and a writable `/sys/fs/cgroup` (config-linux.md,
/// "Cgroup ownership").
pub(crate) fn cgroup_owner(spec: &oci::Spec) -> Option<u32> {
    let namespaces = Namespaces::of(spec);
    let writable = spec.mounts().iter().flatten().any(|mount| {
        let kind = mount.typ().as_deref().unwrap_or_default();
        let read_only = mount.options().iter().flatten().any(|option| option == "ro");
        mount.destination() == Path::new("/sys/fs/cgroup")
            && matches!(kind, "cgroup" | "cgroup2")
            && !read_only
    });
    if !writable || !namespaces.is_new(join::CGROUP) {
        return None;
    }
    let uid = spec.process().as_ref()?.user().uid();
    if !namespaces.has(join::USER) {
        return Some(uid);
    }
    // Of a user namespace that is joined the map is not known here.
    let [map, _] = id_mappings(spec);
    on_host(map, uid)
}

/// The ids on the host of the container's root, if it has a new user namespace that has one.
pub(crate) fn root_ids(spec: &oci::Spec) -> Option<[u32; 2]> {
    let [uids, gids] = id_mappings(spec);
    let ids = || Some([on_host(uids, 0)?, on_host(gids, 0)?]);
    if Namespaces::of(spec).is_new(join::USER) { ids() } else { None }
}

fn on_host(map: &[oci::LinuxIdMapping], id: u32) -> Option<u32> {
    map.iter().find_map(|range| {
        let offset = id.checked_sub(range.container_id())?;
        (offset < range.size()).then(|| range.host_id() + offset)
    })
}

fn id_mappings(spec: &oci::Spec) -> [&[oci::LinuxIdMapping]; 2] {
    let linux = spec.linux().as_ref();
    let uid = linux.and_then(|linux| linux.uid_mappings().as_deref()).unwrap_or_default();
    let gid = linux.and_then(|linux| linux.gid_mappings().as_deref()).unwrap_or_default();
    [uid, gid]
}

/// Whether the maps are those that every user may write for itself.
fn is_single_map(spec: &oci::Spec, facts: &HostFacts) -> bool {
    let own = [facts.euid, facts.egid];
    id_mappings(spec)
        .into_iter()
        .zip(own)
        .all(|(map, own)| matches!(map, [only] if only.size() == 1 && only.host_id() == own))
}

/// Whether the container has an id 0. Where it has not, the process keeps its own ids, which
/// are mapped, and has every capability in the namespace all the same.
pub(super) fn maps_root(spec: &oci::Spec) -> bool {
    id_mappings(spec)
        .into_iter()
        .all(|map| map.iter().any(|range| range.container_id() == 0 && range.size() > 0))
}

/// Whether `setgroups` is forbidden in the container: the price of a map that needs no
/// privilege, paid by it or by a user namespace around it.
pub(crate) fn denies_setgroups(spec: &oci::Spec, facts: &HostFacts) -> bool {
    let own = Namespaces::of(spec).is_new(join::USER);
    facts.setgroups_denied || own && !facts.privileged && is_single_map(spec, facts)
}

fn map_ids(out: &mut Writer, input: &ContainerInput<'_>) -> Result<()> {
    let [uid, gid] = id_mappings(input.spec);
    let pointers = ["/linux/uidMappings", "/linux/gidMappings"];
    if input.facts.privileged || is_single_map(input.spec, input.facts) {
        let [uid, gid] = [uid, gid].map(filesystem::id_map_lines);
        if !input.facts.privileged {
            out.push(Stream::Parent, pointers[1], &Operation::DenySetgroups {});
        }
        let map = c_string(gid, pointers[1])?;
        out.push(Stream::Parent, pointers[1], &Operation::GidMap { map: &map });
        let map = c_string(uid, pointers[0])?;
        out.push(Stream::Parent, pointers[0], &Operation::UidMap { map: &map });
        return Ok(());
    }
    let Some(mappers) = &input.facts.id_mappers else {
        return Err(Error::new(
            Category::Unsupported,
            Stage::Compile,
            "an ordinary user can map only its own id without newuidmap and newgidmap",
        )
        .at(pointers[0])
        .hint("install the package uidmap, or map only your own user and group id"));
    };
    let programs = [&mappers.newgidmap, &mappers.newuidmap];
    for ((program, map), pointer) in
        programs.into_iter().zip([gid, uid]).zip([pointers[1], pointers[0]])
    {
        let numbers = map.iter().flat_map(|m| [m.container_id(), m.host_id(), m.size()]);
        let args: OwnedList = numbers
            .map(|number| c_string(number.to_string(), pointer))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .collect();
        out.push(
            Stream::Parent,
            pointer,
            &Operation::RunIdMapper { program: &c_path(program, pointer)?, args: args.as_list() },
        );
    }
    Ok(())
}

fn prepare_root(
    out: &mut Writer,
    input: &ContainerInput<'_>,
    namespaces: &Namespaces<'_>,
    terminal: bool,
) -> Result<()> {
    let spec = input.spec;
    let linux = spec.linux().as_ref();
    let wanted = linux.and_then(|linux| linux.rootfs_propagation().as_deref());
    let pointer = "/linux/rootfsPropagation";
    let wanted = match wanted {
        None | Some("") => None,
        Some(name) => Some(vocabulary::propagation(name).ok_or_else(|| {
            Error::new(Category::Spec, Stage::Compile, format!("unknown propagation {name:?}"))
                .at(pointer)
        })?),
    };
    // Private, or what the container mounts would show on the host; slave lets the host's
    // later mounts through where the configuration asks to receive them.
    let private = libc::MS_PRIVATE | libc::MS_REC;
    let slave = libc::MS_SLAVE | libc::MS_REC;
    let receives = wanted.is_some_and(|flags| flags & (libc::MS_SHARED | libc::MS_SLAVE) != 0);
    let propagation = if receives { slave } else { private };
    out.child(pointer, &Operation::Propagation { flags: propagation });

    let root = spec
        .root()
        .as_ref()
        .ok_or_else(|| Error::new(Category::Spec, Stage::Compile, "root is missing").at("/root"))?;
    let path = input.bundle.join(root.path());
    let scratch = c_path(input.state_dir, "")?;
    let lower = c_path(&path, "/root/path")?;
    match input.rootfs {
        Rootfs::Direct => {
            out.child("/root/path", &Operation::Root { path: &lower, kind: root::PIVOT });
        }
        Rootfs::Overlay
            if path == Path::new("/")
                && (namespaces.has(join::USER) || input.facts.is_rootless()) =>
        {
            overlay_by_entry(out, input, &scratch)?;
        }
        Rootfs::Overlay => {
            let below = input.lower.iter().map(|path| c_path(path, "/root/path"));
            let below: OwnedList = below.collect::<Result<Vec<_>>>()?.into_iter().collect();
            let changes = c_path(input.changes.unwrap_or(Path::new("")), "/root/path")?;
            out.child(
                "/root/path",
                &Operation::OverlayRoot {
                    lower: &lower,
                    below: below.as_list(),
                    changes: &changes,
                    scratch: &scratch,
                },
            );
        }
    }

    let late = filesystem::populate(
        out,
        &Place {
            spec,
            bundle: input.bundle,
            root: &path,
            location: input.location,
            cgroup_mode: input.facts.cgroups.mode(),
            new_cgroup_namespace: namespaces.is_new(join::CGROUP),
            in_user_namespace: namespaces.has(join::USER),
            propagation,
            privileged: input.facts.privileged,
            label: mount_label(spec, input.facts)?,
        },
    )?;

    // As late as the hooks allow, which may want them: an interface that has to go back because
    // a mount fails has lost the routes that it had.
    let moves = interfaces::push(out, spec, input.facts)?;
    let about = About::of(input);
    let mut hooked = false;
    if let Some(hooks) = spec.hooks() {
        let lists =
            [("prestart", prestart(hooks)), ("createRuntime", hooks.create_runtime().as_ref())];
        for (name, list) in lists {
            hooked |= list.is_some_and(|list| !list.is_empty());
            hooks::push(out, Stream::Hooks, name, list, &about, "creating")?;
        }
    }
    if moves || hooked {
        let pointer = if hooked { "/hooks" } else { "/linux/netDevices" };
        out.child(pointer, &Operation::Checkpoint { network: moves.into() });
    }
    if let Some(hooks) = spec.hooks() {
        let list = hooks.create_container().as_ref();
        hooks::push(out, Stream::Child, "createContainer", list, &about, "creating")?;
    }

    let cwd = spec.process().as_ref().map(oci::Process::cwd);
    if let Some(cwd) = cwd.filter(|cwd| cwd.as_path() != Path::new("/")) {
        // As others do, before the root may become read-only.
        let path = c_path(cwd, "/process/cwd")?;
        out.child("/process/cwd", &Operation::Directory { path: &path, mode: 0o755 });
    }
    filesystem::protect(out, spec)?;
    out.child("/root", &Operation::Pivot {});
    if let Some(flags) = wanted {
        if flags & libc::MS_SHARED != 0 {
            // Up to here it follows the host, and a shared mount would go on to.
            out.child(pointer, &Operation::RootPropagation { flags: libc::MS_PRIVATE });
        }
        out.child(pointer, &Operation::RootPropagation { flags });
    }
    let process = spec.process().as_ref();
    process::streams(out, process, "/process", &input.descriptors, terminal, true);
    late.iter().try_for_each(|late| filesystem::read_only(out, late))
}

/// The SELinux label of new filesystems.
fn mount_label<'a>(spec: &'a oci::Spec, facts: &HostFacts) -> Result<Option<&'a str>> {
    let label = spec.linux().as_ref().and_then(|linux| linux.mount_label().as_deref());
    if label.is_some() && !facts.selinux {
        return Err(unsupported("/linux/mountLabel", "a mount label on a machine without SELinux"));
    }
    Ok(label)
}

#[allow(deprecated)] // the specification keeps prestart for its users
fn prestart(hooks: &oci::Hooks) -> Option<&Vec<oci::Hook>> {
    hooks.prestart().as_ref()
}

/// `/` entry by entry: in a user namespace the kernel refuses one overlay of all of it, because
/// the mounts below `/` are locked.
fn overlay_by_entry(
    out: &mut Writer,
    input: &ContainerInput<'_>,
    scratch: &std::ffi::CStr,
) -> Result<()> {
    const EMPTY: [&str; 6] = ["proc", "sys", "dev", "run", "tmp", "mnt"];
    if !input.lower.is_empty() || input.changes.is_some() {
        let what = "`/` in a user namespace, which is many overlays, with `lower` or `changes`";
        return Err(unsupported("/root/path", what));
    }
    out.child("/root/path", &Operation::OverlayRootByEntry { scratch });
    for entry in &input.facts.root_entries {
        let name = c_string(entry.name.as_str(), "/root/path")?;
        match &entry.link {
            Some(target) => out.child(
                "/root/path",
                &Operation::Symlink { path: &name, target: &c_path(target, "/root/path")? },
            ),
            None if EMPTY.contains(&entry.name.as_str()) => {
                let mode = if entry.name == "tmp" { 0o1777 } else { 0o755 };
                out.child("/root/path", &Operation::Directory { path: &name, mode });
            }
            None => out.child("/root/path", &Operation::OverlayEntry { name: &name }),
        }
    }
    Ok(())
}

fn settings(out: &mut Writer, spec: &oci::Spec) -> Result<()> {
    if let Some(name) = spec.hostname().as_ref().filter(|name| !name.is_empty()) {
        out.child(
            "/hostname",
            &Operation::Hostname { name: &c_string(name.as_str(), "/hostname")? },
        );
    }
    if let Some(name) = spec.domainname().as_ref().filter(|name| !name.is_empty()) {
        out.child(
            "/domainname",
            &Operation::Domainname { name: &c_string(name.as_str(), "/domainname")? },
        );
    }
    personality(out, spec);
    memory_policy(out, spec);
    let sysctl = spec.linux().as_ref().and_then(|linux| linux.sysctl().as_ref());
    let mut sysctl: Vec<_> = sysctl.into_iter().flatten().collect();
    sysctl.sort(); // the map has no order, the plan must have one
    for (name, value) in sysctl {
        let pointer = format!("/linux/sysctl/{}", name.replace('~', "~0").replace('/', "~1"));
        out.child(
            &pointer,
            &Operation::Sysctl {
                name: &c_string(vocabulary::sysctl_path(name).unwrap_or_default(), &pointer)?,
                value: &c_string(value.as_str(), &pointer)?,
            },
        );
    }
    Ok(())
}

/// What machine the process believes to be on.
pub(super) fn personality(out: &mut Writer, spec: &oci::Spec) {
    let linux = spec.linux().as_ref();
    if let Some(personality) = linux.and_then(|linux| linux.personality().as_ref()) {
        let persona = vocabulary::persona(personality.domain());
        out.child("/linux/personality", &Operation::Personality { persona });
    }
}

/// Which nodes' memory the process gets.
pub(super) fn memory_policy(out: &mut Writer, spec: &oci::Spec) {
    let linux = spec.linux().as_ref();
    let Some(asked) = linux.and_then(|linux| linux.memory_policy().as_ref()) else { return };
    let modes = vocabulary::MEMORY_POLICY_MODES.iter().filter(|mode| mode.1 == asked.mode());
    let flags = asked.flags().as_deref().unwrap_or_default();
    let flags = vocabulary::MEMORY_POLICY_FLAGS.iter().filter(|flag| flags.contains(&flag.1));
    let policy = modes.map(|mode| mode.2).chain(flags.map(|flag| flag.2)).fold(0, BitOr::bitor);
    let nodes = asked.nodes().as_deref().unwrap_or_default();
    let nodes = mask_of(nodes);
    let operation = Operation::MemoryPolicy { policy, nodes: nodes.as_numbers() };
    out.child("/linux/memoryPolicy", &operation);
}

/// What the keeper does when the host dies: at any time, or of a detached container only while
/// it is being created.
fn cleanup(out: &mut Writer, input: &ContainerInput<'_>) -> Result<()> {
    // First where they are killed at once, and where what is frozen can be thawed: elsewhere that
    // would be waited for.
    let mut places: Vec<_> = input.location.places().iter().collect();
    places.sort_by_key(|place| {
        !(place.unified || place.controllers.iter().any(|controller| controller == "freezer"))
    });
    for place in places {
        let path = c_path(&place.directory(), "")?;
        out.push(Stream::Cleanup, "/linux/cgroupsPath", &Operation::KillCgroup { path: &path });
    }
    // systemd removes what it has made as soon as it is empty.
    let removes = |place: &&crate::cgroup::Place| !place.existed && input.location.unit().is_none();
    for place in input.location.places().iter().filter(removes) {
        let path = c_path(&place.directory(), "")?;
        out.push(Stream::Cleanup, "/linux/cgroupsPath", &Operation::RemoveCgroup { path: &path });
    }
    for directory in input.resctrl.into_iter().flat_map(Group::removable) {
        let path = c_path(directory, "")?;
        let operation = Operation::RemoveResctrlGroup { path: &path };
        out.push(Stream::Cleanup, "/linux/intelRdt", &operation);
    }
    let path = c_path(input.state_dir, "")?;
    out.push(Stream::Cleanup, "", &Operation::RemoveState { path: &path });
    hooks::push_poststop(out, Stream::Cleanup, &About::of(input))
}
