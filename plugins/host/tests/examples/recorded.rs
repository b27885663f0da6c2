//! Calls that are written down and done again.

use crate::scene::*;
use locule_lifecycle::prelude::*;
use locule_plugins::{Configuration, Recording, Scene, Session};

pub const CASES: &[Case] = cases![
    what_is_written_down_is_done_again,
    what_is_done_otherwise_is_told,
    a_refusal_is_written_down
];

fn session(name: &str, config: &Value) -> Session {
    let document = configured(name, json!({ "config": config })).to_string();
    let parsed = Configuration::parse(document.as_bytes(), "/".as_ref()).expect("parse");
    Session::new(parsed).expect("a session")
}

fn scene(t: &Test) -> Scene {
    let document = shell(t, "true");
    Scene { stage: "create".to_owned(), id: "web".to_owned(), bundle: "/bundle".into(), document }
}

/// A recording as it is after it has been in a file.
fn recording(session: &Session, scene: Scene) -> Recording {
    let recording = session.record(scene).expect("record");
    let file = json!(recording).to_string();
    Recording::parse(file.as_bytes()).expect("parse")
}

fn what_is_written_down_is_done_again(t: &Test) {
    let rules = json!({ "rules": [{ "env": { "A": "1", "B": "2" } }] });
    for (name, config, calls) in [
        ("policy", json!({ "dropCapabilities": ["CAP_KILL"] }), ["get", "adjust"]),
        ("stamp", json!("a stamp"), ["get", "adjust"]),
        ("inject", rules, ["get", "adjust"]),
    ] {
        let first = session(name, &config);
        let recording = recording(&first, scene(t));
        assert_eq!(recording.refused, None, "{name}");
        let made: Vec<_> =
            recording.calls.iter().map(|call| call["call"].as_str().unwrap()).collect();
        assert!(
            calls.iter().all(|call| made.iter().any(|it| it.contains(call))),
            "{name}: {made:?}"
        );
        // The one that was recorded, and one that has been loaded anew.
        for again in [&first, &session(name, &config)] {
            again.replay(&recording).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        assert!(recording.fuel > 0);
    }
}

fn what_is_done_otherwise_is_told(t: &Test) {
    let stamp = session("stamp", &json!("one"));
    let golden = recording(&stamp, scene(t));
    let differs = |session: &Session, recording: &Recording| {
        let failure = Failure::from(session.replay(recording).expect_err("it is the same"));
        failure.must_be(Category::Plugin, Stage::Plugin);
        failure
    };
    let other = session("stamp", &json!("two"));
    differs(&other, &golden).says("its configuration was \"one\" and is \"two\"");
    // Another component, with the same configuration.
    let nothing = |name| session(name, &json!(null));
    let inject = recording(&nothing("inject"), scene(t));
    differs(&nothing("stamp"), &inject).says("call ");

    let mut changed = golden.clone();
    let last = changed.calls.len();
    changed.calls[last - 1]["arguments"]["soft"] = json!("1023");
    differs(&stamp, &changed).says(&format!("call {last} was ")).says("1023");
    let mut changed = golden.clone();
    changed.calls.pop();
    differs(&stamp, &changed).says(&format!("call {last} was null and is "));
    let mut changed = golden.clone();
    changed.refused = Some("no".to_owned());
    differs(&stamp, &changed).says("the answer was \"no\" and is null");
    let mut changed = golden.clone();
    changed.fuel = golden.fuel / 2;
    differs(&stamp, &changed)
        .says(&format!("it computed {} instead of {}", golden.fuel, changed.fuel));
}

fn a_refusal_is_written_down(t: &Test) {
    let policy = session("policy", &json!(null));
    let scene = Scene { document: t.shell("true"), ..scene(t) };
    let golden = recording(&policy, scene);
    let words = golden.refused.as_deref().expect("a refusal");
    assert!(words.contains("the policy lets nobody run as root"), "{words}");
    policy.replay(&golden).expect("the same");
    let mut changed = golden;
    changed.scene.document["process"]["user"]["uid"] = json!(1000);
    policy.replay(&changed).expect_err("it is not refused now");
}
