//! What `process` in `config.json` says, as the program finds it.

use locule_lifecycle::prelude::*;

pub const CASES: &[Case] = cases![
    a_limit_of_four_descriptors_is_the_programs_alone,
    of_two_variables_of_one_name_the_last_one_counts,
    the_personality_is_that_of_every_process,
    the_memory_policy_is_that_of_every_process,
    a_memory_policy_of_a_node_that_is_not_there_is_refused,
    an_execed_process_runs_on_its_processors,
];

fn a_limit_of_four_descriptors_is_the_programs_alone(t: &Test) {
    for no_new_privileges in [true, false] {
        let mut spec = t.shell("ulimit -n; ulimit -Hn");
        spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
        spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 4, "hard": 5 }]);
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["prlimit64"], "action": "SCMP_ACT_ERRNO",
                           "args": [{ "index": 2, "value": 0, "op": "SCMP_CMP_NE" }] }]
        });
        assert_eq!(t.run(&spec).success(), "4\n5");
    }
}

fn of_two_variables_of_one_name_the_last_one_counts(t: &Test) {
    let mut spec = t.spec(&["/bin/env"]);
    spec["process"]["env"] = json!(["PATH=/nowhere", "A=1", "B=x=y", "A=2", "PATH=/bin"]);
    assert_eq!(t.run(&spec).success(), "B=x=y\nA=2\nPATH=/bin\nHOME=/root");
}

fn the_personality_is_that_of_every_process(t: &Test) {
    let mut spec = t.spec(&["/bin/sleep", "1000"]);
    spec["linux"]["personality"] = json!({ "domain": "LINUX32" });
    let container = t.start("a", &spec);
    let script = "test $(uname -m) != x86_64 && cat /proc/1/personality /proc/self/personality";
    assert_eq!(exec_shell(&*container, script), "00000008\n00000008");
    container.delete(true).expect("delete");
}

fn the_memory_policy_is_that_of_every_process(t: &Test) {
    t.need_numa();
    // What Linux 6.9 brought shows in /sys.
    let weighted = std::path::Path::new("/sys/kernel/mm/mempolicy").exists();
    for (mode, nodes, flag, shown) in [
        ("MPOL_DEFAULT", None, None, "default"),
        ("MPOL_LOCAL", None, None, "local"),
        ("MPOL_PREFERRED", None, None, "local"),
        ("MPOL_PREFERRED", Some("0"), Some("MPOL_F_RELATIVE_NODES"), "prefer=relative:0"),
        ("MPOL_BIND", Some("0"), Some("MPOL_F_STATIC_NODES"), "bind=static:0"),
        ("MPOL_BIND", Some("0"), Some("MPOL_F_NUMA_BALANCING"), "bind=balancing:0"),
        ("MPOL_PREFERRED_MANY", Some("0"), None, "prefer (many):0"),
        ("MPOL_INTERLEAVE", Some("0"), None, "interleave:0"),
        ("MPOL_WEIGHTED_INTERLEAVE", Some("0"), None, "weighted interleave:0"),
    ] {
        if mode == "MPOL_WEIGHTED_INTERLEAVE" && !weighted {
            println!("skipped: {mode}: a kernel that has it");
            continue;
        }
        let mut spec = t.spec(&["/bin/sleep", "1000"]);
        let flags: Vec<_> = flag.into_iter().collect();
        spec["linux"]["memoryPolicy"] = json!({ "mode": mode, "nodes": nodes, "flags": flags });
        let container = t.start("a", &spec);
        for process in ["1", "self"] {
            let map = exec_shell(&*container, &format!("head -n 1 /proc/{process}/numa_maps"));
            let policy = map.split_once(' ').expect("an address and a policy").1;
            assert!(policy.starts_with(shown), "{mode} {flag:?}: {map}");
        }
        container.delete(true).expect("delete");
    }
}

fn a_memory_policy_of_a_node_that_is_not_there_is_refused(t: &Test) {
    t.need_numa();
    let mut spec = t.spec(&["/bin/true"]);
    spec["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_BIND", "nodes": "1023" });
    let failure = t.refused(&t.options("a", &spec));
    assert_eq!((failure.category, &*failure.pointer), (Category::Spec, "/linux/memoryPolicy"));
    assert!(failure.hint.contains("has_memory"), "{failure:?}");
}

fn an_execed_process_runs_on_its_processors(t: &Test) {
    let container = t.sleeper("a");
    let allowed = |affinity: Value| {
        let grep = ["/bin/grep", "Cpus_allowed_list", "/proc/self/status"];
        let process = json!({ "args": grep, "execCPUAffinity": affinity });
        exec(&*container, &Exec { process, ..Exec::of(&[]) }).success()
    };
    assert_eq!(allowed(json!({ "initial": "0" })), "Cpus_allowed_list:\t0");
    let last = std::thread::available_parallelism().map_or(0, |count| count.get() - 1).to_string();
    let both = json!({ "initial": "0", "final": last });
    assert_eq!(allowed(both), format!("Cpus_allowed_list:\t{last}"));
    container.delete(true).expect("delete");
}
