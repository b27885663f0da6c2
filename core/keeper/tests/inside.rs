//! What a container sees from the inside.

mod harness;

use std::ffi::CString;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use harness::*;
use locule_plan::protocol::Reply;
use locule_plan::{List, Operation, OwnedNumbers, Stream, join, mount, terminal};

/// Creates and starts the plan, with its output in slot 0, and returns what it wrote.
fn run(who: As, bundle: &Bundle, plan: Plan) -> String {
    let keeper = Keeper::new(who);
    let (output, input) = pipe();
    let answer = keeper.create(bundle, &plan.finish(), 0, &[input.as_raw_fd()]);
    drop(input);
    answer.created();
    keeper.start().started();
    let text = read_all(output);
    answer.exited();
    keeper.shut_down();
    text
}

#[test]
fn mounts_devices_masks_and_names_are_as_planned() {
    everything(As::Root);
}

#[test]
fn newer_system_calls_may_be_hidden() {
    everything(As::Sandboxed);
}

fn everything(who: As) {
    let Some(bundle) = Bundle::new() else { return };
    std::fs::create_dir(bundle.path("data")).unwrap();
    std::fs::write(bundle.path("data/file"), "from the host").unwrap();
    std::fs::write(bundle.path("single"), "one file").unwrap();
    std::fs::create_dir_all(bundle.root().join("hidden/below")).unwrap();
    std::fs::write(bundle.root().join("secret"), "x").unwrap();
    std::fs::create_dir(bundle.root().join("full")).unwrap();
    std::fs::write(bundle.root().join("full/entry"), "copied").unwrap();
    std::os::unix::fs::symlink("/away/from/here", bundle.root().join("dangling")).unwrap();
    let mut plan = Plan::default();
    plan.namespaces(0).filesystems(&bundle);
    plan.mount(c"mqueue", c"/dev/mqueue", &[], NOSUID | NODEV | NOEXEC, 0);
    plan.mount(c"sysfs", c"/sys", &[], NOSUID | NODEV | NOEXEC | READ_ONLY, mount::STRICT_TARGET);
    plan.mount(c"tmpfs", c"/full", &[], 0, mount::COPY_UP);
    plan.mount(c"tmpfs", c"/dangling/deep", &["mode=0711"], 0, 0);
    plan.bind(&c(bundle.path("data")), c"/mnt/data", READ_ONLY, mount::RECURSIVE);
    plan.bind(&c(bundle.path("single")), c"/mnt/single", 0, 0);
    plan.child(&Operation::Directory { path: c"/made/by/plan", mode: 0o700 });
    for path in [c"/hidden", c"/proc/acpi", c"/secret", c"/not/there", c"/full"] {
        plan.child(&Operation::MaskPath { path });
    }
    plan.child(&Operation::ReadonlyPath { path: c"/proc/sys" });
    plan.child(&Operation::Remount {
        path: c"/dev",
        options: List::EMPTY,
        set: READ_ONLY,
        clear: 0,
        recursive_set: 0,
        recursive_clear: 0,
        propagation: 0,
    });
    plan.child(&Operation::ReadonlyRoot {});
    plan.child(&Operation::Pivot {});
    plan.child(&Operation::Hostname { name: c"box" });
    plan.child(&Operation::Sysctl { name: c"kernel/msgmax", value: c"4321" });
    plan.child(&Operation::LoopbackUp {});
    plan.child(&Operation::NewKeyring {});
    plan.output();
    let script = "hostname; cat /proc/sys/kernel/msgmax; cat /mnt/data/file /mnt/single; echo
        ls /hidden | wc -l; ls -l /secret | cut -c1; test -s /secret || echo empty
        touch /new 2>/dev/null || echo root read-only
        touch /dev/new 2>/dev/null || echo dev read-only
        touch /mnt/data/new 2>/dev/null || echo bind read-only
        touch /hidden/new 2>/dev/null || echo mask read-only
        echo 1 2>/dev/null > /proc/sys/kernel/msgmax || echo sysctl read-only
        stat -c '%a %t,%T' /dev/null; stat -c %a /made/by/plan /away/from/here/deep
        echo hello > /dev/null && ip addr show lo | grep -o 'LOOPBACK,UP'
        grep -c . /proc/self/mountinfo | grep -q . && grep -c host /proc/self/mountinfo
        ls /proc/self/fd | wc -l; readlink /dev/ptmx; echo $HOME";
    std::os::unix::fs::symlink("busybox", bundle.root().join("bin/cut")).unwrap();
    plan.program(&["sh", "-c", script], true);
    let text = run(who, &bundle, plan);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert_eq!(
        lines,
        [
            "box",
            "4321",
            "from the hostone file",
            "0",
            "c",
            "empty",
            "root read-only",
            "dev read-only",
            "bind read-only",
            "mask read-only",
            "sysctl read-only",
            "666 1,3",
            "700",
            "711",
            "LOOPBACK,UP",
            "0",
            "4",
            "pts/ptmx",
            "/root",
        ],
        "{text}"
    );
    assert!(bundle.root().join("away/from/here/deep").is_dir());
}

#[test]
fn a_tmpfs_can_start_with_what_it_hides() {
    let Some(bundle) = Bundle::new() else { return };
    let full = bundle.root().join("full");
    std::fs::create_dir_all(full.join("sub")).unwrap();
    std::fs::write(full.join("sub/entry"), "copied").unwrap();
    std::os::unix::fs::symlink("sub/entry", full.join("link")).unwrap();
    let mut plan = Plan::default();
    plan.namespaces(0).filesystems(&bundle);
    plan.mount(c"tmpfs", c"/full", &[], 0, mount::COPY_UP);
    plan.child(&Operation::Pivot {}).output();
    plan.program(&["sh", "-c", "cat /full/link; echo > /full/new; stat -f -c %T /full"], true);
    assert_eq!(run(As::Root, &bundle, plan), "copiedtmpfs\n");
    assert!(!full.join("new").exists());
}

#[test]
fn identity_limits_and_capabilities_are_as_planned() {
    let Some(bundle) = Bundle::new() else { return };
    let mut plan = Plan::default();
    plan.namespaces(0).filesystems(&bundle);
    plan.push(Stream::Parent, &Operation::ResourceLimit { resource: 7, soft: 77, hard: 99 });
    plan.push(Stream::Parent, &Operation::OomScoreAdj { value: 123 });
    plan.child(&Operation::Pivot {}).output();
    plan.child(&Operation::Umask { mask: 0o27 });
    plan.child(&Operation::NoNewPrivileges {});
    plan.child(&Operation::BoundingCapabilities { mask: 1 << 10 });
    let groups: OwnedNumbers = [8, 9].into_iter().collect();
    let groups = groups.as_numbers();
    plan.child(&Operation::User { uid: 7, gid: 70, groups, keep_groups: 0 });
    let cap = 1 << 10;
    plan.child(&Operation::Capabilities {
        effective: cap,
        permitted: cap,
        inheritable: cap,
        ambient: cap,
    });
    plan.child(&Operation::WorkingDirectory { path: c"/tmp", attempt: 0 });
    plan.program(
        &[
            "sh",
            "-c",
            "id -u; id -G; echo $HOME; pwd; umask; ulimit -n; cat /proc/self/oom_score_adj
            grep -E '^(Cap|NoNew)' /proc/self/status",
        ],
        true,
    );
    let text = run(As::Root, &bundle, plan);
    let expected = "7\n70 8 9\n/home/ana\n/tmp\n0027\n77\n123\nCapInh:\t0000000000000400\nCapPrm:\t0000000000000400\n\
        CapEff:\t0000000000000400\nCapBnd:\t0000000000000400\nCapAmb:\t0000000000000400\n\
        NoNewPrivs:\t1\n";
    assert_eq!(text, expected);
}

#[test]
fn nothing_of_the_hosts_signals_reaches_the_program() {
    let Some(bundle) = Bundle::new() else { return };
    let mut plan = Plan::default();
    plan.namespaces(0).filesystems(&bundle).child(&Operation::Pivot {}).output();
    plan.program(&["grep", "-E", "^Sig(Ign|Blk|Cgt)", "/proc/self/status"], true);
    let none = "0000000000000000";
    assert_eq!(
        run(As::Root, &bundle, plan),
        format!("SigBlk:\t{none}\nSigIgn:\t{none}\nSigCgt:\t{none}\n")
    );
}

#[test]
fn only_the_planned_descriptors_reach_the_program() {
    let Some(bundle) = Bundle::new() else { return };
    let mut plan = Plan::default();
    plan.namespaces(0).filesystems(&bundle).child(&Operation::Pivot {}).output();
    let slots = [plan.slot(), plan.slot()];
    // Crossed on purpose: each slot's number may be the other's target.
    plan.child(&Operation::Descriptor { target: 5, slot: slots[0] });
    plan.child(&Operation::Descriptor { target: 4, slot: slots[1] });
    plan.program(&["sh", "-c", "ls /proc/$$/fd; cat <&5; cat <&4"], true);
    let keeper = Keeper::new(As::Root);
    let (output, input) = pipe();
    let files: Vec<std::fs::File> = ["five", "four"]
        .into_iter()
        .map(|text| {
            let path = bundle.path(text);
            std::fs::write(&path, format!("{text}\n")).unwrap();
            std::fs::File::open(path).unwrap()
        })
        .collect();
    let fds = [input.as_raw_fd(), files[0].as_raw_fd(), files[1].as_raw_fd()];
    let answer = keeper.create(&bundle, &plan.finish(), 0, &fds);
    drop(input);
    answer.created();
    keeper.start().started();
    let text = read_all(output);
    assert_eq!(text, "0\n1\n2\n4\n5\nfive\nfour\n");
    keeper.shut_down();
}

#[test]
fn containers_may_create_the_same_targets_in_one_root_at_once() {
    let Some(shared) = Bundle::new() else { return };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let Some(bundle) = Bundle::new() else { return };
            let shared = &shared;
            scope.spawn(move || {
                let mut plan = Plan::default();
                plan.namespaces(0).filesystems(shared);
                for number in 0..100 {
                    let target = CString::new(format!("/new-{number}/below")).unwrap();
                    plan.mount(c"tmpfs", &target, &[], 0, 0);
                }
                plan.child(&Operation::Pivot {});
                plan.output().program(&["sh", "-c", "ls -d /new-*/below | wc -l"], true);
                assert_eq!(run(As::Root, &bundle, plan), "100\n");
            });
        }
    });
}

#[test]
fn an_overlaid_root_takes_changes_and_leaves_the_original_alone() {
    let Some(bundle) = Bundle::new() else { return };
    std::fs::create_dir(bundle.path("scratch")).unwrap();
    let mut plan = Plan::default();
    plan.namespaces(0);
    plan.child(&Operation::Propagation { flags: libc::MS_REC | libc::MS_SLAVE });
    plan.child(&Operation::OverlayRoot {
        lower: &c(bundle.root()),
        below: List::EMPTY,
        changes: c"",
        scratch: &c(bundle.path("scratch")),
    });
    plan.usual().child(&Operation::Pivot {}).output();
    plan.program(&["sh", "-c", "echo changed > /etc/passwd; cat /etc/passwd; echo > /new"], true);
    assert_eq!(run(As::Root, &bundle, plan), "changed\n");
    assert!(!bundle.root().join("new").exists());
    assert_eq!(std::fs::read_dir(bundle.path("scratch")).unwrap().count(), 0);
}

#[test]
fn a_terminal_is_handed_over() {
    let Some(bundle) = Bundle::new() else { return };
    let mut plan = Plan::default();
    plan.namespaces(0).filesystems(&bundle).child(&Operation::Pivot {});
    plan.child(&Operation::NewSession {});
    plan.child(&Operation::Terminal { rows: 33, columns: 99, flags: terminal::CONSOLE, uid: 0 });
    plan.program(
        &["sh", "-c", "tty; stat -c %t,%T /dev/console; stty size; read x; echo got $x"],
        true,
    );
    std::os::unix::fs::symlink("busybox", bundle.root().join("bin/stty")).unwrap();
    let keeper = Keeper::new(As::Root);
    let answer = keeper.create(&bundle, &plan.finish(), 0, &[]);
    let mut master: Option<OwnedFd> = None;
    loop {
        match answer.next().unwrap() {
            (Reply::Terminal, fd) => master = fd,
            (Reply::Created { .. }, _) => break,
            (other, _) => panic!("{other:?}"),
        }
    }
    let mut master = std::fs::File::from(master.expect("a master"));
    keeper.start().started();
    master.write_all(b"hello\n").unwrap();
    let mut text = Vec::new();
    let mut buffer = [0; 256];
    // Reading fails with EIO when the last user of the other end is gone.
    while let Ok(len @ 1..) = master.read(&mut buffer) {
        text.extend_from_slice(&buffer[..len]);
    }
    let text = String::from_utf8(text).unwrap();
    for expected in ["/dev/pts/0", "88,0", "33 99", "got hello"] {
        assert!(text.contains(expected), "{text}");
    }
    assert_eq!(answer.exited().code, 0);
    keeper.shut_down();
}

#[test]
fn a_user_without_privilege_has_containers_too() {
    let Some(bundle) = Bundle::new() else { return };
    let Ok(Some(user)) = nix::unistd::User::from_name("tester") else {
        println!("skipped: user tester");
        return;
    };
    let id = user.uid.as_raw();
    bundle.give_to(id);
    let map = |id: u32| std::ffi::CString::new(format!("0 {id} 1\n")).unwrap();
    let base = |scratch: Option<std::path::PathBuf>| {
        let mut plan = Plan::default();
        plan.namespaces(join::USER);
        plan.push(Stream::Parent, &Operation::DenySetgroups {});
        plan.push(Stream::Parent, &Operation::UidMap { map: &map(id) });
        plan.push(Stream::Parent, &Operation::GidMap { map: &map(id) });
        plan.child(&Operation::BecomeRoot {});
        match scratch {
            None => plan.filesystems(&bundle),
            Some(scratch) => {
                plan.child(&Operation::Propagation { flags: libc::MS_REC | libc::MS_SLAVE });
                plan.child(&Operation::OverlayRoot {
                    lower: &c(bundle.root()),
                    below: List::EMPTY,
                    changes: c"",
                    scratch: &c(scratch),
                });
                plan.usual()
            }
        };
        plan.mount(
            c"sysfs",
            c"/sys",
            &[],
            NOSUID | NODEV | NOEXEC | READ_ONLY,
            mount::STRICT_TARGET | mount::FALL_BACK_TO_BIND,
        );
        for path in [c"/proc/acpi", c"/proc/kcore"] {
            plan.child(&Operation::MaskPath { path });
        }
        plan.child(&Operation::ReadonlyPath { path: c"/proc/sys" });
        plan.child(&Operation::Pivot {}).output();
        plan.child(&Operation::BoundingCapabilities { mask: 1 << 10 });
        plan.child(&Operation::User {
            uid: 0,
            gid: 0,
            groups: locule_plan::Numbers::EMPTY,
            keep_groups: 1,
        });
        plan.program(&["sh", "-c", "id -u; echo x > /dev/null && echo written; stat -c %t,%T /dev/zero; echo y > /etc/changed; ls /sys | grep -c kernel"], true);
        plan
    };
    let expected = "0\nwritten\n1,5\n1\n";
    assert_eq!(run(As::User(id), &bundle, base(None)), expected);
    let _ = std::fs::remove_file(bundle.state().join("control"));
    std::fs::create_dir(bundle.path("scratch")).unwrap();
    assert_eq!(std::fs::read_to_string(bundle.root().join("etc/changed")).unwrap(), "y\n");
    assert_eq!(run(As::User(id), &bundle, base(Some(bundle.path("scratch")))), expected);
}

#[test]
fn the_hosts_sysfs_is_shown_read_only_with_all_below_it() {
    let Some(bundle) = Bundle::new() else { return };
    let id = 54321;
    bundle.give_to(id);
    let map = std::ffi::CString::new(format!("0 {id} 1\n")).unwrap();
    let mut plan = Plan::default();
    // Not NETWORK: so the kernel refuses a sysfs of its own.
    let flags = join::MOUNT | join::PID | join::UTS | join::IPC | join::USER;
    plan.push(Stream::Launch, &Operation::NewNamespaces { flags });
    plan.push(Stream::Parent, &Operation::DenySetgroups {});
    plan.push(Stream::Parent, &Operation::UidMap { map: &map });
    plan.push(Stream::Parent, &Operation::GidMap { map: &map });
    plan.child(&Operation::BecomeRoot {}).filesystems(&bundle);
    let strict = mount::STRICT_TARGET | mount::FALL_BACK_TO_BIND;
    plan.mount(c"sysfs", c"/sys", &[], NOSUID | NODEV | NOEXEC, strict);
    plan.child(&Operation::Pivot {}).output();
    let script = "grep -c ' /sys' /proc/self/mountinfo >/dev/null && echo some
        grep ' /sys' /proc/self/mountinfo | grep -v ' ro,'; echo all";
    plan.program(&["sh", "-c", script], true);
    assert_eq!(run(As::User(id), &bundle, plan), "some\nall\n");
}

#[test]
fn a_user_without_privilege_executes_in_a_container() {
    let Some(bundle) = Bundle::new() else { return };
    let Ok(Some(user)) = nix::unistd::User::from_name("tester") else {
        println!("skipped: user tester");
        return;
    };
    let id = user.uid.as_raw();
    bundle.give_to(id);
    let map = std::ffi::CString::new(format!("0 {id} 1\n")).unwrap();
    let mut plan = Plan::default();
    plan.namespaces(join::USER);
    plan.push(Stream::Parent, &Operation::DenySetgroups {});
    plan.push(Stream::Parent, &Operation::UidMap { map: &map });
    plan.push(Stream::Parent, &Operation::GidMap { map: &map });
    plan.child(&Operation::BecomeRoot {});
    plan.filesystems(&bundle).child(&Operation::Pivot {}).program(&["sleep", "1000"], true);
    let keeper = Keeper::new(As::User(id));
    let answer = keeper.create(&bundle, &plan.finish(), 0, &[]);
    let (_, init) = answer.created();
    keeper.start().started();

    let mut plan = Plan::default();
    let target = plan.slot();
    let kinds = join::PID | join::MOUNT | join::UTS | join::IPC | join::NETWORK;
    plan.push(Stream::Launch, &Operation::ThroughUserNamespace { slot: target, kinds });
    plan.child(&Operation::BecomeRoot {}).output();
    plan.program(&["sh", "-c", "id -u; cat /proc/1/comm; test $$ != 1 && exit 4"], false);
    let (output, input) = pipe();
    let exec = keeper.exec(&plan.finish(), &[init.as_raw_fd(), input.as_raw_fd()]);
    drop(input);
    exec.started();
    assert_eq!(read_all(output), "0\nsleep\n");
    assert_eq!(exec.exited().code, 4);
    keeper.shut_down();
}

#[test]
fn the_hosts_root_is_overlaid_name_by_name() {
    for user in [false, true] {
        let Some(bundle) = Bundle::new() else { return };
        let mut plan = Plan::default();
        let mut who = As::Root;
        plan.namespaces(if user { join::USER } else { 0 });
        if user {
            let Ok(Some(user)) = nix::unistd::User::from_name("tester") else {
                println!("skipped: user tester");
                return;
            };
            let id = user.uid.as_raw();
            who = As::User(id);
            bundle.give_to(id);
            let map = std::ffi::CString::new(format!("0 {id} 1\n")).unwrap();
            plan.push(Stream::Parent, &Operation::DenySetgroups {});
            plan.push(Stream::Parent, &Operation::UidMap { map: &map });
            plan.push(Stream::Parent, &Operation::GidMap { map: &map });
            plan.child(&Operation::BecomeRoot {});
        }
        let scratch = bundle.path("scratch");
        std::fs::create_dir(&scratch).unwrap();
        let scratch = c(scratch);
        plan.child(&Operation::Propagation { flags: libc::MS_REC | libc::MS_SLAVE });
        plan.child(&Operation::OverlayRootByEntry { scratch: &scratch });
        for entry in std::fs::read_dir("/").unwrap() {
            let entry = entry.unwrap();
            let path = c(entry.path());
            let name = entry.file_name();
            if ["proc", "dev", "sys"].iter().any(|special| name == *special) {
                continue;
            }
            match std::fs::read_link(entry.path()) {
                Ok(target) => {
                    plan.child(&Operation::Symlink { path: &path, target: &c(target) });
                }
                Err(_) => {
                    plan.child(&Operation::OverlayEntry { name: &path });
                }
            }
        }
        plan.usual().child(&Operation::Pivot {}).output();
        let script = "id -u; test -d /upper || echo hidden; echo x > /newfile && echo new; \
            test -x /bin/busybox && cd /usr && ls -d bin; \
            if test -w /usr; then echo y > /usr/changed && cat /usr/changed; else echo y; fi";
        plan.program(&["sh", "-c", script], true);
        assert_eq!(run(who, &bundle, plan), "0\nhidden\nnew\nbin\ny\n");
        assert!(!std::path::Path::new("/usr/changed").exists());
        assert!(!std::path::Path::new("/newfile").exists());
    }
}

#[test]
fn a_time_namespace_has_its_offsets() {
    let Some(bundle) = Bundle::new() else { return };
    let mut plan = Plan::default();
    plan.namespaces(0);
    plan.child(&Operation::NewTimeNamespace { offsets: c"boottime 864000000 0\n" });
    plan.filesystems(&bundle).child(&Operation::Pivot {}).output();
    plan.program(
        &["sh", "-c", "read up rest < /proc/uptime; test ${up%.*} -gt 864000000 && echo later"],
        true,
    );
    assert_eq!(run(As::Root, &bundle, plan), "later\n");
}

#[test]
fn a_seccomp_filter_is_installed_last() {
    let Some(bundle) = Bundle::new() else { return };
    let mut plan = Plan::default();
    plan.namespaces(0).filesystems(&bundle).child(&Operation::Pivot {}).output();
    // mkdir(2) answers EDOM.
    let filter: Vec<u8> = [
        (0x20u16, 0u8, 0u8, 0u32),
        (0x15, 0, 1, libc::SYS_mkdir as u32),
        (0x06, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EDOM as u32),
        (0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
    .into_iter()
    .flat_map(|(code, jt, jf, k)| {
        let mut bytes = code.to_le_bytes().to_vec();
        bytes.extend([jt, jf]);
        bytes.extend(k.to_le_bytes());
        bytes
    })
    .collect();
    plan.child(&Operation::NoNewPrivileges {});
    plan.child(&Operation::Seccomp { flags: 0, program: &filter });
    plan.program(&["sh", "-c", "mkdir /tmp/x 2>&1 | grep -o 'Numerical.*'"], true);
    let text = run(As::Root, &bundle, plan);
    assert!(text.contains("Numerical argument out of domain"), "{text}");
}

#[test]
fn root_gives_a_container_ids_of_its_own() {
    let Some(bundle) = Bundle::new() else { return };
    bundle.give_to(100_000);
    let map = c"0 100000 65536\n";
    let mut plan = Plan::default();
    plan.namespaces(join::USER);
    plan.push(Stream::Parent, &Operation::UidMap { map });
    plan.push(Stream::Parent, &Operation::GidMap { map });
    plan.push(Stream::Parent, &Operation::OomScoreAdj { value: 10 });
    plan.child(&Operation::BecomeRoot {});
    plan.child(&Operation::NewTimeNamespace { offsets: c"boottime 864000000 0\n" });
    plan.filesystems(&bundle).child(&Operation::Pivot {});
    plan.child(&Operation::OomScoreAdj { value: 20 });
    plan.child(&Operation::Sysctl { name: c"net/ipv4/ip_forward", value: c"1" });
    plan.output();
    let groups: OwnedNumbers = [5].into_iter().collect();
    let groups = groups.as_numbers();
    plan.child(&Operation::User { uid: 7, gid: 8, groups, keep_groups: 0 });
    let script = "id -u; id -G; cat /proc/self/oom_score_adj /proc/sys/net/ipv4/ip_forward; \
        read up rest < /proc/uptime; test ${up%.*} -gt 864000000 && echo later; \
        stat -c %u /bin/sh; touch /bin/x 2>/dev/null || echo refused";
    plan.program(&["sh", "-c", script], true);
    assert_eq!(run(As::Root, &bundle, plan), "7\n8 5\n20\n1\nlater\n0\nrefused\n");
}

/// Every write below /proc goes to a procfs that nothing can be mounted over. Without
/// RESOLVE_NO_XDEV in procfs::open, and with the container's /proc in place of a private one, this
/// fails (CVE-2019-16884, CVE-2025-52881): the decoys are written to, and nothing is set.
#[test]
fn what_is_mounted_over_proc_takes_no_setting() {
    let Some(bundle) = Bundle::new() else { return };
    let decoys = ["offsets", "score", "msgmax", "label"];
    for name in decoys {
        std::fs::write(bundle.path(name), "").unwrap();
    }
    let mut plan = Plan::default();
    plan.namespaces(0).filesystems(&bundle);
    plan.bind(&c(bundle.path("offsets")), c"/proc/self/timens_offsets", 0, 0);
    plan.bind(&c(bundle.path("score")), c"/proc/self/oom_score_adj", 0, 0);
    plan.bind(&c(bundle.path("msgmax")), c"/proc/sys/kernel/msgmax", 0, 0);
    plan.bind(&c(bundle.path("label")), c"/proc/self/attr/exec", 0, 0);
    plan.child(&Operation::Pivot {});
    plan.child(&Operation::NewTimeNamespace { offsets: c"boottime 1000000 0\n" });
    plan.child(&Operation::OomScoreAdj { value: 123 });
    plan.child(&Operation::Sysctl { name: c"kernel/msgmax", value: c"4321" });
    plan.output();
    let script = "read up rest < /proc/uptime; test ${up%.*} -gt 1000000 && echo later
        for file in 1/oom_score_adj sys/kernel/msgmax; do
            busybox umount /proc/$file && cat /proc/$file; done";
    plan.program(&["sh", "-c", script], true);
    assert_eq!(run(As::Root, &bundle, plan), "later\n123\n4321\n");
    // Without a security module that takes it a label is an error, not one for the decoy.
    let mut plan = Plan::default();
    plan.namespaces(0).filesystems(&bundle);
    plan.bind(&c(bundle.path("label")), c"/proc/self/attr/exec", 0, 0);
    plan.child(&Operation::Pivot {});
    plan.child(&Operation::SecurityLabel { kind: 1, label: c"no:such:label:s0" });
    plan.program(&["true"], true);
    let keeper = Keeper::new(As::Root);
    keeper.create(&bundle, &plan.finish(), 0, &[]).failure();
    for name in decoys {
        assert_eq!(std::fs::read_to_string(bundle.path(name)).unwrap(), "", "{name}");
    }
}
