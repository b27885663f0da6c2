//! `inject`: variables and mounts by rules.

use crate::scene::*;
use locule_lifecycle::prelude::*;

pub const CASES: &[Case] = cases![
    rules_give_variables_and_mounts_to_those_they_match,
    what_a_runtime_refuses_of_a_rule_is_told,
    a_wrong_rule_is_told_with_its_place,
];

fn rules_give_variables_and_mounts_to_those_they_match(t: &Test) {
    let source = t.rootfs.join("etc");
    let rules = json!([
        { "match": { "annotation": "team", "value": "web" },
          "env": { "TEAM": "web", "PATH": "/bin:/opt" },
          "mounts": [{ "destination": "/mnt", "kind": "bind", "source": source,
                       "options": ["rbind", "ro"] }] },
        { "match": { "annotation": "team" }, "env": { "HAS_TEAM": "yes" } },
        { "env": { "SITE": "north \u{2744}" } },
    ]);
    let engine = engine(t, vec![example("inject", json!({ "config": { "rules": rules } }))]);
    let script = "echo $TEAM:$PATH:$HAS_TEAM:$SITE; ls /mnt; touch /mnt/new 2>&1";
    let inside = |team: Option<&str>, end: &str| {
        let mut spec = t.shell(&format!("{script}; {end}"));
        if let Some(team) = team {
            spec["annotations"] = json!({ "team": team });
        }
        run(t, &engine, &spec).1
    };
    let web = inside(Some("web"), "true");
    let words =
        "web:/bin:/opt:yes:north ❄\ngroup\npasswd\nsecret\ntouch: /mnt/new: Read-only file system";
    assert_eq!(web, words);
    assert!(inside(Some("mail"), "true").starts_with(":/bin:yes:north ❄\ntouch: "));
    assert!(inside(None, "true").starts_with(":/bin::north ❄\ntouch: "));
}

fn what_a_runtime_refuses_of_a_rule_is_told(t: &Test) {
    let rules = json!([{ "env": { "A=B": "1" } }]);
    let engine = engine(t, vec![example("inject", json!({ "config": { "rules": rules } }))]);
    let failure = not_created(t, &engine, &t.shell("true"));
    failure.says("plugin \"inject\" refused create: cannot set the variable A=B: ");
}

fn a_wrong_rule_is_told_with_its_place(_: &Test) {
    for (rules, words) in [
        (json!([{}, { "env": { "A": 1 } }]), "/rules/1/env/A is not a string"),
        (json!([{ "envy": {} }]), "/rules/0/envy is unknown: there are match, env, mounts"),
        (json!({}), "/rules is not a list"),
    ] {
        let configuration = configured("inject", json!({ "config": { "rules": rules } }));
        let failure = Failure::from(load(&configuration).expect_err("was loaded"));
        failure.must_be(Category::Plugin, Stage::Plugin).at("/config").says(words);
    }
}
