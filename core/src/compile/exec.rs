//! The plan that runs another process in a container.

use locule_plan::{Operation, Stream, join};

use super::container::{
    Namespaces, cgroup_entries, maps_root, memory_policy, personality, resctrl_entries,
};
use super::hooks::About;
use super::listener::ListenerInput;
use super::process::{self, Descriptors, ProcessInput};
use super::{HostFacts, Plan, SeccompCompiler, Slot, Writer, mask_of};
use crate::Result;
use crate::cgroup::Location;
use crate::resctrl::Group;
use crate::spec::oci;

/// Everything that decides how a process is run in a container.
pub(crate) struct ExecInput<'a> {
    /// The container, with its own configuration as it was created.
    pub container: About<'a>,
    /// The pid of its first process.
    pub init: i32,
    /// The process, completed from the container's where it said nothing.
    pub process: &'a oci::Process,
    pub facts: &'a HostFacts,
    /// The container's cgroups.
    pub location: &'a Location,
    /// Its resctrl groups.
    pub resctrl: Option<&'a Group>,
    pub descriptors: Descriptors,
    /// Whether the container's user namespace forbids `setgroups`.
    pub keep_groups: bool,
    /// Whether to wait at the gate (for a keeper that serves this process alone).
    pub gate: bool,
    pub seccomp: SeccompCompiler<'a>,
    /// Whether the caller wants the listener of the seccomp filter.
    pub takes_listener: bool,
}

pub(crate) fn compile_exec(input: &ExecInput<'_>) -> Result<Plan> {
    let spec = input.container.spec;
    let namespaces = Namespaces::of(spec);
    let mut out = Writer::default();
    out.push(Stream::Launch, "", &Operation::NewNamespaces { flags: 0 });
    let affinity = input.process.exec_cpu_affinity().as_ref();
    // While it moves into the cgroups, and from then on.
    affinity_to(&mut out, "initial", affinity.and_then(|a| a.initial().as_deref()));
    cgroup_entries(&mut out, input.location);
    resctrl_entries(&mut out, input.resctrl);
    affinity_to(&mut out, "final", affinity.and_then(|a| a.cpu_affinity_final().as_deref()));

    // Before the user namespace takes the power to raise them.
    process::limits(&mut out, Stream::Child, input.process, "");
    let slot = out.slot(Slot::Init);
    let mut kinds = namespaces.kinds();
    if namespaces.has(join::USER) && !input.facts.privileged {
        let through = join::USER | (kinds & join::PID);
        out.push(Stream::Launch, "", &Operation::ThroughUserNamespace { slot, kinds: through });
        kinds &= !through;
    } else if kinds & join::PID != 0 {
        let kind = join::PID;
        let join = match input.facts.in_user_namespace {
            // The keeper could not return to its own, which is not this user namespace's.
            true => Operation::JoinNamespace { kind, slot },
            false => Operation::JoinForChild { kind, slot },
        };
        out.push(Stream::Launch, "", &join);
        kinds &= !join::PID;
    }
    if kinds != 0 {
        out.child("", &Operation::JoinProcess { slot, kinds });
    }
    if namespaces.has(join::USER) && (!namespaces.is_new(join::USER) || maps_root(spec)) {
        out.child("", &Operation::BecomeRoot {});
    }
    out.child("", &Operation::NewSession {});
    out.child("", &Operation::NewKeyring {});
    let terminal = input.process.terminal().unwrap_or(false);
    process::streams(&mut out, Some(input.process), "", &input.descriptors, terminal, false);

    let process = ProcessInput {
        process: input.process,
        pointer: "",
        seccomp_profile: spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()),
        seccomp: input.seccomp,
        listener: ListenerInput {
            container: input.container,
            init: Some(input.init),
            is_callers: input.takes_listener,
        },
        facts: input.facts,
        keep_groups: input.keep_groups,
    };
    personality(&mut out, spec);
    memory_policy(&mut out, spec);
    process::become_process(&mut out, &process)?;
    if input.gate {
        out.child("", &Operation::Gate {});
    }
    process::execute(&mut out, &process)?;
    Ok(out.finish())
}

/// Sets the processors, a list such as `0-3,7`.
fn affinity_to(out: &mut Writer, field: &str, list: Option<&str>) {
    let Some(list) = list.filter(|list| !list.is_empty()) else { return };
    let mask = mask_of(list);
    let words: Vec<_> = mask.as_numbers().iter().collect();
    let hex: String = words.iter().rev().map(|word| format!("{word:08x}")).collect();
    tracing::debug!("{field} processors: affinity: 0x{}", hex.trim_start_matches('0'));
    out.child(
        &format!("/execCPUAffinity/{field}"),
        &Operation::Affinity { mask: mask.as_numbers() },
    );
}
