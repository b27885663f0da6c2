//! Containers of those who are not root, or only in a user namespace.

use std::os::unix::fs::chown;
use std::process::Command;

use locule_lifecycle::prelude::*;
use locule_lifecycle::{bundle, runner};

pub const CASES: &[Case] = cases![
    an_ordinary_user_runs_containers,
    root_of_a_user_namespace_runs_containers,
    a_signal_for_all_is_refused_where_nobody_knows_them,
];

pub const HELPERS: &[Case] = cases![user, nested, cgroupless];

/// Somebody whom this machine does not know.
const USER: u32 = 54321;

/// Runs a helper as this user, with a state directory of its own.
fn as_user(t: &Test, helper: &str, through: &[&str]) {
    t.need_root();
    std::fs::create_dir_all(&t.state_dir).expect("mkdir");
    chown(&t.state_dir, Some(USER), Some(USER)).expect("chown");
    let prefix = ["--reuid=54321", "--regid=54321", "--clear-groups"];
    let allowed = Command::new("setpriv").args(prefix).args(["unshare", "-Ur", "true"]).status();
    if !allowed.is_ok_and(|status| status.success()) {
        t.skip("setpriv, unshare, and user namespaces for ordinary users");
    }
    // Where the user may execute it.
    let program = t.dir.join("program");
    std::fs::copy("/proc/self/exe", &program).expect("copy");
    let mut command = Command::new("setpriv");
    command.args(prefix).args(through).arg(program).args(["--case", t.face.name(), helper]);
    Helper::start(command).finish();
    std::fs::remove_dir(&t.state_dir).expect("an empty state directory");
}

fn user_spec(t: &Test, script: &str) -> Value {
    let mut spec = t.shell(script);
    bundle::make_rootless(&mut spec, USER, USER);
    spec
}

fn user(t: &Test) {
    let spec = user_spec(t, "id -u; cat /proc/self/uid_map | tr -s ' '");
    assert_eq!(t.run(&spec).success(), "0\n 0 54321 1");
    let container = t.start("a", &user_spec(t, "sleep 1000"));
    assert_eq!(exec_shell(&*container, "id -u"), "0");
    container.delete(true).expect("delete");
    let mut spec = user_spec(t, "true");
    let mount = json!({ "destination": "/mnt", "source": t.dir, "options": ["bind", "idmap"] });
    spec["mounts"].as_array_mut().unwrap().push(mount);
    let failure = t.refused(&t.options("b", &spec));
    failure.must_be(Category::Unsupported, Stage::Compile).at("/mounts/7");
}

fn an_ordinary_user_runs_containers(t: &Test) {
    as_user(t, "user", &[]);
}

fn nested(t: &Test) {
    assert_eq!(t.inside("id -u"), "0");
    let container = t.sleeper("a");
    assert_eq!(exec_shell(&*container, "id -u"), "0");
    container.delete(true).expect("delete");
    // The host's own files.
    let mut spec = t.spec(&["/bin/sh", "-c", "echo new > /etc/new && cat /etc/new"]);
    spec["root"] = json!({ "path": "/" });
    let options = Create { rootfs: Rootfs::Overlay, ..t.options("run", &spec) };
    assert_eq!(t.run_with(options).success(), "new");
}

fn root_of_a_user_namespace_runs_containers(t: &Test) {
    as_user(t, "nested", &["unshare", "-Ur"]);
}

fn cgroupless(t: &Test) {
    let container = t.start("a", &user_spec(t, "sleep 1000 & sleep 1000"));
    if container.pids().is_ok() {
        container.delete(true).expect("delete");
        println!("skipped: a user without cgroups");
        std::process::exit(runner::SKIPPED);
    }
    let failure = refused(container.signal(libc::SIGTERM, true));
    failure.must_be(Category::Unsupported, Stage::Cgroup);
    // This one takes the others along in any case.
    container.signal(libc::SIGKILL, true).expect("signal");
    ended(&*container.init());
    container.delete(false).expect("delete");
}

fn a_signal_for_all_is_refused_where_nobody_knows_them(t: &Test) {
    as_user(t, "cgroupless", &[]);
}
