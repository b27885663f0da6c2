//! Rules for `linux.seccomp`. What libseccomp has to say comes when the profile is compiled.

use super::{is_absolute, refuse};
use crate::error::Result;
use crate::spec::oci::{LinuxSeccomp, LinuxSeccompAction};

pub(super) fn check(profile: &LinuxSeccomp) -> Result<()> {
    let at = "/linux/seccomp";
    let default = profile.default_action();
    check_errno(default, profile.default_errno_ret(), &format!("{at}/defaultErrnoRet"))?;
    if default == LinuxSeccompAction::ScmpActNotify {
        return Err(refuse(
            format!("{at}/defaultAction"),
            "SCMP_ACT_NOTIFY cannot be the default: it is for calls that are named",
        ));
    }
    let mut notifies = false;
    for (index, rule) in profile.syscalls().iter().flatten().enumerate() {
        let at = format!("{at}/syscalls/{index}");
        notifies |= rule.action() == LinuxSeccompAction::ScmpActNotify;
        check_errno(rule.action(), rule.errno_ret(), &format!("{at}/errnoRet"))?;
        if rule.names().is_empty() {
            return Err(refuse(format!("{at}/names"), "the rule names no system call"));
        }
        if let Some(name) = rule.names().iter().position(String::is_empty) {
            return Err(refuse(format!("{at}/names/{name}"), "the system call's name is empty"));
        }
        for (number, argument) in rule.args().iter().flatten().enumerate() {
            if argument.index() > 5 {
                return Err(refuse(
                    format!("{at}/args/{number}/index"),
                    format!("a system call has no argument {}", argument.index()),
                ));
            }
        }
    }
    match profile.listener_path() {
        Some(path) if notifies && !is_absolute(path) => Err(refuse(
            format!("{at}/listenerPath"),
            format!("listenerPath {path:?} is not absolute"),
        )),
        None if profile.listener_metadata().is_some() => Err(refuse(
            format!("{at}/listenerMetadata"),
            "listenerMetadata without listenerPath reaches nobody",
        )),
        _ => Ok(()),
    }
}

fn check_errno(action: LinuxSeccompAction, errno: Option<u32>, at: &str) -> Result<()> {
    use LinuxSeccompAction::*;
    let Some(errno) = errno else { return Ok(()) };
    if !matches!(action, ScmpActErrno | ScmpActTrace) {
        return Err(refuse(at, format!("{action} cannot carry an errno, but has {errno}")));
    }
    // The kernel cuts an errno at MAX_ERRNO; a tracer's message is 16 bits.
    let limit = if action == ScmpActErrno { 4095 } else { u32::from(u16::MAX) };
    if errno > limit {
        return Err(refuse(at, format!("{action} with {errno}: the greatest is {limit}")));
    }
    Ok(())
}
