//! What `process` in `config.json` says, as the program finds it.

use locule_lifecycle::prelude::*;

pub const CASES: &[Case] = cases![
    a_limit_of_four_descriptors_is_the_programs_alone,
    of_two_variables_of_one_name_the_last_one_counts,
    the_personality_is_that_of_every_process,
    the_memory_policy_is_that_of_every_process,
    a_memory_policy_of_a_node_that_is_not_there_is_refused,
    an_execed_process_runs_on_its_processors,
    the_callers_processors_are_no_limit_of_the_containers,
    a_process_has_the_schedule_it_was_given,
    a_schedule_that_is_reset_on_fork_is_not_inherited,
    a_process_has_the_io_priority_it_was_given,
    every_resource_limit_reads_back_as_it_was_given,
    the_out_of_memory_score_is_touched_only_if_it_is_given,
    a_user_has_its_groups_its_home_and_its_umask,
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

fn the_callers_processors_are_no_limit_of_the_containers(t: &Test) {
    let grep = ["/bin/grep", "Cpus_allowed_list", "/proc/self/status"];
    let spec = t.spec(&grep);
    let all = t.run(&spec).success();
    // SAFETY: the set lives through the call.
    unsafe {
        let mut first: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut first);
        assert_eq!(libc::sched_setaffinity(0, size_of_val(&first), &raw const first), 0);
    }
    assert_eq!(t.run(&spec).success(), all);
    let container = t.sleeper("a");
    assert_eq!(exec(&*container, &Exec::of(&grep)).success(), all);
    container.delete(true).expect("delete");
}

/// Policy, real-time priority and nice value of a process, by the numbers of `/proc/PID/stat`.
const SCHEDULE: &str = "cut -d ' ' -f 19,40,41 /proc/self/stat";

/// Whether a cgroup has no real-time processes unless it was given time for them.
fn real_time_is_shared_out() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists()
}

fn a_process_has_the_schedule_it_was_given(t: &Test) {
    t.need_root();
    // Nice, priority, policy.
    for (scheduler, shown) in [
        (json!({ "policy": "SCHED_OTHER", "nice": 7 }), "7 0 0"),
        (json!({ "policy": "SCHED_BATCH", "nice": -3 }), "-3 0 3"),
        (json!({ "policy": "SCHED_IDLE" }), "0 0 5"),
        (json!({ "policy": "SCHED_FIFO", "priority": 11 }), "0 11 1"),
        (json!({ "policy": "SCHED_RR", "priority": 99 }), "0 99 2"),
        (
            json!({ "policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 20_000_000,
                    "period": 30_000_000 }),
            "0 0 6",
        ),
    ] {
        let policy = scheduler["policy"].as_str().expect("a policy");
        if matches!(policy, "SCHED_FIFO" | "SCHED_RR") && real_time_is_shared_out() {
            println!("skipped: {policy}: a kernel without CONFIG_RT_GROUP_SCHED");
            continue;
        }
        let mut spec = t.spec(&["/bin/cut", "-d", " ", "-f", "19,40,41", "/proc/self/stat"]);
        spec["process"]["scheduler"] = scheduler.clone();
        assert_eq!(t.run(&spec).success(), shown, "{scheduler}");
        let container = t.sleeper("a");
        let process = json!({ "args": spec["process"]["args"], "scheduler": scheduler });
        let output = exec(&*container, &Exec { process, ..Exec::of(&[]) });
        assert_eq!(output.success(), shown, "{scheduler}");
        container.delete(true).expect("delete");
    }
    // What is not given is the default, not the host's.
    // SAFETY: an integer argument; this process has no other thread that could mind.
    assert_eq!(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 3) }, 0);
    assert_eq!(t.inside(SCHEDULE), "0 0 0");
}

fn a_schedule_that_is_reset_on_fork_is_not_inherited(t: &Test) {
    t.need_root();
    if real_time_is_shared_out() {
        t.skip("a kernel without CONFIG_RT_GROUP_SCHED");
    }
    let mut spec = t.shell(&format!("{SCHEDULE}; true"));
    spec["process"]["scheduler"] = json!({
        "policy": "SCHED_FIFO", "priority": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]
    });
    assert_eq!(t.run(&spec).success(), "0 0 0");
    spec["process"]["scheduler"]["flags"] = json!([]);
    assert_eq!(t.run(&spec).success(), "0 5 1");
}

fn a_process_has_the_io_priority_it_was_given(t: &Test) {
    t.need_root();
    for (class, level, shown) in [
        ("IOPRIO_CLASS_RT", 2, "realtime: prio 2"),
        ("IOPRIO_CLASS_BE", 6, "best-effort: prio 6"),
        ("IOPRIO_CLASS_IDLE", 0, "idle"),
    ] {
        // Asked about the shell, which the program itself is.
        let mut spec = t.shell("busybox ionice -p $$");
        let priority = json!({ "class": class, "priority": level });
        spec["process"]["ioPriority"] = priority.clone();
        assert_eq!(t.run(&spec).success(), shown);
        let container = t.sleeper("a");
        let args = &spec["process"]["args"];
        let process = json!({ "args": args, "ioPriority": priority });
        assert_eq!(exec(&*container, &Exec { process, ..Exec::of(&[]) }).success(), shown);
        container.delete(true).expect("delete");
    }
}

fn every_resource_limit_reads_back_as_it_was_given(t: &Test) {
    const LIMITS: [(&str, &str); 16] = [
        ("RLIMIT_AS", "Max address space"),
        ("RLIMIT_CORE", "Max core file size"),
        ("RLIMIT_CPU", "Max cpu time"),
        ("RLIMIT_DATA", "Max data size"),
        ("RLIMIT_FSIZE", "Max file size"),
        ("RLIMIT_LOCKS", "Max file locks"),
        ("RLIMIT_MEMLOCK", "Max locked memory"),
        ("RLIMIT_MSGQUEUE", "Max msgqueue size"),
        ("RLIMIT_NICE", "Max nice priority"),
        ("RLIMIT_NOFILE", "Max open files"),
        ("RLIMIT_NPROC", "Max processes"),
        ("RLIMIT_RSS", "Max resident set"),
        ("RLIMIT_RTPRIO", "Max realtime priority"),
        ("RLIMIT_RTTIME", "Max realtime timeout"),
        ("RLIMIT_SIGPENDING", "Max pending signals"),
        ("RLIMIT_STACK", "Max stack size"),
    ];
    // Below what the machine may have set already, so that nothing is raised.
    let now = std::fs::read_to_string("/proc/self/limits").expect("limits");
    let hard = |title: &str| -> u64 {
        let line = now.lines().find(|line| line.starts_with(title)).expect(title);
        let word = line[26..].split_whitespace().nth(1).expect("a hard limit");
        word.parse().unwrap_or(1 << 40)
    };
    let limits: Vec<(&str, u64, u64)> = LIMITS
        .iter()
        .map(|(_, title)| {
            (*title, hard(title) / 2, hard(title).saturating_sub(1).max(hard(title) / 2))
        })
        .collect();
    let mut spec = t.spec(&["/bin/cat", "/proc/self/limits"]);
    spec["process"]["rlimits"] = LIMITS
        .iter()
        .zip(&limits)
        .map(|((kind, _), (_, soft, hard))| json!({ "type": kind, "soft": soft, "hard": hard }))
        .collect();
    let shown = t.run(&spec).success();
    for (title, soft, hard) in limits {
        let line = shown.lines().find(|line| line.starts_with(title)).expect(title);
        let values: Vec<&str> = line[26..].split_whitespace().take(2).collect();
        assert_eq!(values, [soft.to_string(), hard.to_string()], "{title}");
    }
}

fn the_out_of_memory_score_is_touched_only_if_it_is_given(t: &Test) {
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").expect("a score");
    let script = "cat /proc/self/oom_score_adj";
    assert_eq!(t.inside(script), own.trim());
    for score in [0, 250, 1000] {
        if score < own.trim().parse().unwrap_or(0) {
            continue;
        }
        let mut spec = t.shell(script);
        spec["process"]["oomScoreAdj"] = json!(score);
        assert_eq!(t.run(&spec).success(), score.to_string());
    }
}

fn a_user_has_its_groups_its_home_and_its_umask(t: &Test) {
    let mut spec = t.shell("id -u; id -g; id -G; umask; echo $HOME");
    // Not the supplementary groups of the host, and not its umask.
    let groups = [7, 8];
    // SAFETY: an array with its length; this process has no other thread that could mind.
    unsafe {
        assert_eq!(libc::setgroups(groups.len(), groups.as_ptr()), 0);
        libc::umask(0o077);
    }
    spec["process"]["env"] = json!(["PATH=/bin"]);
    spec["process"]["user"] = json!({ "uid": 0, "gid": 3, "additionalGids": [] });
    assert_eq!(t.run(&spec).success(), "0\n3\n3\n0022\n/root");
    // The container's passwd knows this one, with an empty HOME given it counts, too.
    spec["process"]["env"] = json!(["PATH=/bin", "HOME="]);
    spec["process"]["user"] =
        json!({ "uid": 1000, "gid": 1000, "additionalGids": [3000000000u32], "umask": 0o27 });
    assert_eq!(t.run(&spec).success(), "1000\n1000\n1000 3000000000\n0027\n/");
    // And not this one.
    spec["process"]["user"] = json!({ "uid": 77, "gid": 77 });
    assert_eq!(t.run(&spec).success(), "77\n77\n77\n0022\n/");
}
