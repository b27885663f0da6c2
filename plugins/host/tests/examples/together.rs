//! Several plugins in a runtime: what each sees of the others, conflicts, and memory that they keep.

use crate::scene::*;
use locule::plugin::{Plugins, Stage as At};
use locule_lifecycle::prelude::*;
use locule_plugins::{inspect, load_folder};

pub const CASES: &[Case] = cases![
    they_ask_for_the_powers_that_they_say_and_get_no_other_way_in,
    a_folder_of_them_works_on_one_container,
    the_last_one_sees_what_the_others_have_made,
    two_that_want_different_things_are_in_conflict,
    what_two_agree_on_is_no_conflict,
    one_that_is_kept_alive_goes_on_after_refusals,
    one_that_is_kept_alive_serves_threads_at_once,
    one_that_is_kept_alive_does_not_grow,
];

fn they_ask_for_the_powers_that_they_say_and_get_no_other_way_in(_: &Test) {
    for name in ["policy", "stamp", "inject"] {
        let found = inspect(&component(name)).expect("inspect");
        let mut asked: Vec<&str> = found["powers"].as_array().unwrap().iter().map(text).collect();
        asked.sort_unstable();
        assert_eq!(asked, powers(name), "{name}");
        let imports = found["imports"].as_array().unwrap().iter().map(text);
        let foreign: Vec<_> = imports.filter(|it| !it.starts_with("locule:plugin/")).collect();
        assert!(foreign.is_empty(), "{name} imports {foreign:?}");

        let configuration = configured(name, json!({ "powers": [asked[0]] }));
        let failure = Failure::from(load(&configuration).expect_err("was loaded"));
        failure.must_be(Category::Plugin, Stage::Plugin).at("/powers").says(asked[1]);
    }
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn a_folder_of_them_works_on_one_container(t: &Test) {
    let folder = t.dir.join("plugins");
    std::fs::create_dir(&folder).expect("mkdir");
    let write = |file: &str, document: Value| {
        std::fs::write(folder.join(file), document.to_string()).expect("write");
    };
    let allowed = t.rootfs.join("etc");
    let mount =
        json!({ "destination": "/mnt", "kind": "bind", "source": allowed, "options": ["rbind"] });
    let rules = json!([{ "env": { "SITE": "north" }, "mounts": [mount] }]);
    write("inject.json", configured("inject", json!({ "config": { "rules": rules } })));
    write("stamp.json", configured("stamp", json!({ "config": "by a folder", "keepAlive": true })));
    let config = json!({ "hostPaths": [allowed], "dropCapabilities": ["net_raw"] });
    write("policy.json", configured("policy", json!({ "config": config, "priority": 10 })));
    write("rules.json", json!({ "required": ["policy"], "forbid": ["hooks", "capabilities"] }));

    let loaded = load_folder(&folder).expect("load the folder");
    let plugins = Plugins::new(loaded.registrations, loaded.required, loaded.guard);
    let engine = with(t, plugins.expect("plugins"));
    let script = "echo $SITE; cat /mnt/secret; ulimit -n; grep CapBnd /proc/self/status";
    let stdio = [Stream::Null, Stream::Pipe, Stream::Pipe];
    let container = created(&engine, &Create { stdio, ..t.options("a", &shell(t, script)) });
    let state = container.state().expect("the state");
    assert_eq!(state["annotations"]["org.locule.stamp"], "by a folder");
    let changes = state["changes"].as_array().expect("changes").iter();
    let who: Vec<_> = changes.map(|it| (text(&it["plugin"]), text(&it["pointer"]))).collect();
    let expected = [
        ("inject", "/process/env/SITE"),
        ("inject", "/mounts/~1mnt"),
        ("stamp", "/annotations/org.locule.stamp"),
        ("stamp", "/process/rlimits/RLIMIT_NOFILE"),
        ("policy", "/process/capabilities/bounding/CAP_NET_RAW"),
        ("policy", "/process/capabilities/effective/CAP_NET_RAW"),
        ("policy", "/process/capabilities/permitted/CAP_NET_RAW"),
    ];
    assert_eq!(who, expected);
    started(&*container);
    let output = output_of(&*container.init()).success();
    let mask = output.strip_prefix("north\nsecret\n1024\nCapBnd:\t").expect(&output);
    assert_eq!(u64::from_str_radix(mask, 16).expect("a mask") & 1 << 13, 0);
    container.delete(false).expect("delete");
    // Root it is not, whatever the others say.
    not_created(t, &engine, &t.shell("true")).says("plugin \"policy\" refused create with code 1");
}

fn the_last_one_sees_what_the_others_have_made(t: &Test) {
    let mount =
        json!({ "destination": "/mnt", "kind": "bind", "source": "/etc", "options": ["bind"] });
    let rules = json!({ "rules": [{ "mounts": [mount] }] });
    let chain = |priority: i32| {
        let inject = example("inject", json!({ "config": rules }));
        engine(t, vec![example("policy", json!({ "priority": priority })), inject])
    };
    let failure = not_created(t, &chain(1), &shell(t, "true"));
    failure.says("source is \"/etc\", for /mnt: the policy lets nothing of the host be mounted");
    // Before the other it has nothing to see.
    assert_eq!(run(t, &chain(-1), &shell(t, "ls -d /mnt")).1, "/mnt");
}

fn injecting(name: &str, site: &str) -> Value {
    json!({ "name": name, "config": { "rules": [{ "env": { "SITE": site } }] } })
}

fn two_that_want_different_things_are_in_conflict(t: &Test) {
    let stamps = |second: Value| {
        let first = example("stamp", json!({ "name": "first", "config": "one" }));
        engine(t, vec![first, example("stamp", second)])
    };
    let second = json!({ "name": "second", "config": "two", "onFailure": "skip" });
    // A refusal counts whatever its policy for failures is.
    not_created(t, &stamps(second.clone()), &t.shell("true")).says(
        "plugin \"second\" refused create: cannot set the annotation org.locule.stamp: another plugin \
         has set it",
    );
    let mut overriding = second;
    overriding["override"] = json!(true);
    let (annotations, _) = run(t, &stamps(overriding), &t.shell("true"));
    assert_eq!(annotations["org.locule.stamp"], "two");

    let sites = ["a", "b"].map(|name| example("inject", injecting(name, name)));
    not_created(t, &engine(t, sites.into()), &t.shell("true")).says(
        "plugin \"b\" refused create: cannot set the variable SITE: the plugin a has set it before",
    );
}

fn what_two_agree_on_is_no_conflict(t: &Test) {
    let sites = ["a", "b"].map(|name| example("inject", injecting(name, "north")));
    assert_eq!(run(t, &engine(t, sites.into()), &t.shell("echo $SITE")).1, "north");
}

fn kept(name: &str, mut members: Value) -> locule::plugin::Registration {
    members["keepAlive"] = json!(true);
    example(name, members)
}

fn one_that_is_kept_alive_goes_on_after_refusals(t: &Test) {
    let engine = engine(t, vec![kept("policy", json!({}))]);
    for _ in 0..3 {
        not_created(t, &engine, &t.shell("true")).says("lets nobody run as root");
        assert_eq!(run(t, &engine, &shell(t, "id -u")).1, "1000");
    }
}

fn one_that_is_kept_alive_serves_threads_at_once(t: &Test) {
    let rules = json!({ "rules": [{ "match": { "annotation": "number", "value": "1" },
                                    "env": { "NUMBER": "one" } }, { "env": { "ALL": "yes" } }] });
    let engine =
        engine(t, vec![kept("inject", json!({ "config": rules })), kept("stamp", json!({}))]);
    let one = |number: usize| {
        let mut spec = t.shell("echo $NUMBER:$ALL:$(ulimit -n)");
        spec["annotations"] = json!({ "number": number.to_string() });
        let stdio = [Stream::Null, Stream::Pipe, Stream::Pipe];
        let options = Create { stdio, ..t.options(&number.to_string(), &spec) };
        let container = created(&engine, &options);
        started(&*container);
        let output = output_of(&*container.init()).success();
        container.delete(false).expect("delete");
        assert_eq!(output, if number == 1 { "one:yes:1024" } else { ":yes:1024" });
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|number| scope.spawn(move || one(number))).collect();
        threads.into_iter().for_each(|thread| thread.join().expect("a container"));
    });
}

/// What a call leaves in its memory would soon be more than the limit.
fn one_that_is_kept_alive_does_not_grow(t: &Test) {
    let mut document = shell(t, "true");
    document["annotations"] = json!({ "long": "x".repeat(64 << 10) });
    for name in ["policy", "stamp", "inject"] {
        let members = json!({ "limits": { "memoryBytes": 4 << 20 } });
        let plugins = chain(vec![kept(name, members)]);
        for _ in 0..200 {
            let made = plugins.rehearse(At::Create, "a", &t.dir, document.clone());
            made.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}
