//! What adjustments do to a configuration, who may make which, and what becomes of all that when
//! plugins fail.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::*;
use crate::{Category, Error};

type Handler = Box<dyn Fn(&mut Call) -> Result<(), Fault> + Send + Sync>;
type Verdict = Box<dyn Fn(&mut Call, &[Change]) -> Result<(), Fault> + Send + Sync>;

/// A plugin for all stages.
struct Scripted {
    handle: Handler,
    verdict: Option<Verdict>,
}

impl Plugin for Scripted {
    fn stages(&self) -> &[Stage] {
        &Stage::ALL
    }

    fn handle(&self, call: &mut Call) -> Result<(), Fault> {
        (self.handle)(call)
    }

    fn validates(&self) -> bool {
        self.verdict.is_some()
    }

    fn validate(&self, call: &mut Call, changes: &[Change]) -> Result<(), Fault> {
        self.verdict.as_ref().map_or(Ok(()), |verdict| verdict(call, changes))
    }
}

fn plugin(
    name: &str,
    handle: impl Fn(&mut Call) -> Result<(), Fault> + Send + Sync + 'static,
) -> Registration {
    Registration::new(name, Arc::new(Scripted { handle: Box::new(handle), verdict: None }))
}

/// One that only judges.
fn judge(
    name: &str,
    verdict: impl Fn(&mut Call, &[Change]) -> Result<(), Fault> + Send + Sync + 'static,
) -> Registration {
    let (handle, verdict): (Handler, Option<Verdict>) =
        (Box::new(|_| Ok(())), Some(Box::new(verdict)));
    Registration::new(name, Arc::new(Scripted { handle, verdict }))
}

/// One that makes adjustments, and fails with those that are not taken.
fn adjuster(name: &str, adjustments: &[Value]) -> Registration {
    let adjustments: Vec<Adjustment> = adjustments.iter().map(read).collect();
    plugin(name, move |call| {
        for adjustment in &adjustments {
            call.adjust(adjustment)?;
        }
        Ok(())
    })
}

fn read(json: &Value) -> Adjustment {
    serde_json::from_value(json.clone()).unwrap_or_else(|error| panic!("{json}: {error}"))
}

fn chain(registrations: Vec<Registration>) -> Plugins {
    Plugins::new(registrations, Vec::new(), Guard::default()).unwrap()
}

/// What a chain makes of a configuration.
fn pass(plugins: &Plugins, stage: Stage, document: &Value) -> crate::Result<Adjusted> {
    plugins.before(stage, Subject::default(), Arc::new(document.clone()))
}

#[track_caller]
fn refused(plugins: &Plugins, document: &Value, words: &[&str]) -> Error {
    let error = pass(plugins, Stage::Create, document).unwrap_err();
    assert_eq!((error.category(), error.stage()), (Category::Plugin, crate::Stage::Plugin));
    let text = error.to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{text}: without one of {words:?}");
    error
}

/// What single adjustments make of a configuration; or why they are not taken.
fn adjust_at(stage: Stage, document: &Value, adjustments: &[Value]) -> Result<Value, Refusal> {
    let mut call = Call::new(stage, Subject::default(), Arc::new(document.clone()));
    (call.plugin, call.may_adjust) = (Arc::from("a"), true);
    for adjustment in adjustments {
        if let Err(refusal) = call.adjust(&read(adjustment)) {
            assert_eq!(call.changes().len(), 0, "{adjustment}");
            assert_eq!(call.document(), document, "{adjustment}");
            return Err(refusal);
        }
    }
    Ok(call.document().clone())
}

#[track_caller]
fn adjusted(document: Value, adjustment: Value) -> Value {
    adjust_at(Stage::Create, &document, std::slice::from_ref(&adjustment))
        .unwrap_or_else(|refusal| panic!("{adjustment}: {refusal}"))
}

/// Asserts that an adjustment is invalid because of this member.
#[track_caller]
fn invalid(adjustment: Value, member: &str) {
    match adjust_at(Stage::Create, &json!({}), std::slice::from_ref(&adjustment)) {
        Err(Refusal::Invalid(why)) => {
            assert!(why.contains(&format!("`{member}`")), "{why}: does not name {member}");
        }
        other => panic!("{adjustment}: {other:?}"),
    }
}

fn configuration() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "args": ["sh"], "cwd": "/", "env": ["PATH=/bin", "HOME=/root"],
            "user": { "uid": 1000, "gid": 1000, "umask": 18 },
            "capabilities": { "bounding": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_KILL"] },
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/data/", "type": "tmpfs", "source": "tmpfs" },
        ],
        "linux": {
            "namespaces": [{ "type": "pid" }, { "type": "network", "path": "" }],
            "maskedPaths": ["/proc/kcore"],
            "seccomp": { "defaultAction": "SCMP_ACT_ERRNO" },
        },
    })
}

// ---- adjustments ----------------------------------------------------------------------------

#[test]
fn annotations_are_set_and_removed() {
    let set = json!({ "adjust": "set-annotation", "key": "a/b~c", "value": "1" });
    let expected = json!({ "annotations": { "a/b~c": "1" } });
    assert_eq!(adjusted(json!({}), set.clone()), expected);
    assert_eq!(adjusted(json!({ "annotations": null }), set.clone()), expected);
    assert_eq!(adjusted(json!({ "annotations": { "a/b~c": "0" } }), set), expected);
    let remove = json!({ "adjust": "remove-annotation", "key": "x" });
    let with = json!({ "annotations": { "w": "0", "x": "1", "y": "2" } });
    let without = adjusted(with, remove.clone());
    assert_eq!(without.to_string(), r#"{"annotations":{"w":"0","y":"2"}}"#, "the order stays");
    // Nothing is made for the sake of removing something from it.
    assert_eq!(adjusted(json!({}), remove.clone()), json!({}));
    assert_eq!(adjusted(json!({ "annotations": null }), remove), json!({ "annotations": null }));
    invalid(json!({ "adjust": "set-annotation", "key": "", "value": "" }), "key");
    invalid(json!({ "adjust": "set-annotation", "key": "k\0", "value": "" }), "key");
    invalid(json!({ "adjust": "set-annotation", "key": "k", "value": "\0" }), "value");
    invalid(json!({ "adjust": "remove-annotation", "key": "" }), "key");
}

#[test]
fn variables_are_set_in_their_place_and_all_of_a_name_are_removed() {
    let env = |env: Value| json!({ "process": { "env": env } });
    let set = json!({ "adjust": "set-env", "name": "A", "value": "x=y" });
    for (before, after) in [
        (json!(null), json!(["A=x=y"])),
        (json!(["AB=1", "A=1", "B="]), json!(["AB=1", "A=x=y", "B="])),
        // Of equal names the last one counts.
        (json!(["A=1", "B=2", "A=3"]), json!(["B=2", "A=x=y"])),
        (json!(["A=x=y", "A=3"]), json!(["A=x=y"])),
    ] {
        assert_eq!(adjusted(env(before), set.clone()), env(after));
    }
    let remove = json!({ "adjust": "remove-env", "name": "A" });
    assert_eq!(adjusted(env(json!(["A=1", "AA=2", "A="])), remove.clone()), env(json!(["AA=2"])));
    assert_eq!(adjusted(json!({}), remove), json!({}));
    invalid(json!({ "adjust": "set-env", "name": "", "value": "" }), "name");
    invalid(json!({ "adjust": "set-env", "name": "A=B", "value": "" }), "name");
    invalid(json!({ "adjust": "set-env", "name": "A", "value": "\0" }), "value");
    invalid(json!({ "adjust": "remove-env", "name": "A\0" }), "name");
}

#[test]
fn a_mount_is_added_at_the_end_or_replaces_what_is_at_its_destination() {
    let set = |destination: &str| {
        json!({ "adjust": "set-mount", "destination": destination, "kind": "bind",
                "source": "/srv", "options": ["ro"] })
    };
    let mount = |destination: &str| json!({ "destination": destination, "type": "bind", "source": "/srv", "options": ["ro"] });
    let proc = &configuration()["mounts"][0];
    assert_eq!(adjusted(configuration(), set("/srv"))["mounts"][2], mount("/srv"));
    // However it is written.
    for spelling in ["/data", "/data/", "//data/."] {
        let mounts = &adjusted(configuration(), set(spelling))["mounts"];
        assert_eq!(*mounts, json!([proc, mount("/data")]));
    }
    let remove = json!({ "adjust": "remove-mount", "destination": "/data" });
    assert_eq!(adjusted(configuration(), remove)["mounts"], json!([proc]));
    // A relative destination counts from the root.
    let relative = json!({ "mounts": [{ "destination": "data", "type": "tmpfs" }] });
    assert_eq!(adjusted(relative, set("/data"))["mounts"], json!([mount("/data")]));
    let plain = json!({ "adjust": "set-mount", "destination": "/m", "kind": "", "source": "" });
    let plain = adjusted(json!({}), plain);
    assert_eq!(plain["mounts"], json!([{ "destination": "/m", "options": [] }]));
    invalid(set("data"), "destination");
    invalid(set("/a\0b"), "destination");
    let with = |member: &str, value: Value| {
        let mut set = set("/srv");
        set[member] = value;
        set
    };
    invalid(with("kind", json!("\0")), "kind");
    invalid(with("source", json!("\0")), "source");
    invalid(with("options", json!(["ro", "\0"])), "options");
    invalid(json!({ "adjust": "remove-mount", "destination": "" }), "destination");
}

fn device(path: &str) -> Value {
    json!({ "adjust": "set-device", "path": path, "kind": "c", "major": 10, "minor": 229,
            "access": "rw" })
}

#[test]
fn a_device_comes_with_the_rule_that_allows_its_use() {
    let fuse = adjusted(json!({}), device("/dev/fuse"));
    let node = json!({ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229,
                       "fileMode": 0o666, "uid": 0, "gid": 0 });
    let rule = json!({ "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" });
    let deny = json!({ "allow": false, "access": "rwm" });
    let expected = json!({ "linux": { "devices": [node], "resources": { "devices": [rule] } } });
    assert_eq!(fuse, expected);
    // Once more it is as it is, unless a later rule has taken it back.
    assert_eq!(adjusted(fuse.clone(), device("/dev//fuse")), fuse);
    let mut denied = fuse.clone();
    denied["linux"]["resources"]["devices"] = json!([rule, deny]);
    let rules = &adjusted(denied, device("/dev/fuse"))["linux"]["resources"]["devices"];
    assert_eq!(*rules, json!([rule, deny, rule]));
    // The node goes, the rule stays.
    let removed = adjusted(fuse, json!({ "adjust": "remove-device", "path": "/dev/fuse" }));
    let expected = json!({ "linux": { "devices": [], "resources": { "devices": [rule] } } });
    assert_eq!(removed, expected);
    let pipe = json!({ "adjust": "set-device", "path": "/dev/p", "kind": "p", "major": 0,
                       "minor": 0, "mode": 0o600, "uid": 1, "gid": 2, "access": "r" });
    let pipe = adjusted(json!({}), pipe);
    let node = json!({ "path": "/dev/p", "type": "p", "fileMode": 0o600, "uid": 1, "gid": 2 });
    assert_eq!(pipe, json!({ "linux": { "devices": [node] } }));
    let block = json!({ "adjust": "set-device", "path": "/dev/b", "kind": "b", "major": 7,
                        "minor": 0, "access": "m" });
    let rules = &adjusted(json!({}), block)["linux"]["resources"]["devices"];
    assert_eq!(rules[0]["type"], "b");
}

#[test]
fn a_device_that_cannot_be_is_invalid() {
    let with = |member: &str, value: Value| {
        let mut device = device("/dev/fuse");
        device[member] = value;
        device
    };
    invalid(with("path", json!("fuse")), "path");
    invalid(with("kind", json!("a")), "kind");
    invalid(with("access", json!("")), "access");
    invalid(with("access", json!("rx")), "access");
    invalid(with("mode", json!(0o10000)), "mode");
    invalid(json!({ "adjust": "remove-device", "path": "dev" }), "path");
}

#[test]
fn limits_have_the_type_that_the_configuration_wants() {
    for (name, value, expected) in [
        ("memory/limit", "-1", json!(-1)),
        ("memory/reservation", "9007199254740993", json!(9_007_199_254_740_993i64)),
        ("memory/swappiness", "0", json!(0)),
        ("memory/disableOOMKiller", "true", json!(true)),
        ("cpu/shares", "1024", json!(1024)),
        ("cpu/quota", "-1", json!(-1)),
        ("cpu/cpus", "0-1", json!("0-1")),
        ("pids/limit", "7", json!(7)),
        ("blockIO/weight", "100", json!(100)),
    ] {
        let set = json!({ "adjust": "set-resource", "name": name, "value": value });
        let document = adjusted(json!({ "linux": null }), set);
        assert_eq!(
            document.pointer(&format!("/linux/resources/{name}")),
            Some(&expected),
            "{name}"
        );
    }
    for (name, value) in [
        ("memory/limit", "much"),
        ("memory/limit", "9223372036854775808"),
        ("cpu/shares", "-1"),
        ("blockIO/weight", "65536"),
        ("memory/disableOOMKiller", "1"),
        ("cpu/cpus", "0\0"),
        ("pids/limit", ""),
    ] {
        invalid(json!({ "adjust": "set-resource", "name": name, "value": value }), "value");
    }
    for name in ["memory", "devices", "memory/limit/x", "", "unified/memory.high"] {
        invalid(json!({ "adjust": "set-resource", "name": name, "value": "1" }), "name");
    }
    let unified = json!({ "adjust": "set-unified", "file": "memory.high", "value": "1G" });
    let expected = json!({ "linux": { "resources": { "unified": { "memory.high": "1G" } } } });
    assert_eq!(adjusted(json!({}), unified), expected);
    invalid(json!({ "adjust": "set-unified", "file": "", "value": "1" }), "file");
    invalid(json!({ "adjust": "set-unified", "file": "f", "value": "\0" }), "value");
}

#[test]
fn resource_limits_of_the_program_are_set_and_removed() {
    let set = |soft: &str, hard: &str| json!({ "adjust": "set-rlimit", "kind": "RLIMIT_NOFILE", "soft": soft, "hard": hard });
    let with = |limits: Value| json!({ "process": { "rlimits": limits } });
    let limit =
        |soft: u64, hard: u64| json!({ "type": "RLIMIT_NOFILE", "soft": soft, "hard": hard });
    let core = json!({ "type": "RLIMIT_CORE", "soft": 0, "hard": 0 });
    let before = with(json!([limit(1, 2), core]));
    let after = adjusted(before.clone(), set("1024", "unlimited"));
    assert_eq!(after, with(json!([limit(1024, u64::MAX), core])));
    let unlimited = adjusted(json!({}), set("unlimited", "18446744073709551615"));
    assert_eq!(unlimited, with(json!([limit(u64::MAX, u64::MAX)])));
    let remove = json!({ "adjust": "remove-rlimit", "kind": "RLIMIT_NOFILE" });
    assert_eq!(adjusted(before, remove), with(json!([core])));
    invalid(set("2", "1"), "soft");
    invalid(set("-1", "1"), "soft");
    invalid(set("1", "Unlimited"), "hard");
    for kind in ["", "NOFILE", "RLIMIT_NONE"] {
        invalid(json!({ "adjust": "remove-rlimit", "kind": kind }), "kind");
    }
}

#[test]
fn what_is_run_and_as_whom_is_set() {
    let process = |adjustment: Value| adjusted(configuration(), adjustment)["process"].clone();
    let args = process(json!({ "adjust": "set-args", "args": ["env", ""] }));
    assert_eq!(args["args"], json!(["env", ""]));
    assert_eq!(process(json!({ "adjust": "set-cwd", "path": "/tmp" }))["cwd"], "/tmp");
    let score = process(json!({ "adjust": "set-oom-score-adj", "value": -1000 }));
    assert_eq!(score["oomScoreAdj"], -1000);
    // What else is known of the user stays.
    let set = |groups: Value| json!({ "adjust": "set-user", "uid": 1, "gid": 2, "additional-gids": groups });
    let user = &process(set(json!([3, 4])))["user"];
    assert_eq!(*user, json!({ "uid": 1, "gid": 2, "umask": 18, "additionalGids": [3, 4] }));
    let mut grouped = configuration();
    grouped["process"]["user"]["additionalGids"] = json!([5]);
    let user = &adjusted(grouped, set(json!([])))["process"]["user"];
    assert_eq!(*user, json!({ "uid": 1, "gid": 2, "umask": 18 }));
    invalid(json!({ "adjust": "set-args", "args": [] }), "args");
    invalid(json!({ "adjust": "set-args", "args": [""] }), "args");
    invalid(json!({ "adjust": "set-args", "args": ["a", "\0"] }), "args");
    invalid(json!({ "adjust": "set-cwd", "path": "tmp" }), "path");
    invalid(json!({ "adjust": "set-oom-score-adj", "value": 1001 }), "value");
    invalid(json!({ "adjust": "set-oom-score-adj", "value": -1001 }), "value");
}

#[test]
fn namespaces_are_made_joined_and_left() {
    let after =
        |adjustment: Value| adjusted(configuration(), adjustment)["linux"]["namespaces"].clone();
    let pid = json!({ "type": "pid" });
    let network = json!({ "type": "network", "path": "" });
    let uts = after(json!({ "adjust": "set-namespace", "kind": "uts" }));
    assert_eq!(uts, json!([pid, network, { "type": "uts" }]));
    let joined =
        after(json!({ "adjust": "set-namespace", "kind": "pid", "path": "/proc/1/ns/pid" }));
    assert_eq!(joined, json!([{ "type": "pid", "path": "/proc/1/ns/pid" }, network]));
    assert_eq!(after(json!({ "adjust": "remove-namespace", "kind": "pid" })), json!([network]));
    invalid(json!({ "adjust": "set-namespace", "kind": "mnt" }), "kind");
    invalid(json!({ "adjust": "set-namespace", "kind": "pid", "path": "ns" }), "path");
    invalid(json!({ "adjust": "remove-namespace", "kind": "" }), "kind");
}

#[test]
fn a_capability_is_added_to_three_sets_and_dropped_from_all_five_however_it_is_spelt() {
    let with = |capabilities: Value| json!({ "process": { "capabilities": capabilities } });
    let add = |name: &str| json!({ "adjust": "add-capability", "name": name });
    let all = json!({ "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"],
                      "permitted": ["CAP_KILL"] });
    for name in ["CAP_KILL", "kill", "Cap_Kill"] {
        assert_eq!(adjusted(json!({}), add(name)), with(all.clone()));
    }
    let some = with(json!({ "bounding": null, "effective": ["kill"], "permitted": ["CAP_CHOWN"] }));
    let expected = json!({ "bounding": ["CAP_KILL"], "effective": ["kill"],
                           "permitted": ["CAP_CHOWN", "CAP_KILL"] });
    assert_eq!(adjusted(some, add("CAP_KILL")), with(expected));
    let everywhere = with(json!({ "bounding": ["KILL", "CAP_KILL"], "effective": ["cap_kill"],
        "permitted": ["CAP_KILL", "CAP_CHOWN"], "inheritable": ["CAP_KILL"], "ambient": ["Kill"] }));
    let nowhere = with(json!({ "bounding": [], "effective": [], "permitted": ["CAP_CHOWN"],
                               "inheritable": [], "ambient": [] }));
    let drop = json!({ "adjust": "drop-capability", "name": "kill" });
    assert_eq!(adjusted(everywhere, drop.clone()), nowhere);
    assert_eq!(adjusted(with(json!(null)), drop), with(json!(null)));
    invalid(add("CAP_NONE"), "name");
    invalid(json!({ "adjust": "drop-capability", "name": "" }), "name");
}

#[test]
fn what_keeps_the_program_in_is_set() {
    let after = |adjustment: Value| adjusted(configuration(), adjustment);
    let gains = after(json!({ "adjust": "set-no-new-privileges", "value": false }));
    assert_eq!(gains["process"]["noNewPrivileges"], false);
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#;
    let seccomp = after(json!({ "adjust": "set-seccomp", "profile": profile }));
    assert_eq!(seccomp["linux"]["seccomp"], json!({ "defaultAction": "SCMP_ACT_ALLOW" }));
    let profile = after(json!({ "adjust": "set-apparmor-profile", "name": "strict" }));
    assert_eq!(profile["process"]["apparmorProfile"], "strict");
    let label = after(json!({ "adjust": "set-selinux-label", "label": "a:b:c" }));
    assert_eq!(label["process"]["selinuxLabel"], "a:b:c");
    let mask = |path: &str| after(json!({ "adjust": "mask-path", "path": path }));
    assert_eq!(mask("/proc/keys/")["linux"]["maskedPaths"], json!(["/proc/kcore", "/proc/keys"]));
    assert_eq!(mask("/proc//kcore"), configuration());
    let protected = after(json!({ "adjust": "write-protect-path", "path": "/proc/sys" }));
    assert_eq!(protected["linux"]["readonlyPaths"], json!(["/proc/sys"]));
    let root = after(json!({ "adjust": "set-root-read-only", "value": false }));
    assert_eq!(root["root"]["readonly"], false);
    for profile in ["", "[]", "null", "{"] {
        invalid(json!({ "adjust": "set-seccomp", "profile": profile }), "profile");
    }
    invalid(json!({ "adjust": "set-apparmor-profile", "name": "\0" }), "name");
    invalid(json!({ "adjust": "set-selinux-label", "label": "\0" }), "label");
    invalid(json!({ "adjust": "mask-path", "path": "proc" }), "path");
    invalid(json!({ "adjust": "write-protect-path", "path": "/\0" }), "path");
}

#[test]
fn hooks_are_added_after_those_that_are_there() {
    let add = |kind: &str, hook: Value| json!({ "adjust": "add-hook", "kind": kind, "hook": hook });
    let known = json!({ "hooks": { "poststop": [{ "path": "/bin/first" }] } });
    let hook = json!({ "path": "/bin/second", "args": ["second"], "env": ["A=1"], "timeout": 5 });
    let after = adjusted(known, add("poststop", hook.clone()));
    assert_eq!(after["hooks"]["poststop"], json!([{ "path": "/bin/first" }, hook]));
    // The same one twice is two.
    let twice = adjust_at(
        Stage::Create,
        &json!({}),
        &[add("prestart", hook.clone()), add("prestart", hook)],
    );
    assert_eq!(twice.unwrap()["hooks"]["prestart"].as_array().unwrap().len(), 2);
    let least = adjusted(json!({ "hooks": null }), add("createRuntime", json!({ "path": "/h" })));
    let expected = json!([{ "path": "/h", "args": [], "env": [] }]);
    assert_eq!(least["hooks"]["createRuntime"], expected);
    invalid(add("create", json!({ "path": "/h" })), "kind");
    invalid(add("poststop", json!({ "path": "h" })), "hook.path");
    invalid(add("poststop", json!({ "path": "/h", "args": ["\0"] })), "hook.args");
    invalid(add("poststop", json!({ "path": "/h", "env": ["\0"] })), "hook.env");
    invalid(add("poststop", json!({ "path": "/h", "timeout": 0 })), "hook.timeout");
}

#[test]
fn a_merge_patch_does_what_rfc_7396_says() {
    // The examples of its appendix whose documents are objects.
    for (before, patch, after) in [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
        (json!({"a": "b"}), json!({"a": null}), json!({})),
        (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
        (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
        (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
        (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
        (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        // Further ones.
        (json!({"a": [1]}), json!({"a": {"b": 1, "c": null}}), json!({"a": {"b": 1}})),
        (json!({"a": [1]}), json!({"a": {}}), json!({"a": {}})),
        (json!({"a": {"b": 1}}), json!({"a": {}}), json!({"a": {"b": 1}})),
        (json!({"a": null}), json!({"a": {"b": 1}}), json!({"a": {"b": 1}})),
        (json!({"a": null}), json!({"a": {}}), json!({"a": {}})),
        (json!({}), json!({"a": {"b": null, "c": {"d": 1}}}), json!({"a": {"c": {"d": 1}}})),
    ] {
        let merge = json!({ "adjust": "merge", "patch": patch.to_string() });
        assert_eq!(adjusted(before.clone(), merge), after, "{before} and {patch}");
    }
    for patch in ["", "[]", "\"a\"", "null", "{\"a\":1"] {
        invalid(json!({ "adjust": "merge", "patch": patch }), "patch");
    }
}

#[test]
fn what_does_not_fit_into_the_configuration_changes_nothing_of_it() {
    let document = json!({ "process": { "env": {}, "capabilities": { "effective": "all" } },
                           "linux": [] });
    for (adjustment, place) in [
        (json!({ "adjust": "set-env", "name": "A", "value": "" }), "/process/env is not an array"),
        // The first of three sets could be.
        (
            json!({ "adjust": "add-capability", "name": "CAP_KILL" }),
            "/process/capabilities/effective is not an array",
        ),
        (json!({ "adjust": "mask-path", "path": "/a" }), "/linux is not an object"),
        (
            json!({ "adjust": "set-resource", "name": "pids/limit", "value": "1" }),
            "/linux is not an object",
        ),
    ] {
        let refusal = adjust_at(Stage::Create, &document, std::slice::from_ref(&adjustment));
        assert_eq!(refusal, Err(Refusal::Invalid(place.to_owned())), "{adjustment}");
    }
}

#[test]
fn adjustments_are_json_with_no_member_that_is_not_known() {
    let all = [
        json!({ "adjust": "set-annotation", "key": "k", "value": "v" }),
        json!({ "adjust": "remove-annotation", "key": "k" }),
        json!({ "adjust": "set-env", "name": "A", "value": "v" }),
        json!({ "adjust": "remove-env", "name": "A" }),
        json!({ "adjust": "set-mount", "destination": "/d", "kind": "bind", "source": "/s",
                "options": ["ro"] }),
        json!({ "adjust": "remove-mount", "destination": "/d" }),
        json!({ "adjust": "set-device", "path": "/d", "kind": "c", "major": 1, "minor": 3,
                "mode": null, "uid": 0, "gid": 0, "access": "r" }),
        json!({ "adjust": "remove-device", "path": "/d" }),
        json!({ "adjust": "set-resource", "name": "pids/limit", "value": "1" }),
        json!({ "adjust": "set-unified", "file": "f", "value": "1" }),
        json!({ "adjust": "set-rlimit", "kind": "RLIMIT_CPU", "soft": "1", "hard": "1" }),
        json!({ "adjust": "remove-rlimit", "kind": "RLIMIT_CPU" }),
        json!({ "adjust": "set-args", "args": ["a"] }),
        json!({ "adjust": "set-cwd", "path": "/" }),
        json!({ "adjust": "set-user", "uid": 0, "gid": 0, "additional-gids": [] }),
        json!({ "adjust": "set-oom-score-adj", "value": 0 }),
        json!({ "adjust": "set-namespace", "kind": "pid", "path": null }),
        json!({ "adjust": "remove-namespace", "kind": "pid" }),
        json!({ "adjust": "drop-capability", "name": "CAP_KILL" }),
        json!({ "adjust": "add-capability", "name": "CAP_KILL" }),
        json!({ "adjust": "set-no-new-privileges", "value": true }),
        json!({ "adjust": "set-seccomp", "profile": "{}" }),
        json!({ "adjust": "set-apparmor-profile", "name": "n" }),
        json!({ "adjust": "set-selinux-label", "label": "l" }),
        json!({ "adjust": "mask-path", "path": "/m" }),
        json!({ "adjust": "write-protect-path", "path": "/w" }),
        json!({ "adjust": "set-root-read-only", "value": true }),
        json!({ "adjust": "add-hook", "kind": "poststop",
                "hook": { "path": "/h", "args": [], "env": [], "timeout": null } }),
        json!({ "adjust": "merge", "patch": "{}" }),
    ];
    for json in all {
        let adjustment = read(&json);
        assert_eq!(adjustment.name(), json["adjust"]);
        assert_eq!(serde_json::to_value(&adjustment).unwrap(), json);
        let mut more = json.clone();
        more["more"] = json!(1);
        assert!(serde_json::from_value::<Adjustment>(more).is_err(), "{json}");
    }
    let nested =
        json!({ "adjust": "add-hook", "kind": "poststop", "hook": { "path": "/h", "x": 1 } });
    for wrong in [
        nested,
        json!({ "adjust": "set" }),
        json!({ "key": "k" }),
        json!({ "adjust": "set-env", "name": "A" }),
    ] {
        assert!(serde_json::from_value::<Adjustment>(wrong.clone()).is_err(), "{wrong}");
    }
}

#[test]
fn exec_and_update_let_their_own_part_be_changed_and_nothing_else() {
    let document = configuration();
    let env = json!({ "adjust": "set-env", "name": "A", "value": "1" });
    let limit = json!({ "adjust": "set-resource", "name": "pids/limit", "value": "9" });
    let mask = json!({ "adjust": "mask-path", "path": "/x" });
    let both = json!({ "adjust": "merge", "patch": r#"{"process":{"cwd":"/x"},"hostname":"h"}"# });
    let look_alike = json!({ "adjust": "merge", "patch": r#"{"processes":{"cwd":"/x"}}"# });
    let device = device("/dev/fuse");
    for (stage, taken, denied) in [
        (Stage::Exec, vec![&env], vec![&limit, &mask, &both, &look_alike, &device]),
        (Stage::Update, vec![&limit], vec![&env, &mask, &both, &device]),
        (Stage::Start, vec![], vec![&env, &limit, &mask]),
        (Stage::Stopped, vec![], vec![&env, &limit, &mask]),
    ] {
        for adjustment in taken {
            let after = adjust_at(stage, &document, std::slice::from_ref(adjustment)).unwrap();
            assert_ne!(after, document, "{stage:?} {adjustment}");
        }
        for adjustment in denied {
            let refusal = adjust_at(stage, &document, std::slice::from_ref(adjustment));
            let Err(Refusal::Denied(why)) = refusal else { panic!("{stage:?} {adjustment}") };
            assert!(why.contains(stage.name()), "{why}");
        }
    }
}

// ---- who owns what --------------------------------------------------------------------------

/// Asserts that after the one the other conflicts, at this place; with `override` it does not.
#[track_caller]
fn conflict(first: Value, second: Value, pointer: &str) {
    let document = configuration();
    let plugins = chain(vec![
        adjuster("a", std::slice::from_ref(&first)),
        adjuster("b", std::slice::from_ref(&second)),
    ]);
    let words =
        ["plugin \"b\" failed at create", &format!("plugin \"a\" has changed {pointer} already")];
    refused(&plugins, &document, &words);
    let may = Registration { may_override: true, ..adjuster("b", std::slice::from_ref(&second)) };
    let plugins = chain(vec![adjuster("a", std::slice::from_ref(&first)), may]);
    pass(&plugins, Stage::Create, &document).unwrap();
}

#[track_caller]
fn no_conflict(first: Value, second: Value) -> Adjusted {
    let plugins = chain(vec![adjuster("a", &[first]), adjuster("b", &[second])]);
    pass(&plugins, Stage::Create, &configuration()).unwrap()
}

fn set_env(name: &str, value: &str) -> Value {
    json!({ "adjust": "set-env", "name": name, "value": value })
}

fn merge(patch: Value) -> Value {
    json!({ "adjust": "merge", "patch": patch.to_string() })
}

fn hook(path: &str) -> Value {
    json!({ "adjust": "add-hook", "kind": "poststop", "hook": { "path": path } })
}

#[test]
fn two_plugins_cannot_change_the_same_place() {
    conflict(set_env("A", "1"), set_env("A", "2"), "/process/env/A");
    conflict(
        set_env("HOME", "1"),
        json!({ "adjust": "remove-env", "name": "HOME" }),
        "/process/env/HOME",
    );
    conflict(
        json!({ "adjust": "remove-env", "name": "HOME" }),
        set_env("HOME", "/"),
        "/process/env/HOME",
    );
    let annotation =
        |value: &str| json!({ "adjust": "set-annotation", "key": "a/b~", "value": value });
    conflict(annotation("1"), annotation("2"), "/annotations/a~1b~0");
    conflict(
        annotation("1"),
        merge(json!({ "annotations": { "a/b~": "2" } })),
        "/annotations/a~1b~0",
    );
    let mount = |destination: &str, source: &str| json!({ "adjust": "set-mount", "destination": destination, "kind": "bind", "source": source });
    conflict(mount("/data", "/1"), mount("/data/", "/2"), "/mounts/~1data");
    let (add, drop) = ("add-capability", "drop-capability");
    conflict(
        json!({ "adjust": add, "name": "sys_admin" }),
        json!({ "adjust": drop, "name": "CAP_SYS_ADMIN" }),
        "/process/capabilities/bounding/CAP_SYS_ADMIN",
    );
    conflict(
        json!({ "adjust": "set-user", "uid": 1, "gid": 1 }),
        json!({ "adjust": "set-user", "uid": 1, "gid": 2 }),
        "/process/user/gid",
    );
}

#[test]
fn a_place_is_owned_with_all_that_is_in_it() {
    let list = merge(json!({ "process": { "env": ["A=1"] } }));
    conflict(list.clone(), set_env("B", "2"), "/process/env");
    conflict(set_env("B", "2"), list, "/process/env/B");
    let seccomp = json!({ "adjust": "set-seccomp", "profile": "{}" });
    let inner = merge(json!({ "linux": { "seccomp": { "defaultAction": "SCMP_ACT_LOG" } } }));
    conflict(seccomp.clone(), inner.clone(), "/linux/seccomp");
    conflict(inner, seccomp, "/linux/seccomp/defaultAction");
    conflict(
        merge(json!({ "linux": null })),
        json!({ "adjust": "mask-path", "path": "/x" }),
        "/linux",
    );
    // What is merely beside it is not.
    no_conflict(set_env("A", "1"), set_env("AB", "1"));
    no_conflict(merge(json!({ "hostname": "a" })), merge(json!({ "host": "a" })));
    let annotations = |key: &str| merge(json!({ "annotations": { key: "1" } }));
    let both = no_conflict(annotations("a"), annotations("a/b"));
    assert_eq!(both.document["annotations"], json!({ "a": "1", "a/b": "1" }));
}

#[test]
fn what_is_there_already_is_no_change_and_no_conflict() {
    let both = no_conflict(set_env("A", "1"), set_env("A", "1"));
    assert_eq!(both.changes.len(), 1);
    let same =
        no_conflict(set_env("HOME", "/root"), json!({ "adjust": "remove-env", "name": "X" }));
    assert!(same.changes.is_empty());
    assert_eq!(*same.document, configuration());
    let network = json!({ "adjust": "set-namespace", "kind": "pid" });
    assert!(no_conflict(network.clone(), network).changes.is_empty());
}

#[test]
fn what_is_added_to_a_list_accumulates_and_is_not_taken_away() {
    let both = no_conflict(hook("/a"), hook("/b"));
    let hooks = both.document["hooks"]["poststop"].as_array().unwrap();
    assert_eq!((&hooks[0]["path"], &hooks[1]["path"]), (&json!("/a"), &json!("/b")));
    assert_eq!(both.changes[1].pointer, "/hooks/poststop/-");
    conflict(hook("/a"), merge(json!({ "hooks": { "poststop": [] } })), "/hooks/poststop/-");
    conflict(hook("/a"), merge(json!({ "hooks": null })), "/hooks/poststop/-");
    conflict(merge(json!({ "hooks": { "poststop": [] } })), hook("/a"), "/hooks/poststop");
    // Its own it may.
    let own = [hook("/a"), merge(json!({ "hooks": { "poststop": [] } })), hook("/b")];
    pass(&chain(vec![adjuster("a", &own)]), Stage::Create, &json!({})).unwrap();
    // Nobody takes away what several have added without all of them.
    let plugins = chain(vec![
        adjuster("a", &[hook("/a")]),
        adjuster("b", &[hook("/b"), merge(json!({ "hooks": null }))]),
    ]);
    refused(&plugins, &json!({}), &["plugin \"a\" has changed /hooks/poststop/- already"]);
}

#[test]
fn a_plugin_goes_on_after_a_conflict_if_it_wants_to() {
    let plugins = chain(vec![
        adjuster("a", &[set_env("A", "1")]),
        plugin("b", |call| {
            let refusal = call.adjust(&read(&set_env("A", "2"))).unwrap_err();
            let expected =
                Refusal::Conflict { plugin: "a".into(), pointer: "/process/env/A".into() };
            assert_eq!(refusal, expected);
            call.adjust(&read(&set_env("B", "2")))?;
            Ok(())
        }),
    ]);
    let after = pass(&plugins, Stage::Create, &json!({})).unwrap();
    assert_eq!(after.document["process"]["env"], json!(["A=1", "B=2"]));
}

#[test]
fn every_change_says_who_has_made_it_how_and_of_what() {
    let plugins = chain(vec![
        adjuster("a", &[json!({ "adjust": "set-cwd", "path": "/tmp" })]),
        adjuster("b", &[json!({ "adjust": "drop-capability", "name": "CAP_KILL" })]),
    ]);
    let changes = pass(&plugins, Stage::Create, &configuration()).unwrap().changes;
    let expected = json!([
        { "plugin": "a", "stage": "create", "adjustment": "set-cwd", "pointer": "/process/cwd",
          "before": "/", "after": "/tmp" },
        { "plugin": "b", "stage": "create", "adjustment": "drop-capability",
          "pointer": "/process/capabilities/bounding/CAP_KILL", "before": "CAP_KILL" },
        { "plugin": "b", "stage": "create", "adjustment": "drop-capability",
          "pointer": "/process/capabilities/effective/CAP_KILL", "before": "CAP_KILL" },
    ]);
    assert_eq!(json!(changes), expected);
    let read: Vec<Change> = serde_json::from_value(expected).unwrap();
    assert_eq!(read, changes);
}

// ---- order ----------------------------------------------------------------------------------

fn recorder(name: &str, priority: i32, log: &Arc<Mutex<Vec<String>>>) -> Registration {
    let log = log.clone();
    let recorder = plugin(name, move |call| {
        log.lock().unwrap().push(call.plugin().to_owned());
        Ok(())
    });
    Registration { priority, ..recorder }
}

#[test]
fn plugins_are_called_by_priority_and_name_and_afterwards_in_reverse() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let all = [("b", 0), ("late", 10), ("a", 0), ("early", -10), ("B", 0), ("a2", 0)];
    let plugins = chain(all.map(|(name, priority)| recorder(name, priority, &log)).into());
    let order = ["early", "B", "a", "a2", "b", "late"];
    let names: Vec<_> = plugins.iter().map(|(it, _)| it.name.clone()).collect();
    assert_eq!(names, order);
    for stage in Stage::ALL {
        if stage.can_be_refused() {
            pass(&plugins, stage, &json!({})).unwrap();
        } else {
            plugins.tell(stage, Subject::default(), Arc::default());
        }
        let mut called = std::mem::take(&mut *log.lock().unwrap());
        if matches!(stage, Stage::Created | Stage::Started | Stage::Stopped | Stage::Delete) {
            called.reverse();
        }
        assert_eq!(called, order, "{stage:?}");
    }
}

#[test]
fn a_plugin_is_called_only_where_it_wants_to_be() {
    struct Late;
    impl Plugin for Late {
        fn stages(&self) -> &[Stage] {
            &[Stage::Stopped]
        }
        fn handle(&self, _: &mut Call) -> Result<(), Fault> {
            Err(Fault::refused("never"))
        }
    }
    let plugins = chain(vec![Registration::new("late", Arc::new(Late))]);
    let wanted: Vec<_> = Stage::ALL.into_iter().filter(|stage| plugins.wants(*stage)).collect();
    assert_eq!(wanted, [Stage::Stopped]);
    pass(&plugins, Stage::Create, &json!({})).unwrap();
    let none = Plugins::default();
    assert!(none.is_empty() && !Stage::ALL.into_iter().any(|stage| none.wants(stage)));
    let judged = chain(vec![judge("j", |_, _| Ok(()))]);
    assert!(judged.wants(Stage::Create));
    assert!(Plugins::new(vec![], vec!["x".into()], Guard::default()).unwrap().wants(Stage::Create));
}

#[test]
fn names_are_those_of_files_and_nobody_has_that_of_another() {
    let named = |names: &[&str]| {
        let plugins = names.iter().map(|name| plugin(name, |_| Ok(()))).collect();
        Plugins::new(plugins, Vec::new(), Guard::default())
    };
    let long = "x".repeat(65);
    for names in [&["a", "a"][..], &[""], &["."], &[".a"], &["a/b"], &["a b"], &["ä"], &[&long]] {
        let error = named(names).unwrap_err();
        assert_eq!((error.category(), error.stage()), (Category::Invalid, crate::Stage::Arguments));
    }
    named(&["a", "A", "0_.-", &long[1..]]).unwrap();
}

#[test]
fn stages_and_policies_have_names() {
    for stage in Stage::ALL {
        assert_eq!(Stage::named(stage.name()), Some(stage));
    }
    assert_eq!(Stage::named("Create"), None);
    assert_eq!(OnFailure::named("skip"), Some(OnFailure::Skip));
    assert_eq!(OnFailure::named("fail"), Some(OnFailure::default()));
    assert_eq!(OnFailure::named("disable"), Some(OnFailure::Disable));
    assert_eq!(OnFailure::named("ignore"), None);
}

// ---- failures -------------------------------------------------------------------------------

#[test]
fn a_refusal_says_who_and_why_and_no_policy_changes_it() {
    for on_failure in [OnFailure::Fail, OnFailure::Skip, OnFailure::Disable] {
        let refusing = plugin("a", |_| Err(Fault::Refused { code: 7, message: "no".into() }));
        let plugins = chain(vec![Registration { on_failure, ..refusing }]);
        for _ in 0..2 {
            refused(&plugins, &json!({}), &["plugin \"a\" refused create with code 7: no"]);
        }
        assert!(plugins.iter().all(|(_, disabled)| !disabled));
    }
    let plugins = chain(vec![plugin("a", |_| Err(Fault::refused("no")))]);
    let error = refused(&plugins, &json!({}), &["plugin \"a\" refused create: no"]);
    assert!(!error.to_string().contains("code"));
}

/// Changes something and fails, by an error or a panic.
fn failing(panics: bool) -> Registration {
    plugin("b", move |call| {
        call.adjust(&read(&set_env("B", "1")))?;
        assert!(!panics, "out of luck");
        Err(Fault::failed("out of fuel"))
    })
}

#[test]
fn a_failure_fails_the_stage_or_undoes_that_plugin_alone() {
    // Those after it may have what it had.
    let around = |failing: Registration| {
        let others = [adjuster("a", &[set_env("A", "1")]), adjuster("c", &[set_env("B", "2")])];
        let [first, last] = others;
        chain(vec![first, failing, last])
    };
    for (panics, words) in [(false, "out of fuel"), (true, "it panicked: out of luck")] {
        let plugins = around(failing(panics));
        refused(&plugins, &json!({}), &["plugin \"b\" failed at create", words]);
        let plugins = around(Registration { on_failure: OnFailure::Skip, ..failing(panics) });
        for _ in 0..2 {
            let after = pass(&plugins, Stage::Create, &json!({})).unwrap();
            assert_eq!(*after.document, json!({ "process": { "env": ["A=1", "B=2"] } }));
            let who: Vec<_> = after.changes.iter().map(|change| &change.plugin).collect();
            assert_eq!(who, ["a", "c"]);
        }
        assert!(plugins.iter().all(|(_, disabled)| !disabled));
    }
}

#[test]
fn the_policy_can_be_another_one_at_a_stage() {
    let on_failure_at = BTreeMap::from([(Stage::Exec, OnFailure::Skip)]);
    let plugins = chain(vec![Registration { on_failure_at, ..failing(false) }]);
    pass(&plugins, Stage::Exec, &json!({})).unwrap();
    pass(&plugins, Stage::Update, &json!({})).unwrap_err();
}

#[test]
fn a_disabled_plugin_is_not_called_again() {
    for stage in [Stage::Create, Stage::Stopped] {
        let plugins = chain(vec![Registration { on_failure: OnFailure::Disable, ..failing(true) }]);
        assert!(plugins.wants(Stage::Start));
        match stage {
            Stage::Create => drop(pass(&plugins, stage, &json!({})).unwrap()),
            _ => plugins.tell(stage, Subject::default(), Arc::default()),
        }
        assert!(plugins.iter().all(|(_, disabled)| disabled));
        assert!(!Stage::ALL.into_iter().any(|stage| plugins.wants(stage)));
    }
}

#[test]
fn without_a_required_plugin_nothing_is_created() {
    let missing = Plugins::new(vec![], vec!["gone".into()], Guard::default()).unwrap();
    refused(&missing, &json!({}), &["the required plugin \"gone\" is missing"]);
    pass(&missing, Stage::Exec, &json!({})).unwrap();
    for on_failure in [OnFailure::Skip, OnFailure::Disable] {
        let required = |registration| Registration { on_failure, required: true, ..registration };
        let by_name = Registration { on_failure, ..failing(false) };
        for plugins in [
            chain(vec![required(failing(false))]),
            Plugins::new(vec![by_name], vec!["b".into()], Guard::default()).unwrap(),
        ] {
            refused(&plugins, &json!({}), &["plugin \"b\" failed at create: "]);
            let again = match on_failure {
                OnFailure::Disable => "the required plugin \"b\" has been disabled after a failure",
                _ => "plugin \"b\" failed at create: ",
            };
            refused(&plugins, &json!({}), &[again]);
            // What exists goes on.
            pass(&plugins, Stage::Exec, &json!({})).unwrap();
        }
    }
}

#[test]
fn what_has_happened_is_told_to_all_whoever_fails() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let plugins = chain(vec![
        recorder("a", 0, &log),
        failing(true),
        plugin("c", |_| Err(Fault::refused("no"))),
        recorder("d", 0, &log),
    ]);
    plugins.tell(Stage::Delete, Subject::default(), Arc::default());
    assert_eq!(*log.lock().unwrap(), ["d", "a"]);
}

#[test]
fn a_plugin_that_keeps_its_call_has_failed() {
    let thief = || {
        plugin("b", |call| {
            std::mem::take(call);
            Ok(())
        })
    };
    let first = || adjuster("a", &[set_env("A", "1")]);
    refused(&chain(vec![first(), thief()]), &json!({}), &["plugin \"b\" failed at create"]);
    let skipped = Registration { on_failure: OnFailure::Skip, ..thief() };
    let after = pass(&chain(vec![first(), skipped]), Stage::Create, &json!({})).unwrap();
    assert_eq!(*after.document, json!({ "process": { "env": ["A=1"] } }));
}

#[test]
fn a_call_tells_what_there_is_to_know() {
    let plugins = chain(vec![plugin("a", |call| {
        assert_eq!((call.stage(), call.plugin(), call.id()), (Stage::Kill, "a", "box"));
        assert_eq!(call.bundle().to_str(), Some("/bundle"));
        assert_eq!((call.pid(), call.storage()), (Some(7), None));
        assert_eq!((call.detail("signal"), call.detail("all")), (Some("9"), None));
        assert_eq!(call.annotations().collect::<Vec<_>>(), [("a", "1")]);
        Err(Fault::refused("seen"))
    })]);
    let details = vec![("signal", "9".to_owned())];
    let subject =
        Subject { id: "box".into(), bundle: "/bundle".into(), pid: 7, details, storage: None };
    let document = json!({ "annotations": { "a": "1" } });
    let error = plugins.before(Stage::Kill, subject, Arc::new(document)).unwrap_err();
    assert!(error.to_string().contains("seen"), "{error}");
}

// ---- judges, the guard, and whose fault it is -----------------------------------------------

#[test]
fn a_judge_sees_everything_at_the_end_and_adjusts_nothing() {
    let judge = |verdict: Result<(), Fault>| {
        judge("0", move |call, changes| {
            assert_eq!(call.document()["process"]["env"], json!(["A=1"]));
            assert_eq!((changes.len(), changes[0].plugin.as_str()), (1, "a"));
            let refusal = call.adjust(&read(&set_env("B", "2"))).unwrap_err();
            assert!(matches!(refusal, Refusal::Denied(_)), "{refusal}");
            verdict.clone()
        })
    };
    let with = |verdict| chain(vec![judge(verdict), adjuster("a", &[set_env("A", "1")])]);
    let after = pass(&with(Ok(())), Stage::Create, &json!({})).unwrap();
    assert_eq!(after.changes.len(), 1);
    let words = ["plugin \"0\" refused create: not so"];
    refused(&with(Err(Fault::refused("not so"))), &json!({}), &words);
    refused(&with(Err(Fault::failed("no fuel"))), &json!({}), &["plugin \"0\" failed at create"]);
}

#[test]
fn each_switch_of_the_guard_forbids_what_it_says_and_nothing_else() {
    let mut document = configuration();
    document["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
    document["linux"]["readonlyPaths"] = json!(["/proc/sys"]);
    document["process"]["selinuxLabel"] = json!("a:b:c");
    let adjust = |kind: &str, member: &str, value: Value| json!({ "adjust": kind, member: value });
    let forbidden = [
        ("hooks", hook("/h")),
        ("namespaces", adjust("remove-namespace", "kind", json!("network"))),
        (
            "namespaces",
            json!({ "adjust": "set-namespace", "kind": "pid", "path": "/proc/1/ns/pid" }),
        ),
        (
            "namespaces",
            json!({ "adjust": "set-namespace", "kind": "ipc", "path": "/proc/1/ns/ipc" }),
        ),
        ("namespaces", merge(json!({ "linux": { "uidMappings": [] } }))),
        ("seccomp", adjust("set-seccomp", "profile", json!("{}"))),
        ("seccomp", merge(json!({ "linux": { "seccomp": null } }))),
        ("capabilities", adjust("add-capability", "name", json!("CAP_SYS_ADMIN"))),
        ("capabilities", merge(json!({ "process": { "capabilities": { "ambient": ["KILL"] } } }))),
        ("confinement", adjust("set-no-new-privileges", "value", json!(false))),
        ("confinement", adjust("set-root-read-only", "value", json!(false))),
        ("confinement", adjust("set-selinux-label", "label", json!("d:e:f"))),
        ("confinement", merge(json!({ "linux": { "maskedPaths": [] } }))),
        ("confinement", merge(json!({ "linux": { "readonlyPaths": null } }))),
        ("confinement", json!({ "adjust": "set-user", "uid": 0, "gid": 1000 })),
        ("sysctl", merge(json!({ "linux": { "sysctl": { "net.ipv4.ip_forward": "1" } } }))),
        ("devices", device("/dev/fuse")),
        ("devices", merge(json!({ "linux": { "resources": { "devices": [{ "allow": true }] } } }))),
    ];
    let harmless = [
        set_env("A", "1"),
        adjust("set-namespace", "kind", json!("network")),
        adjust("set-namespace", "kind", json!("uts")),
        adjust("drop-capability", "name", json!("CAP_KILL")),
        adjust("add-capability", "name", json!("chown")),
        adjust("mask-path", "path", json!("/x")),
        adjust("set-apparmor-profile", "name", json!("strict")),
        json!({ "adjust": "set-user", "uid": 1, "gid": 0 }),
        adjust("set-args", "args", json!(["x"])),
    ];
    // In the permitted set it would be new.
    document["process"]["capabilities"]["permitted"] = json!(["CAP_CHOWN"]);
    document["process"]["capabilities"]["effective"] = json!(["KILL", "cap_chown"]);
    let guarded = |names: &[&str], adjustment: &Value| {
        let mut guard = Guard::default();
        names.iter().for_each(|name| guard.forbid(name).unwrap());
        let plugins = vec![
            adjuster("other", &[set_env("Z", "")]),
            adjuster("p", std::slice::from_ref(adjustment)),
        ];
        Plugins::new(plugins, Vec::new(), guard).unwrap()
    };
    for (switch, adjustment) in &forbidden {
        let error = refused(
            &guarded(&[switch], adjustment),
            &document,
            &["the guard refused create: no plugin may"],
        );
        assert!(error.to_string().contains("as plugin \"p\" does"), "{adjustment}: {error}");
        let others: Vec<_> = Guard::NAMES.into_iter().filter(|name| name != switch).collect();
        let passed = pass(&guarded(&others, adjustment), Stage::Create, &document);
        assert!(passed.is_ok(), "{adjustment}: {passed:?}");
    }
    for adjustment in &harmless {
        let passed = pass(&guarded(&Guard::NAMES, adjustment), Stage::Create, &document);
        assert!(passed.is_ok(), "{adjustment}: {passed:?}");
    }
    assert!(
        Guard::NAMES.into_iter().all(|name| forbidden.iter().any(|(switch, _)| *switch == name))
    );
    assert_eq!(Guard::default().forbid("everything"), None);
}

#[test]
fn the_guard_watches_exec_and_update_as_well() {
    let mut guard = Guard::default();
    Guard::NAMES.iter().for_each(|name| guard.forbid(name).unwrap());
    let with = |adjustment: Value| {
        Plugins::new(vec![adjuster("p", &[adjustment])], Vec::new(), guard).unwrap()
    };
    let root = with(json!({ "adjust": "set-user", "uid": 0, "gid": 0 }));
    let error = pass(&root, Stage::Exec, &configuration()).unwrap_err();
    assert!(error.to_string().contains("the guard refused exec"), "{error}");
    let rules =
        with(merge(json!({ "linux": { "resources": { "devices": [{ "allow": true }] } } })));
    pass(&rules, Stage::Update, &configuration()).unwrap_err();
}

#[test]
fn a_wrong_configuration_is_blamed_on_who_has_changed_what_is_nearest() {
    let plugins = chain(vec![
        adjuster("a", &[set_env("A", "1")]),
        adjuster("b", &[set_env("B", "1"), json!({ "adjust": "set-cwd", "path": "/" })]),
        adjuster("c", &[json!({ "adjust": "set-resource", "name": "memory/swap", "value": "1" })]),
        adjuster("d", &[json!({ "adjust": "set-resource", "name": "cpu/quota", "value": "1" })]),
    ]);
    let after = pass(&plugins, Stage::Create, &json!({})).unwrap();
    let blamed = |pointer: Option<&str>, prefix: &str| {
        let error = Error::new(Category::Spec, crate::Stage::Validate, "wrong");
        let error = pointer.into_iter().fold(error, |error, pointer| error.at(pointer));
        after.blame(error, prefix).to_string()
    };
    for (pointer, prefix, names) in [
        (Some("/process/cwd"), "", r#""b""#),
        (Some("/process/env/7"), "", r#""a", "b""#),
        (Some("/env/7"), "/process", r#""a", "b""#),
        (Some("/linux/resources/memory/limit"), "", r#""c""#),
        (Some("/cpu"), "/linux/resources", r#""d""#),
        (None, "/linux/resources", r#""c", "d""#),
        (Some("/hostname"), "", r#""a", "b", "c", "d""#),
        (None, "", r#""a", "b", "c", "d""#),
    ] {
        let text = blamed(pointer, prefix);
        assert!(text.contains(&format!("changed by plugin {names}: ")), "{pointer:?}: {text}");
    }
    let nobody = pass(&Plugins::default(), Stage::Create, &json!({})).unwrap();
    let error = Error::new(Category::Spec, crate::Stage::Validate, "wrong");
    assert_eq!(nobody.blame(error, "").to_string(), "wrong");
}

// ---- the log --------------------------------------------------------------------------------

#[test]
fn the_log_keeps_what_is_whole_and_does_not_grow_for_ever() {
    let dir = std::env::temp_dir().join(format!("locule-plugin-log-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir(&dir).unwrap();
    let change = |pointer: &str, after: &str| Change {
        plugin: "a".into(),
        stage: "create".into(),
        adjustment: "merge".into(),
        pointer: pointer.into(),
        before: None,
        after: Some(json!(after)),
    };
    assert_eq!(log::read(&dir).unwrap(), []);
    log::begin(&dir, &[]).unwrap();
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "no change, no file");
    let (large, small) = (change("/a", &"x".repeat(100_000)), change("/b", "y\n"));
    log::begin(&dir, std::slice::from_ref(&large)).unwrap();
    log::add(&dir, std::slice::from_ref(&small)).unwrap_err();
    assert_eq!(log::read(&dir).unwrap(), [large]);
    let file = std::fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(&file).unwrap();
    log::add(&dir, &[small.clone(), small.clone()]).unwrap();
    let text = std::fs::read(&file).unwrap();
    std::fs::write(&file, &text[..text.len() - 5]).unwrap();
    assert_eq!(log::read(&dir).unwrap(), [small]);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn who_listens_hears_what_plugins_say_and_what_is_said_of_them() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let weak = plugin("weak", |call| {
        call.say(Level::Info, "so far so good");
        Err(Fault::failed("no more"))
    });
    let weak = Registration { on_failure: OnFailure::Skip, ..weak };
    let plugins = Plugins::new(vec![weak], Vec::new(), Guard::default()).unwrap();
    let ear = heard.clone();
    let plugins = plugins.heard_by(move |said| {
        let line = (said.level, format!("{} {}: {}", said.plugin, said.id, said.message));
        ear.lock().unwrap().push(line);
    });
    plugins.rehearse(Stage::Create, "web", "/bundle".as_ref(), json!({})).unwrap();
    let failed = r#"plugin "weak" failed at create: no more"#;
    assert_eq!(
        *heard.lock().unwrap(),
        [
            (Level::Info, "weak web: so far so good".to_owned()),
            (Level::Warn, format!("weak web: skipped, as it may be: {failed}")),
        ]
    );
}
