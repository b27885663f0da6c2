//! What the first process of a container and every later one have in common: streams, limits,
//! identity, capabilities, seccomp, program.

use std::collections::HashSet;
use std::ffi::CString;

use locule_plan::{Operation, OwnedList, OwnedNumbers, Stream, terminal};

use super::listener::{self, ListenerInput};
use super::{HostFacts, SeccompCompiler, Slot, Writer, c_path, c_string};
use crate::spec::{oci, vocabulary};
use crate::{Category, Error, Result, Stage};

/// Which descriptors the caller gives.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Descriptors {
    /// Standard streams that are not the null device.
    pub stdio: [bool; 3],
    /// How many more, to become 3, 4, ...
    pub pass: usize,
    /// Whether a terminal passes line ends on as they are.
    pub raw_output: bool,
}

pub(super) struct ProcessInput<'a> {
    pub process: &'a oci::Process,
    /// Where the process object stands: `/process`, or empty for an exec's own document.
    pub pointer: &'a str,
    pub seccomp_profile: Option<&'a oci::LinuxSeccomp>,
    pub seccomp: SeccompCompiler<'a>,
    pub listener: ListenerInput<'a>,
    pub facts: &'a HostFacts,
    /// The user namespace forbids `setgroups`.
    pub keep_groups: bool,
}

/// Resource limits and the OOM score, in a stream whose actor may still raise them. `at` is
/// where the process object stands.
pub(super) fn limits(out: &mut Writer, stream: Stream, process: &oci::Process, at: &str) {
    for (index, limit) in process.rlimits().iter().flatten().enumerate() {
        let pointer = format!("{at}/rlimits/{index}");
        out.push(
            stream,
            &pointer,
            &Operation::ResourceLimit {
                resource: vocabulary::rlimit(limit.typ()),
                soft: limit.soft(),
                hard: limit.hard(),
            },
        );
    }
    if let Some(value) = process.oom_score_adj() {
        let operation = Operation::OomScoreAdj { value };
        out.push(stream, &format!("{at}/oomScoreAdj"), &operation);
    }
}

/// Standard streams and passed descriptors, or a terminal. `at` is where the process object
/// stands.
pub(super) fn streams(
    out: &mut Writer,
    process: Option<&oci::Process>,
    at: &str,
    descriptors: &Descriptors,
    has_terminal: bool,
    console: bool,
) {
    if has_terminal {
        let size = process.and_then(oci::Process::console_size);
        let number = |value: u64| u32::try_from(value).unwrap_or(0);
        out.child(
            &format!("{at}/terminal"),
            &Operation::Terminal {
                rows: size.map_or(0, |size| number(size.height())),
                columns: size.map_or(0, |size| number(size.width())),
                flags: if console { terminal::CONSOLE } else { 0 }
                    | if descriptors.raw_output { terminal::RAW_OUTPUT } else { 0 },
                uid: process.map_or(0, |process| process.user().uid()),
            },
        );
    } else {
        for number in (0..3).filter(|&number| descriptors.stdio[number]) {
            let slot = out.slot(Slot::Stdio(number));
            out.child("", &Operation::Descriptor { target: number as u32, slot });
        }
    }
    for index in 0..descriptors.pass {
        let slot = out.slot(Slot::Pass(index));
        out.child("", &Operation::Descriptor { target: 3 + index as u32, slot });
    }
}

/// The steps from a process with all its privileges to one that waits at the gate with those
/// of the program.
pub(super) fn become_process(out: &mut Writer, input: &ProcessInput<'_>) -> Result<()> {
    let process = input.process;
    let at = |field: &str| format!("{}/{field}", input.pointer);

    if let Some(profile) = process.apparmor_profile().as_ref().filter(|name| !name.is_empty()) {
        let pointer = at("apparmorProfile");
        let label = c_string(profile.as_str(), &pointer)?;
        out.child(&pointer, &Operation::SecurityLabel { kind: 0, label: &label });
    }
    if let Some(name) = process.selinux_label().as_ref().filter(|name| !name.is_empty()) {
        let pointer = at("selinuxLabel");
        let label = c_string(name.as_str(), &pointer)?;
        out.child(&pointer, &Operation::SecurityLabel { kind: 1, label: &label });
    }
    if let Some(scheduler) = process.scheduler() {
        let number = |value: Option<i32>| value.unwrap_or(0);
        out.child(
            &at("scheduler"),
            &Operation::Scheduler {
                policy: vocabulary::scheduler_policy(*scheduler.policy()),
                flags: scheduler
                    .flags()
                    .iter()
                    .flatten()
                    .fold(0, |bits, flag| bits | vocabulary::scheduler_flag(*flag)),
                nice: number(*scheduler.nice()),
                priority: number(*scheduler.priority()).max(0) as u32,
                runtime: scheduler.runtime().unwrap_or(0),
                deadline: scheduler.deadline().unwrap_or(0),
                period: scheduler.period().unwrap_or(0),
            },
        );
    }
    if let Some(priority) = process.io_priority() {
        let value = vocabulary::io_priority(priority.class(), priority.priority());
        out.child(&at("ioPriority"), &Operation::IoPriority { value });
    }

    // As the container's root, before the switch: a mode 0700 directory of another user is
    // reachable now. Root of a user namespace may not enter some that the user may.
    let in_cwd = at("cwd");
    let cwd = c_path(process.cwd(), &in_cwd)?;
    let attempt = u32::from(cwd.as_c_str() != c"/" && process.user().uid() != 0);
    out.child(&in_cwd, &Operation::WorkingDirectory { path: &cwd, attempt });

    let no_new_privileges = process.no_new_privileges().unwrap_or(false);
    if no_new_privileges {
        out.child(&at("noNewPrivileges"), &Operation::NoNewPrivileges {});
    } else {
        // Without no_new_privs a filter can be installed only as long as the process has
        // CAP_SYS_ADMIN.
        seccomp(out, Stream::Child, input)?;
    }

    let capabilities = process.capabilities().as_ref();
    // No capabilities object means none, not all.
    let mask = |set: fn(&oci::LinuxCapabilities) -> &Option<oci::Capabilities>| {
        let set = capabilities.and_then(|capabilities| set(capabilities).as_ref());
        set.map_or(0, |set| vocabulary::capability_mask(set, input.facts.last_capability))
    };
    out.child(
        &at("capabilities/bounding"),
        &Operation::BoundingCapabilities { mask: mask(oci::LinuxCapabilities::bounding) },
    );
    let user = process.user();
    let groups: OwnedNumbers = user.additional_gids().iter().flatten().copied().collect();
    if input.keep_groups && !groups.as_numbers().is_empty() {
        return Err(Error::new(
            Category::Unsupported,
            Stage::Compile,
            "supplementary groups cannot be set in a user namespace that maps one group",
        )
        .at(at("user/additionalGids"))
        .hint("map more groups with newgidmap, or leave user.additionalGids empty"));
    }
    out.child(
        &at("user"),
        &Operation::User {
            uid: user.uid(),
            gid: user.gid(),
            groups: groups.as_numbers(),
            keep_groups: u32::from(input.keep_groups),
        },
    );
    if let Some(mask) = user.umask() {
        out.child(&at("user/umask"), &Operation::Umask { mask });
    } else {
        out.child("", &Operation::Umask { mask: 0o022 });
    }
    let permitted = mask(oci::LinuxCapabilities::permitted);
    let inheritable = mask(oci::LinuxCapabilities::inheritable);
    let ambient = mask(oci::LinuxCapabilities::ambient);
    for name in vocabulary::capability_names(ambient & !(permitted & inheritable)) {
        tracing::warn!(
            "can't raise ambient capability {name}: it is not both permitted and inheritable"
        );
    }
    out.child(
        &at("capabilities"),
        &Operation::Capabilities {
            effective: mask(oci::LinuxCapabilities::effective),
            permitted,
            inheritable,
            ambient,
        },
    );

    if attempt == 1 {
        out.child(&in_cwd, &Operation::WorkingDirectory { path: &cwd, attempt: 2 });
    }

    let (args, env) = command(process, input.pointer)?;
    let first = args.as_list().iter().next().ok_or_else(|| {
        Error::new(Category::Spec, Stage::Compile, "args is empty").at(at("args"))
    })?;
    let path = env.as_list().iter().filter_map(|entry| entry.to_bytes().strip_prefix(b"PATH="));
    let path = path.last().unwrap_or(b"/usr/local/bin:/usr/bin:/bin");
    out.child(&at("args"), &Operation::Program { name: first, path: &c_string(path, "")? });
    Ok(())
}

/// What remains once the gate is open.
pub(super) fn execute(out: &mut Writer, input: &ProcessInput<'_>) -> Result<()> {
    if input.process.no_new_privileges().unwrap_or(false) {
        // The last thing before the program, so that the profile need not allow what the
        // steps before it do.
        seccomp(out, Stream::Start, input)?;
    }
    let (args, env) = command(input.process, input.pointer)?;
    let pointer = format!("{}/args", input.pointer);
    out.push(
        Stream::Start,
        &pointer,
        &Operation::Exec { args: args.as_list(), env: env.as_list() },
    );
    Ok(())
}

fn seccomp(out: &mut Writer, stream: Stream, input: &ProcessInput<'_>) -> Result<()> {
    let Some(profile) = input.seccomp_profile else { return Ok(()) };
    let program = (input.seccomp)(profile)?;
    if program.has_listener() {
        listener::push(out, stream, &input.listener, profile)?;
    }
    tracing::debug!("seccomp filter flags: {}", program.flags);
    out.push(
        stream,
        "/linux/seccomp",
        &Operation::Seccomp { flags: program.flags, program: &program.bpf },
    );
    Ok(())
}

/// The arguments and the environment.
pub(super) fn command(process: &oci::Process, pointer: &str) -> Result<(OwnedList, OwnedList)> {
    let texts = |texts: &mut dyn Iterator<Item = &String>, field: &str| -> Result<OwnedList> {
        let texts = texts.map(|text| c_string(text.as_str(), &format!("{pointer}/{field}")));
        Ok(texts.collect::<Result<Vec<CString>>>()?.into_iter().collect())
    };
    let args = texts(&mut process.args().iter().flatten(), "args")?;
    // Of equal names the last one counts, but getenv(3) finds the first.
    let mut seen = HashSet::new();
    let mut env: Vec<&String> = process.env().iter().flatten().rev().collect();
    env.retain(|entry| seen.insert(entry.split('=').next()));
    env.reverse();
    Ok((args, texts(&mut env.into_iter(), "env")?))
}
