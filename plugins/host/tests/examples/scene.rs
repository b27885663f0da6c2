//! What the cases share: examples as plugins, and runtimes that call them.

use std::path::PathBuf;

use locule::plugin::{Guard, Plugins, Registration};
use locule_lifecycle::RustApi;
use locule_lifecycle::prelude::*;

/// What an example has to be granted, as its README says.
pub fn powers(example: &str) -> &'static [&'static str] {
    match example {
        "policy" => &["adjust-security", "spec-view"],
        "stamp" => &["adjust-annotations", "adjust-rlimits"],
        "inject" => &["adjust-env", "adjust-mounts"],
        "count" => &["adjust-env", "kv"],
        other => panic!("{other} is no example"),
    }
}

/// Where `plugins/build.sh` has put an example.
pub fn component(example: &str) -> PathBuf {
    built(&format!("{example}.wasm"))
}

fn built(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/plugins")).join(name)
}

/// The configuration of an example, of its own name unless this says another. What is compiled is
/// kept from run to run.
pub fn configured(example: &str, mut members: Value) -> Value {
    let default = json!({
        "name": example, "path": component(example), "powers": powers(example),
        "cache": built("compiled"),
    });
    let given = members.as_object_mut().expect("members");
    for (name, value) in default.as_object().expect("members") {
        given.entry(name).or_insert_with(|| value.clone());
    }
    members
}

/// An example as a plugin.
#[track_caller]
pub fn example(example: &str, members: Value) -> Registration {
    match load(&configured(example, members)) {
        Ok(registration) => registration,
        Err(error) => panic!("load {example}: {error}"),
    }
}

pub fn load(configuration: &Value) -> locule::Result<Registration> {
    locule_plugins::load(configuration.to_string().as_bytes(), "/nowhere".as_ref())
}

pub fn chain(registrations: Vec<Registration>) -> Plugins {
    Plugins::new(registrations, Vec::new(), Guard::default()).expect("plugins")
}

/// A runtime that calls these.
pub fn engine(t: &Test, registrations: Vec<Registration>) -> RustApi {
    with(t, chain(registrations))
}

pub fn with(t: &Test, plugins: Plugins) -> RustApi {
    t.need_root();
    RustApi::with_plugins(&t.state_dir, plugins).expect("open a runtime")
}

/// Runs a configuration to its end; its annotations, and what it has printed.
#[track_caller]
pub fn run(t: &Test, engine: &dyn Engine, spec: &Value) -> (Value, String) {
    let stdio = [Stream::Null, Stream::Pipe, Stream::Pipe];
    let container = created(engine, &Create { stdio, ..t.options("run", spec) });
    let annotations = container.state().expect("the state")["annotations"].take();
    started(&*container);
    let output = output_of(&*container.init()).success();
    container.delete(false).expect("delete");
    (annotations, output)
}

#[track_caller]
pub fn created(engine: &dyn Engine, options: &Create<'_>) -> Arc<dyn Container> {
    engine.create(options).unwrap_or_else(|error| panic!("create: {error}"))
}

/// The failure of a creation that plugins are in the way of. It has left nothing.
#[track_caller]
pub fn not_created(t: &Test, engine: &dyn Engine, spec: &Value) -> Failure {
    let failure = refused(engine.create(&t.options("refused", spec)));
    failure.must_be(Category::Plugin, Stage::Plugin);
    t.nothing_is_left();
    failure
}

/// A script for an ordinary user.
pub fn shell(t: &Test, script: &str) -> Value {
    let mut spec = t.shell(script);
    spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    spec
}

/// Adds a bind mount.
pub fn bind(spec: &mut Value, source: &str, destination: &str) {
    let mount = json!({ "destination": destination, "type": "bind", "source": source,
                        "options": ["rbind", "ro"] });
    spec["mounts"].as_array_mut().expect("mounts").push(mount);
}
