//! `policy`: who may run, what of the host may be seen, and with which capabilities.

use crate::scene::*;
use locule_lifecycle::prelude::*;

pub const CASES: &[Case] = cases![
    nobody_runs_as_root_unless_they_may,
    only_the_allowed_paths_of_the_host_are_mounted,
    capabilities_are_taken_from_every_process,
    further_processes_are_checked_too,
    a_wrong_configuration_keeps_it_from_being_loaded,
];

fn nobody_runs_as_root_unless_they_may(t: &Test) {
    let strict = engine(t, vec![example("policy", json!({}))]);
    let failure = not_created(t, &strict, &t.shell("id -u"));
    let words = "plugin \"policy\" refused create with code 1: process.user.uid is 0: the policy \
        lets nobody run as root";
    failure.says(words);
    assert_eq!(failure.container_id, t.id("refused"));
    assert_eq!(run(t, &strict, &shell(t, "id -u")).1, "1000");

    let config = json!({ "config": { "allowRoot": true } });
    let lenient = engine(t, vec![example("policy", config)]);
    assert_eq!(run(t, &lenient, &t.shell("id -u")).1, "0");
}

fn only_the_allowed_paths_of_the_host_are_mounted(t: &Test) {
    let allowed = t.rootfs.join("etc").display().to_string();
    let config = json!({ "config": { "hostPaths": [allowed] } });
    let engine = engine(t, vec![example("policy", config)]);
    // The bundle of a case is its directory.
    let own = t.dir.join("data");
    std::fs::create_dir(&own).expect("mkdir");
    std::fs::write(own.join("word"), "own\n").expect("write");

    let mut spec = shell(t, "cat /mnt/secret /opt/word");
    bind(&mut spec, &allowed, "/mnt");
    bind(&mut spec, &own.display().to_string(), "/opt");
    assert_eq!(run(t, &engine, &spec).1, "secret\nown");

    for source in ["/etc".to_owned(), format!("{allowed}/../bin"), format!("{allowed}-too")] {
        let mut spec = shell(t, "true");
        let index = spec["mounts"].as_array().expect("mounts").len();
        bind(&mut spec, &source, "/mnt");
        not_created(t, &engine, &spec).says(&format!(
            "refused create with code 2: mounts[{index}].source is {source:?}, for /mnt: the policy \
             lets only {allowed} be mounted"
        ));
    }
}

const NET_RAW: u64 = 1 << 13;

/// A program that prints the bounding set.
const SHOW: &str = "grep CapBnd /proc/self/status";

fn bounding(line: &str) -> u64 {
    let mask = line.split_whitespace().last().expect("a mask");
    u64::from_str_radix(mask, 16).expect("a mask")
}

fn capabilities_are_taken_from_every_process(t: &Test) {
    let free = bounding(&run(t, &engine(t, vec![]), &shell(t, SHOW)).1);
    assert_ne!(free & NET_RAW, 0, "it has to have what is taken away");

    let config = json!({ "config": { "dropCapabilities": ["CAP_NET_RAW"] } });
    let engine = engine(t, vec![example("policy", config)]);
    assert_eq!(bounding(&run(t, &engine, &shell(t, SHOW)).1), free & !NET_RAW);

    let container = created(&engine, &t.options("a", &shell(t, "sleep 1000")));
    started(&*container);
    assert_eq!(bounding(&exec_shell(&*container, SHOW)), free & !NET_RAW);
    // Also from one that asks for it.
    let mut options = Exec::of(&["/bin/sh", "-c", SHOW]);
    options.process["user"] = json!({ "uid": 1000, "gid": 1000 });
    options.process["capabilities"] = json!({ "bounding": ["CAP_NET_RAW", "CAP_KILL"] });
    assert_eq!(bounding(&exec(&*container, &options).success()), 1 << 5);
    container.delete(true).expect("delete");
}

fn further_processes_are_checked_too(t: &Test) {
    let engine = engine(t, vec![example("policy", json!({}))]);
    let container = created(&engine, &t.options("a", &shell(t, "sleep 1000")));
    started(&*container);
    assert_eq!(exec_shell(&*container, "id -u"), "1000");
    let mut options = Exec::of(&["/bin/touch", "/tmp/root-was-here"]);
    options.process["user"] = json!({ "uid": 0, "gid": 0 });
    let failure = refused(container.exec(&options));
    failure.must_be(Category::Plugin, Stage::Plugin).says(
        "plugin \"policy\" refused exec with code 1: process.user.uid is 0: the policy lets nobody \
         run as root",
    );
    assert_eq!(exec_shell(&*container, "ls /tmp"), "");
    assert_eq!(container.pids().expect("pids").len(), 1);
    container.delete(true).expect("delete");
}

fn a_wrong_configuration_keeps_it_from_being_loaded(_: &Test) {
    for (config, words) in [
        (json!({ "allowroot": true }), "unknown field `allowroot`"),
        (json!({ "hostPaths": ["data"] }), "hostPaths has \"data\", which does not begin with /"),
    ] {
        let configuration = configured("policy", json!({ "config": config }));
        let failure = Failure::from(load(&configuration).expect_err("was loaded"));
        failure.must_be(Category::Plugin, Stage::Plugin).at("/config").says(words);
        failure.says("plugin \"policy\": it does not accept its configuration: ");
    }
}
