//! The built-in validator: what no plugin may do, whatever it was granted.

use serde_json::Value;

use super::Fault;
use super::ledger::Change;
use super::place::capability;

/// What plugins may not do to a configuration. Nothing is forbidden by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Guard {
    /// Adding, changing or removing hooks.
    pub hooks: bool,
    /// Leaving a namespace, joining another instead of a new one, or changing the id mappings of a
    /// user namespace.
    pub namespaces: bool,
    /// Changing or removing a seccomp profile that is there.
    pub seccomp: bool,
    /// Adding a capability.
    pub capabilities: bool,
    /// Taking away other walls: `noNewPrivileges`, AppArmor and SELinux, masked and read-only paths,
    /// a read-only root, a user other than root.
    pub confinement: bool,
    /// Setting a sysctl.
    pub sysctl: bool,
    /// Adding or changing a device, or what devices may be used.
    pub devices: bool,
}

impl Guard {
    /// The names of its switches, as in configuration files.
    pub const NAMES: [&str; 7] =
        ["hooks", "namespaces", "seccomp", "capabilities", "confinement", "sysctl", "devices"];

    /// Forbids by name; `None` if there is no such switch.
    pub fn forbid(&mut self, name: &str) -> Option<()> {
        *match name {
            "hooks" => &mut self.hooks,
            "namespaces" => &mut self.namespaces,
            "seccomp" => &mut self.seccomp,
            "capabilities" => &mut self.capabilities,
            "confinement" => &mut self.confinement,
            "sysctl" => &mut self.sysctl,
            "devices" => &mut self.devices,
            _ => return None,
        } = true;
        Some(())
    }

    /// Forbids what the other one forbids, too.
    pub fn also(&mut self, other: Guard) {
        self.hooks |= other.hooks;
        self.namespaces |= other.namespaces;
        self.seccomp |= other.seccomp;
        self.capabilities |= other.capabilities;
        self.confinement |= other.confinement;
        self.sysctl |= other.sysctl;
        self.devices |= other.devices;
    }

    /// Looks at what has become of a configuration, or at `exec` and `update` of a part of it.
    pub(super) fn check(
        &self,
        before: &Value,
        after: &Value,
        changes: &[Change],
    ) -> Result<(), Fault> {
        let refuse = |what: &str, pointer: &str| {
            let touches = |change: &&Change| {
                is_in(&change.pointer, pointer) || is_in(pointer, &change.pointer)
            };
            let who = changes.iter().rev().find(touches);
            let who = who.map(|change| format!(", as plugin {:?} does", change.plugin));
            Err(Fault::refused(format!("no plugin may {what}{}", who.unwrap_or_default())))
        };
        let differs = |pointer: &str| before.pointer(pointer) != after.pointer(pointer);
        let was_there = |pointer: &str| before.pointer(pointer).is_some_and(|it| !it.is_null());
        if self.hooks && differs("/hooks") {
            return refuse("change hooks", "/hooks");
        }
        if self.namespaces && weakens_namespaces(before, after) {
            return refuse("take away a namespace or join another", "/linux/namespaces");
        }
        for pointer in ["/linux/uidMappings", "/linux/gidMappings"] {
            if self.namespaces && was_there(pointer) && differs(pointer) {
                return refuse("change whom ids of the container stand for", pointer);
            }
        }
        if self.seccomp && was_there("/linux/seccomp") && differs("/linux/seccomp") {
            return refuse("change a seccomp profile", "/linux/seccomp");
        }
        if self.capabilities && adds_capability(before, after) {
            return refuse("add a capability", "/process/capabilities");
        }
        if self.confinement
            && let Some(pointer) = weakens_confinement(before, after)
        {
            return refuse(&format!("take away {pointer}"), pointer);
        }
        if self.sysctl && differs("/linux/sysctl") {
            return refuse("change a sysctl", "/linux/sysctl");
        }
        for pointer in ["/linux/devices", "/linux/resources/devices"] {
            if self.devices && differs(pointer) {
                return refuse("change devices", pointer);
            }
        }
        Ok(())
    }
}

fn list<'a>(document: &'a Value, pointer: &str) -> &'a [Value] {
    document.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Whether a place is this one or in it.
fn is_in(place: &str, around: &str) -> bool {
    place.strip_prefix(around).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Each namespace that was there is there still, by the same path or new as before.
fn weakens_namespaces(before: &Value, after: &Value) -> bool {
    let all = |document| {
        let text = |namespace: &Value, name: &str| {
            namespace.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let namespaces = list(document, "/linux/namespaces").iter();
        namespaces.map(|it| (text(it, "type"), text(it, "path"))).collect::<Vec<_>>()
    };
    let (before, after) = (all(before), all(after));
    before.iter().any(|namespace| !after.contains(namespace))
        || after.iter().any(|namespace| !namespace.1.is_empty() && !before.contains(namespace))
}

fn adds_capability(before: &Value, after: &Value) -> bool {
    let sets = after.pointer("/process/capabilities").and_then(Value::as_object);
    sets.into_iter().flatten().any(|(set, names)| {
        let known = list(before, &format!("/process/capabilities/{set}"));
        let known: Vec<_> = known.iter().filter_map(Value::as_str).map(capability).collect();
        let names = names.as_array().into_iter().flatten().filter_map(Value::as_str);
        names.map(capability).any(|name| name.is_some() && !known.contains(&name))
    })
}

/// The first wall that is missing.
fn weakens_confinement(before: &Value, after: &Value) -> Option<&'static str> {
    const FLAGS: [&str; 2] = ["/process/noNewPrivileges", "/root/readonly"];
    const LABELS: [&str; 2] = ["/process/apparmorProfile", "/process/selinuxLabel"];
    const PATHS: [&str; 2] = ["/linux/maskedPaths", "/linux/readonlyPaths"];
    let is_set = |document: &Value, pointer: &str| document.pointer(pointer) == Some(&true.into());
    let of = |document: &Value, pointer: &str| {
        document.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let flags = FLAGS.into_iter().filter(|at| is_set(before, at) && !is_set(after, at));
    let labels = LABELS.into_iter().filter(|at| {
        let label = of(before, at);
        !label.is_empty() && label != of(after, at)
    });
    let paths = PATHS.into_iter().filter(|at| {
        let kept = list(after, at);
        list(before, at).iter().any(|path| !kept.contains(path))
    });
    let uid = |document: &Value| document.pointer("/process/user/uid").and_then(Value::as_u64);
    let user = Some("/process/user")
        .filter(|_| uid(before).is_some_and(|uid| uid != 0) && uid(after).unwrap_or_default() == 0);
    flags.chain(labels).chain(paths).chain(user).next()
}
