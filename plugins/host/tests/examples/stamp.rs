//! `stamp`: an annotation for the host, a limit for the program; and what becomes of containers when
//! it fails.

use std::os::unix::fs::PermissionsExt;

use crate::scene::*;
use locule::plugin::Plugins;
use locule_lifecycle::prelude::*;
use locule_plugins::{Configuration, Scene, Session};

pub const CASES: &[Case] = cases![
    a_container_is_stamped_and_limited,
    what_it_cannot_read_is_no_stamp,
    a_failure_fails_the_creation,
    a_failure_that_may_be_skipped_changes_nothing,
    a_failure_disables_it_where_that_is_asked_for,
    what_is_compiled_is_kept_whatever_the_umask_is,
];

const LIMITS: &str = "ulimit -n; ulimit -Hn";

/// What a program without the example has.
fn usual(t: &Test) -> String {
    run(t, &engine(t, vec![]), &t.shell(LIMITS)).1
}

fn a_container_is_stamped_and_limited(t: &Test) {
    assert_ne!(usual(t), "1024\n4096", "it has to have another limit of its own");
    for (config, stamp) in
        [(json!(null), "stamped"), (json!("north hall, \u{fc}"), "north hall, ü")]
    {
        let engine = engine(t, vec![example("stamp", json!({ "config": config }))]);
        let (annotations, limits) = run(t, &engine, &t.shell(LIMITS));
        assert_eq!(annotations["org.locule.stamp"], stamp);
        assert_eq!(limits, "1024\n4096");
    }
}

fn what_it_cannot_read_is_no_stamp(_: &Test) {
    for config in [json!(7), json!(["text"]), json!("a \"quoted\" text")] {
        let configuration = configured("stamp", json!({ "config": config }));
        let failure = Failure::from(load(&configuration).expect_err("was loaded"));
        failure.must_be(Category::Plugin, Stage::Plugin).at("/config").says(
            "it does not accept its configuration: the configuration is neither null nor a string \
             without escapes",
        );
    }
}

/// It makes two adjustments.
fn failing(members: Value) -> Value {
    let mut failing = json!({ "limits": { "adjustments": 1 } });
    failing.as_object_mut().unwrap().extend(members.as_object().expect("members").clone());
    failing
}

fn a_failure_fails_the_creation(t: &Test) {
    let over = engine(t, vec![example("stamp", failing(json!({})))]);
    let words = "plugin \"stamp\" failed at create: it made more than 1 adjustments";
    not_created(t, &over, &t.shell("true")).says(words);

    // The same call needs the same, here and there: one unit less is too little.
    let configuration = configured("stamp", json!({})).to_string();
    let parsed = Configuration::parse(configuration.as_bytes(), "/".as_ref()).expect("parse");
    let scene = Scene {
        stage: "create".to_owned(),
        id: t.id("refused"),
        bundle: t.dir.clone(),
        document: t.shell("true"),
    };
    let needed = Session::new(parsed).and_then(|it| it.run(&scene)).expect("a session").fuel;
    let starved = json!({ "limits": { "fuel": needed - 1 } });
    let starved = engine(t, vec![example("stamp", starved)]);
    let words = format!("failed at create: it computed more than fuel, {}", needed - 1);
    not_created(t, &starved, &t.shell("true")).says(&words);
    let enough = engine(t, vec![example("stamp", json!({ "limits": { "fuel": needed } }))]);
    let container = created(&enough, &t.options("refused", &t.shell("true")));
    assert_eq!(container.state().expect("the state")["annotations"]["org.locule.stamp"], "stamped");
    container.delete(true).expect("delete");
}

fn a_failure_that_may_be_skipped_changes_nothing(t: &Test) {
    let members = failing(json!({ "onFailureAt": { "create": "skip" } }));
    let plugins = chain(vec![example("stamp", members.clone())]);
    for _ in 0..2 {
        // The stamp that it has set before it failed is undone.
        let (annotations, limits) = run(t, &with(t, plugins.clone()), &t.shell(LIMITS));
        assert_eq!(annotations.get("org.locule.stamp"), None);
        assert_eq!(limits, usual(t));
    }
    assert_eq!(disabled(&plugins), [false]);

    let mut required = members;
    required["required"] = json!(true);
    let required = engine(t, vec![example("stamp", required)]);
    not_created(t, &required, &t.shell("true")).says("failed at create");
}

fn a_failure_disables_it_where_that_is_asked_for(t: &Test) {
    let members = failing(json!({ "onFailure": "disable" }));
    let plugins = chain(vec![example("stamp", members.clone())]);
    assert_eq!(disabled(&plugins), [false]);
    assert_eq!(run(t, &with(t, plugins.clone()), &t.shell(LIMITS)).1, usual(t));
    assert_eq!(disabled(&plugins), [true]);
    assert_eq!(run(t, &with(t, plugins), &t.shell(LIMITS)).1, usual(t));

    let mut required = members;
    required["required"] = json!(true);
    let required = engine(t, vec![example("stamp", required)]);
    not_created(t, &required, &t.shell("true")).says("it made more than 1 adjustments");
    let words = "the required plugin \"stamp\" has been disabled after a failure";
    not_created(t, &required, &t.shell("true")).says(words);
}

fn disabled(plugins: &Plugins) -> Vec<bool> {
    plugins.iter().map(|(_, disabled)| disabled).collect()
}

fn what_is_compiled_is_kept_whatever_the_umask_is(t: &Test) {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o137));
    let cache = t.dir.join("not/there/yet");
    example("stamp", json!({ "cache": cache }));
    let mode = |path: &std::path::Path| {
        let metadata = std::fs::metadata(path).expect("what was made");
        metadata.permissions().mode() & 0o777
    };
    for path in cache.ancestors().take(3) {
        assert_eq!(mode(path), 0o700, "{path:?}");
    }
    let files: Vec<_> = std::fs::read_dir(&cache).expect("the cache").flatten().collect();
    assert_eq!(files.len(), 2, "a key and a component: {files:?}");
    for file in files {
        assert_eq!(mode(&file.path()), 0o600, "{file:?}");
    }
}
