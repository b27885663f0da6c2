//! Rules for a `process` object, in `config.json` and in `exec`.

use std::collections::HashSet;

use super::{Namespaces, is_absolute, namespaces_of, refuse};
use crate::error::Result;
use crate::spec::oci::{
    LinuxIdMapping, LinuxNamespaceType, LinuxSchedulerPolicy, Process, Scheduler, Spec,
};
use crate::spec::vocabulary::{MOST_PROCESSORS, numbers_of};

/// The id that `setuid(2)` and its kin read as "leave it".
const NO_ID: u32 = u32::MAX;

/// `NGROUPS_MAX`.
const MOST_GROUPS: usize = 65536;

pub(super) fn check(process: &Process, at: &str) -> Result<()> {
    match process.args().as_deref() {
        None | Some([]) => {
            return Err(refuse(format!("{at}/args"), "args is empty: there is nothing to run"));
        }
        Some([program, ..]) if program.is_empty() => {
            return Err(refuse(format!("{at}/args/0"), "the program's name is empty"));
        }
        Some(_) => {}
    }
    if !is_absolute(process.cwd()) {
        return Err(refuse(
            format!("{at}/cwd"),
            format!("cwd {:?} is not an absolute path", process.cwd()),
        ));
    }
    check_environment(process.env().iter().flatten(), at)?;
    check_user(process, at)?;
    check_terminal(process, at)?;
    check_rlimits(process, at)?;
    if let Some(value) = process.oom_score_adj().filter(|value| !(-1000..=1000).contains(value)) {
        return Err(refuse(
            format!("{at}/oomScoreAdj"),
            format!("oomScoreAdj {value} is not between -1000 and 1000"),
        ));
    }
    if let Some(scheduler) = process.scheduler() {
        check_scheduler(scheduler, &format!("{at}/scheduler"))?;
    }
    if let Some(priority) = process.io_priority() {
        if !(0..=7).contains(&priority.priority()) {
            return Err(refuse(
                format!("{at}/ioPriority/priority"),
                format!("I/O priority {} is not between 0 and 7", priority.priority()),
            ));
        }
    }
    if let Some(affinity) = process.exec_cpu_affinity() {
        for (name, list) in
            [("initial", affinity.initial()), ("final", affinity.cpu_affinity_final())]
        {
            let Some(list) = list.as_deref() else { continue };
            let ranges = numbers_of(list);
            if !ranges.is_some_and(|all| all.iter().all(|range| *range.end() < MOST_PROCESSORS)) {
                return Err(refuse(
                    format!("{at}/execCPUAffinity/{name}"),
                    format!(
                        "{list:?} is not a list of CPUs such as 0-3,7, below {MOST_PROCESSORS}"
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// Environment entries are `NAME=value`; `at` is the object that holds `env`.
pub(super) fn check_environment<'a>(env: impl Iterator<Item = &'a String>, at: &str) -> Result<()> {
    for (index, entry) in env.enumerate() {
        if entry.find('=').is_none_or(|at| at == 0) {
            // The value may be a secret; without `=` there is none, and that is the defect.
            return Err(refuse(
                format!("{at}/env/{index}"),
                format!("environment entry {entry:?} is not of the form NAME=value"),
            ));
        }
    }
    Ok(())
}

fn check_user(process: &Process, at: &str) -> Result<()> {
    let user = process.user();
    for (name, id) in [("uid", user.uid()), ("gid", user.gid())] {
        if id == NO_ID {
            return Err(refuse(format!("{at}/user/{name}"), format!("{name} {id} is no valid id")));
        }
    }
    let count = user.additional_gids().as_ref().map_or(0, Vec::len);
    if count > MOST_GROUPS {
        return Err(refuse(
            format!("{at}/user/additionalGids"),
            format!("{count} groups are more than the kernel's {MOST_GROUPS}"),
        ));
    }
    let groups = user.additional_gids().iter().flatten();
    if let Some((index, id)) = groups.enumerate().find(|(_, id)| **id == NO_ID) {
        return Err(refuse(
            format!("{at}/user/additionalGids/{index}"),
            format!("group {id} is no valid id"),
        ));
    }
    if let Some(umask) = user.umask().filter(|umask| *umask > 0o777) {
        return Err(refuse(
            format!("{at}/user/umask"),
            format!("umask {umask} (octal {umask:o}) has more than the nine permission bits"),
        ));
    }
    Ok(())
}

/// In a new user namespace nobody can be a user or group that its maps leave out.
pub(super) fn check_mapped(process: &Process, spec: &Spec, at: &str) -> Result<()> {
    let Some(linux) = spec.linux() else { return Ok(()) };
    if !Namespaces(namespaces_of(spec)).creates(LinuxNamespaceType::User) {
        return Ok(());
    }
    let user = process.user();
    let mut wanted = vec![
        ("uidMappings", linux.uid_mappings(), user.uid(), "uid".to_owned()),
        ("gidMappings", linux.gid_mappings(), user.gid(), "gid".to_owned()),
    ];
    for (index, group) in user.additional_gids().iter().flatten().enumerate() {
        let field = format!("additionalGids/{index}");
        wanted.push(("gidMappings", linux.gid_mappings(), *group, field));
    }
    for (name, map, id, field) in wanted {
        // In 64 bits: a map may end with the last id.
        let covers = |line: &LinuxIdMapping| {
            let first = u64::from(line.container_id());
            (first..first + u64::from(line.size())).contains(&u64::from(id))
        };
        if !map.iter().flatten().any(covers) {
            return Err(refuse(
                format!("{at}/user/{field}"),
                format!("id {id} is not in linux.{name}: it does not exist in the container"),
            ));
        }
    }
    Ok(())
}

fn check_terminal(process: &Process, at: &str) -> Result<()> {
    let Some(size) = process.console_size().filter(|_| process.terminal() == Some(true)) else {
        return Ok(());
    };
    for (name, value) in [("height", size.height()), ("width", size.width())] {
        if value > u64::from(u16::MAX) {
            return Err(refuse(
                format!("{at}/consoleSize/{name}"),
                format!("a terminal cannot have {name} {value}"),
            ));
        }
    }
    Ok(())
}

fn check_rlimits(process: &Process, at: &str) -> Result<()> {
    let mut seen = HashSet::new();
    for (index, limit) in process.rlimits().iter().flatten().enumerate() {
        let name = limit.typ().to_string();
        if limit.soft() > limit.hard() {
            return Err(refuse(
                format!("{at}/rlimits/{index}/soft"),
                format!(
                    "{name}: the soft limit {} is above the hard {}",
                    limit.soft(),
                    limit.hard()
                ),
            ));
        }
        if !seen.insert(name) {
            return Err(refuse(
                format!("{at}/rlimits/{index}/type"),
                format!("{} is limited twice", limit.typ()),
            ));
        }
    }
    Ok(())
}

fn check_scheduler(scheduler: &Scheduler, at: &str) -> Result<()> {
    use LinuxSchedulerPolicy::*;
    let policy = *scheduler.policy();
    if policy == SchedIso {
        return Err(refuse(
            format!("{at}/policy"),
            "SCHED_ISO is reserved and no kernel implements it",
        ));
    }
    let nice = scheduler.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        return Err(refuse(format!("{at}/nice"), format!("nice {nice} is not between -20 and 19")));
    }
    let priority = scheduler.priority().unwrap_or(0);
    let wanted = if matches!(policy, SchedFifo | SchedRr) { 1..=99 } else { 0..=0 };
    if !wanted.contains(&priority) {
        return Err(refuse(
            format!("{at}/priority"),
            format!(
                "priority {priority} is not between {} and {}, as {policy} needs it",
                wanted.start(),
                wanted.end()
            ),
        ));
    }
    check_deadline(scheduler, at)
}

fn check_deadline(scheduler: &Scheduler, at: &str) -> Result<()> {
    let [runtime, deadline, period] =
        [scheduler.runtime(), scheduler.deadline(), scheduler.period()].map(|v| v.unwrap_or(0));
    if *scheduler.policy() != LinuxSchedulerPolicy::SchedDeadline {
        for (name, value) in [("runtime", runtime), ("deadline", deadline), ("period", period)] {
            if value != 0 {
                return Err(refuse(
                    format!("{at}/{name}"),
                    format!("{name} {value} has no meaning without SCHED_DEADLINE"),
                ));
            }
        }
        return Ok(());
    }
    // A period of zero means the deadline.
    let period = if period == 0 { deadline } else { period };
    if runtime == 0 || runtime > deadline || deadline > period {
        return Err(refuse(
            at,
            format!(
                "SCHED_DEADLINE needs 0 < runtime <= deadline <= period, \
                 not {runtime}, {deadline}, {period}"
            ),
        ));
    }
    Ok(())
}
