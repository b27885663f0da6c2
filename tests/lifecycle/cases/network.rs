//! Network interfaces of the host that become the container's.

use std::process::Command;

use locule_lifecycle::prelude::*;

pub const CASES: &[Case] = cases![
    an_interface_is_moved_with_all_that_it_has,
    an_interface_gets_the_name_that_is_asked_for,
    a_template_takes_the_first_number_that_is_free,
    a_name_that_is_taken_is_refused_before_anything_is_moved,
    an_interface_that_is_missing_is_named,
    an_interface_that_cannot_leave_is_named_and_the_others_go_back,
    an_interface_is_not_moved_within_the_network_of_the_host,
    an_interface_goes_back_as_it_was_if_the_creation_fails_later,
    an_interface_goes_back_if_the_creation_is_cancelled,
    hooks_and_sysctls_find_the_interface_in_the_container,
    an_interface_can_be_moved_into_a_namespace_that_is_joined,
    an_interface_can_be_moved_into_a_user_namespace,
    a_virtual_interface_ends_with_its_container,
    an_interface_is_the_containers_whoever_is_its_parent,
    an_ordinary_user_cannot_have_interfaces_of_the_host,
];

pub const HELPERS: &[Case] = cases![moving_as_a_user];

fn ip(args: &str) -> String {
    let output = Command::new("ip").args(args.split(' ')).output().expect("run ip");
    assert!(output.status.success(), "ip {args}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// A network of this case alone, with the interface `net0`, of which `peer0` is the other end.
fn own_network(t: &Test) {
    t.need_root();
    if Command::new("ip").arg("-V").output().is_err() {
        t.skip("ip (package iproute2)");
    }
    // SAFETY: an integer; this process has one thread.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
    ip("link set lo up");
    let made = Command::new("ip")
        .args("link add net0 type veth peer name peer0".split(' '))
        .status()
        .expect("run ip");
    if !made.success() {
        t.skip("a kernel with veth");
    }
    ip("link set peer0 up");
    // The kernel finds out in its own time that there is no carrier.
    eventually("peer0 has settled", || !ip("link show peer0").contains("state UNKNOWN"));
}

const ADDRESSES: [&str; 4] = ["192.0.2.7/24", "192.0.2.8/24", "198.51.100.1/32", "2001:db8::7/64"];

/// Gives `net0` all that is to be kept.
fn dress() {
    ip("link set net0 mtu 1400 address 02:00:00:00:00:07");
    for address in ADDRESSES {
        ip(&format!("addr add {address} dev net0"));
    }
    ip("addr add 192.0.2.9/24 dev net0 valid_lft 1000 preferred_lft 1000");
    ip("addr add 203.0.113.1/24 scope link dev net0");
    ip("link set net0 up");
}

/// What `ip addr` says of an interface, without what changes by itself.
fn state(name: &str) -> String {
    let text = ip(&format!("-d addr show {name}"));
    let passing = ["tentative", "valid_lft"];
    let words = text.split_whitespace().filter(|word| !passing.contains(word));
    let seconds = |word: &&str| {
        !(word.ends_with("sec") && word.trim_end_matches("sec").parse::<u32>().is_ok())
    };
    words.filter(seconds).collect::<Vec<_>>().join(" ")
}

/// The configuration with these interfaces, and a script.
fn with(t: &Test, devices: Value, script: &str) -> Value {
    let mut spec = t.shell(script);
    spec["linux"]["netDevices"] = devices;
    spec
}

/// A script that prints the names of all interfaces.
const NAMES: &str = "tail -n +3 /proc/net/dev | tr -d ' ' | cut -d: -f1 | sort | tr '\\n' ' '";

fn is_here(name: &str) -> bool {
    Command::new("ip").args(["link", "show", name]).output().expect("run ip").status.success()
}

fn an_interface_is_moved_with_all_that_it_has(t: &Test) {
    own_network(t);
    dress();
    let features = t.engine().features().expect("features");
    assert_eq!(features["linux"]["netDevices"]["enabled"], true);
    let output = t.run(&with(t, json!({ "net0": {} }), "ip addr show net0")).success();
    for wanted in [
        "mtu 1400",
        "link/ether 02:00:00:00:00:07",
        "inet 192.0.2.7/24 scope global net0",
        "inet 192.0.2.8/24 scope global secondary net0",
        "inet 198.51.100.1/32 scope global net0",
        "inet6 2001:db8::7/64 scope global",
        ",UP",
    ] {
        assert!(output.contains(wanted), "no {wanted}: {output}");
    }
    // Neither those that end by themselves nor those of this link alone.
    for unwanted in ["192.0.2.9", "203.0.113.1"] {
        assert!(!output.contains(unwanted), "{unwanted}: {output}");
    }
    // And what was down is brought up.
    ip("link add net1 type veth peer name peer1");
    let script = "ip link show net1 | grep -o ,UP";
    assert_eq!(t.run(&with(t, json!({ "net1": { "name": "" } }), script)).success(), ",UP");
}

fn an_interface_gets_the_name_that_is_asked_for(t: &Test) {
    own_network(t);
    dress();
    let devices = json!({ "net0": { "name": "eth0" }, "peer0": { "name": "net0" } });
    let output = t.run(&with(t, devices, &format!("{NAMES}; ip addr show eth0"))).success();
    assert!(output.starts_with("eth0 lo net0 "), "{output}");
    assert!(output.contains("inet 192.0.2.7/24 scope global eth0"), "{output}");
    // A name of the host's does not matter.
    ip("link add net0 type veth peer name peer0");
    ip("link add eth0 type veth peer name eth1");
    let devices = json!({ "net0": { "name": "eth0" } });
    assert_eq!(t.run(&with(t, devices, "ip link show eth0 >/dev/null")).success(), "");
    assert!(is_here("eth0"));
}

fn a_template_takes_the_first_number_that_is_free(t: &Test) {
    own_network(t);
    ip("link add net1 type veth peer name peer1");
    let devices = json!({
        "net0": { "name": "eth1" },
        "net1": { "name": "eth%d" },
        "peer0": { "name": "eth%d" },
        "peer1": { "name": "x%dy" },
    });
    assert_eq!(t.run(&with(t, devices, NAMES)).success(), "eth0 eth1 eth2 lo x0y ");
}

fn a_name_that_is_taken_is_refused_before_anything_is_moved(t: &Test) {
    own_network(t);
    dress();
    let before = state("net0");
    let spec = with(t, json!({ "net0": { "name": "lo" } }), "true");
    let failure = t.refused(&t.options("a", &spec));
    failure.must_be(Category::Spec, Stage::Settings).at("/linux/netDevices/net0");
    failure.with_errno(libc::EEXIST).says("\"lo\" already");
    assert!(failure.hint.contains("eth%d"), "{}", failure.hint);
    assert_eq!(state("net0"), before);
}

fn an_interface_that_is_missing_is_named(t: &Test) {
    own_network(t);
    dress();
    let before = state("net0");
    // The other has been moved by then.
    let spec = with(t, json!({ "net0": {}, "nosuch": { "name": "eth0" } }), "true");
    let failure = t.refused(&t.options("a", &spec));
    failure.must_be(Category::NotFound, Stage::Settings).at("/linux/netDevices/nosuch");
    failure.with_errno(libc::ENODEV).says("\"nosuch\"");
    assert_eq!(state("net0"), before);
}

fn an_interface_that_cannot_leave_is_named_and_the_others_go_back(t: &Test) {
    own_network(t);
    let before = ip("-d link show peer0");
    let spec = with(t, json!({ "aaaa": {}, "lo": { "name": "lo0" } }), "true");
    ip("link set net0 name aaaa");
    let failure = t.refused(&t.options("a", &spec));
    failure.must_be(Category::Unsupported, Stage::Settings).at("/linux/netDevices/lo");
    failure.says("\"lo\"");
    assert!(is_here("aaaa") && is_here("lo"));
    ip("link set aaaa name net0");
    assert_eq!(ip("-d link show peer0"), before);
}

fn an_interface_is_not_moved_within_the_network_of_the_host(t: &Test) {
    own_network(t);
    let mut spec = with(t, json!({ "net0": {} }), "true");
    let list = spec["linux"]["namespaces"].as_array_mut().unwrap();
    list.retain(|namespace| namespace["type"] != "network");
    let failure = t.refused(&t.options("a", &spec));
    failure.must_be(Category::Spec, Stage::Validate).at("/linux/netDevices");
    failure.says("network namespace");
    let list = spec["linux"]["namespaces"].as_array_mut().unwrap();
    let own = format!("/proc/{}/ns/net", std::process::id());
    list.push(json!({ "type": "network", "path": own }));
    let failure = t.refused(&t.options("a", &spec));
    failure.must_be(Category::Spec, Stage::Validate).at("/linux/netDevices");
    failure.says("would change the host");
}

fn an_interface_goes_back_as_it_was_if_the_creation_fails_later(t: &Test) {
    own_network(t);
    // An end of it is a port of a bridge, where the kernel has bridges.
    let bridge = Command::new("ip").args(["link", "add", "br0", "type", "bridge"]).status();
    if bridge.is_ok_and(|status| status.success()) {
        ip("link set peer0 master br0");
    }
    dress();
    let before = (state("net0"), ip("-d link show peer0"));
    let devices = json!({ "net0": { "name": "eth0" }, "peer0": { "name": "eth%d" } });
    let fails = |change: &dyn Fn(&mut Value)| {
        let mut spec = with(t, devices.clone(), "true");
        change(&mut spec);
        let failure = t.refused(&t.options("a", &spec));
        eventually("as before", || before == (state("net0"), ip("-d link show peer0")));
        failure
    };
    let failure = fails(&|spec| spec["process"]["args"] = json!(["/bin/nosuch"]));
    failure.must_be(Category::Program, Stage::Exec).at("/process/args");
    let failure = fails(&|spec| spec["linux"]["sysctl"] = json!({ "net.ipv4.nosuch": "1" }));
    failure.must_be(Category::NotFound, Stage::Settings);
    // It was there already.
    let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", "! ip link show net0 && exit 3"] });
    let failure = fails(&|spec| spec["hooks"] = json!({ "createRuntime": [hook] }));
    failure.must_be(Category::Hook, Stage::Hook).says("status 3");
    // Somebody kills the first process.
    let script = "kill -9 $(tr , '\\n' | sed -n 's/\"pid\"://p')";
    let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", script] });
    let failure = fails(&|spec| spec["hooks"] = json!({ "createRuntime": [hook] }));
    failure.says("killed by signal 9");
    // A mount fails before there is anything to go back.
    let mount = json!({ "destination": "/mnt", "source": "/nosuch", "options": ["bind"] });
    let index = ip("link show net0");
    fails(&|spec| spec["mounts"].as_array_mut().unwrap().push(mount.clone()));
    assert_eq!(ip("link show net0"), index);
}

fn an_interface_goes_back_if_the_creation_is_cancelled(t: &Test) {
    own_network(t);
    dress();
    let before = state("net0");
    let mut spec = with(t, json!({ "net0": {} }), "true");
    spec["hooks"] = json!({ "createRuntime": [{ "path": "/bin/sleep", "args": ["sleep", "60"] }] });
    let options = Create { timeout: Some(Duration::from_millis(700)), ..t.options("a", &spec) };
    let failure = t.refused(&options);
    assert_eq!(failure.category, Category::Timeout, "{failure}");
    assert_eq!(state("net0"), before);
}

fn hooks_and_sysctls_find_the_interface_in_the_container(t: &Test) {
    own_network(t);
    let mut spec = with(
        t,
        json!({ "net0": { "name": "eth0" } }),
        "cat /proc/sys/net/ipv4/conf/eth0/forwarding; cat /mnt/seen",
    );
    spec["linux"]["sysctl"] = json!({ "net.ipv4.conf.eth0.forwarding": "1" });
    // The hook runs in the container's namespaces, and on the host's files.
    let script = format!("ip -o link show eth0 >{}/seen", t.dir.display());
    let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", script] });
    spec["hooks"] = json!({ "createContainer": [hook] });
    let files = json!({ "destination": "/mnt", "source": t.dir, "options": ["bind"] });
    spec["mounts"].as_array_mut().unwrap().push(files);
    let output = t.run(&spec).success();
    assert!(output.starts_with("1\n") && output.contains("eth0"), "{output}");
}

fn an_interface_can_be_moved_into_a_namespace_that_is_joined(t: &Test) {
    own_network(t);
    dress();
    let other = t.sleeper("other");
    let mut spec = with(t, json!({ "net0": { "name": "eth%d" } }), "ip addr show eth0");
    let path = format!("/proc/{}/ns/net", other.init().pid());
    let list = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
    list.retain(|namespace| namespace["type"] != "network");
    list.push(json!({ "type": "network", "path": path }));
    let output = t.run(&spec).success();
    assert!(output.contains("2001:db8::7/64"), "{output}");
    // It belongs to that network, and is nothing that ends with the container.
    assert!(exec_shell(&*other, "ip addr show eth0").contains("192.0.2.7/24"));
    assert!(!is_here("net0"));
    // There its name is taken now.
    ip("link add net0 type veth peer name peer1");
    spec["linux"]["netDevices"] = json!({ "net0": { "name": "eth0" } });
    let failure = refused(t.engine().create(&t.options("b", &spec)));
    failure.must_be(Category::Spec, Stage::Settings).says("\"eth0\" already");
    assert!(is_here("net0"));
    // And the one that it has here may be taken there, if it is to have another.
    spec["linux"]["netDevices"] =
        json!({ "net0": { "name": "eth%d" }, "aaaa": { "name": "net0" } });
    ip("link set peer1 name aaaa");
    spec["process"]["args"] = json!(["/bin/sh", "-c", "ip link show eth1; ip link show net0"]);
    t.run(&spec).success();
    other.delete(true).expect("delete");
}

fn an_interface_can_be_moved_into_a_user_namespace(t: &Test) {
    own_network(t);
    dress();
    let mut spec = with(t, json!({ "net0": {} }), "ip addr show net0");
    let linux = &mut spec["linux"];
    linux["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    linux["uidMappings"] = json!([{ "containerID": 0, "hostID": 300000, "size": 1000 }]);
    linux["gidMappings"] = json!([{ "containerID": 0, "hostID": 300000, "size": 1000 }]);
    let before = state("net0");
    let mut wrong = spec.clone();
    wrong["process"]["args"] = json!(["/bin/nosuch"]);
    t.refused(&t.options("a", &wrong)).must_be(Category::Program, Stage::Exec);
    assert_eq!(state("net0"), before);
    let output = t.run(&spec).success();
    assert!(output.contains("inet 192.0.2.7/24") && output.contains("2001:db8::7"), "{output}");
}

fn a_virtual_interface_ends_with_its_container(t: &Test) {
    own_network(t);
    let container = t.create("a", &with(t, json!({ "net0": {} }), "exec sleep 1000"));
    assert!(!is_here("net0") && is_here("peer0"));
    started(&*container);
    container.delete(true).expect("delete");
    eventually("the pair is gone", || !is_here("peer0"));
    assert!(!is_here("net0"));
    // Also if it never ran.
    ip("link add net0 type veth peer name peer0");
    let container = t.create("a", &with(t, json!({ "net0": {} }), "exec sleep 1000"));
    container.delete(true).expect("delete");
    eventually("the pair is gone", || !is_here("peer0"));
    assert!(!is_here("net0"));
}

fn an_interface_is_the_containers_whoever_is_its_parent(t: &Test) {
    own_network(t);
    dress();
    let before = state("net0");
    for parentage in [Parentage::Orphan, Parentage::Child] {
        let mut spec = with(t, json!({ "net0": {} }), "exec sleep 1000");
        spec["process"]["args"] = json!(["/bin/nosuch"]);
        t.refused(&Create { parentage, ..t.options("a", &spec) });
        assert_eq!(state("net0"), before, "{parentage:?}");
    }
    for parentage in [Parentage::Orphan, Parentage::Child] {
        let spec = with(t, json!({ "peer0": {} }), "exec sleep 1000");
        let container = t.create_with(&Create { parentage, ..t.options("a", &spec) });
        assert!(!is_here("peer0"));
        started(&*container);
        container.delete(true).expect("delete");
        eventually("the pair is gone", || !is_here("net0"));
        ip("link add net0 type veth peer name peer0");
    }
}

fn moving_as_a_user(t: &Test) {
    let mut spec = with(t, json!({ "net0": {} }), "true");
    locule_lifecycle::bundle::make_rootless(&mut spec, 54321, 54321);
    let failure = t.refused(&t.options("a", &spec));
    failure.must_be(Category::Permission, Stage::Compile).at("/linux/netDevices");
    assert!(failure.hint.contains("CAP_NET_ADMIN"), "{}", failure.hint);
}

fn an_ordinary_user_cannot_have_interfaces_of_the_host(t: &Test) {
    own_network(t);
    super::rootless::as_user(t, "moving_as_a_user", &[]);
    assert!(is_here("net0"));
}
