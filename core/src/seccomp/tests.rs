use std::time::Instant;

use oci_spec::runtime::{Arch, LinuxSeccomp};

use super::interpreter::{Call, run};
use super::*;
use crate::error::Category;

const ALLOW: u32 = 0x7fff_0000;
const KILL_THREAD: u32 = 0;
#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;

fn errno(number: i32) -> u32 {
    0x0005_0000 | number as u32
}

fn profile(json: &str) -> LinuxSeccomp {
    serde_json::from_str(json).unwrap()
}

fn compiled(json: &str) -> Program {
    compile(&profile(json)).unwrap().as_ref().clone()
}

/// What a program says to a call of this machine's architecture.
fn verdict(program: &Program, number: i64, args: &[u64]) -> u32 {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    run(&program.bpf, &Call { number, arch: NATIVE, args: all })
}

#[test]
fn every_action_becomes_the_kernels() {
    for (action, value) in [
        ("SCMP_ACT_KILL", 0),
        ("SCMP_ACT_KILL_THREAD", 0),
        ("SCMP_ACT_KILL_PROCESS", 0x8000_0000),
        ("SCMP_ACT_TRAP", 0x0003_0000),
        ("SCMP_ACT_ERRNO", errno(libc::EPERM)),
        ("SCMP_ACT_TRACE", 0x7ff0_0001),
        ("SCMP_ACT_LOG", 0x7ffc_0000),
        ("SCMP_ACT_NOTIFY", 0x7fc0_0000),
    ] {
        let program = compiled(&format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["getpid"],"action":"{action}"}}]}}"#
        ));
        assert_eq!(verdict(&program, libc::SYS_getpid, &[]), value, "{action}");
        assert_eq!(verdict(&program, libc::SYS_getppid, &[]), ALLOW, "{action}");
    }
}

#[test]
fn every_operator_compares() {
    for (op, values, yes, no) in [
        ("EQ", r#""value":5"#, 5, 6),
        ("NE", r#""value":5"#, 6, 5),
        ("LT", r#""value":5"#, 4, 5),
        ("LE", r#""value":5"#, 5, 6),
        ("GT", r#""value":5"#, 6, 5),
        ("GE", r#""value":5"#, 5, 4),
        ("GT", r#""value":4294967296"#, 1 << 33, 5),
        ("MASKED_EQ", r#""value":240,"valueTwo":16"#, 0x1f, 0x2f),
    ] {
        let program = compiled(&format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["getpid"],
                "action":"SCMP_ACT_ERRNO","errnoRet":7,
                "args":[{{"index":2,{values},"op":"SCMP_CMP_{op}"}}]}}]}}"#
        ));
        assert_eq!(verdict(&program, libc::SYS_getpid, &[0, 0, yes]), errno(7), "{op}");
        assert_eq!(verdict(&program, libc::SYS_getpid, &[0, 0, no]), ALLOW, "{op}");
    }
}

#[test]
fn conditions_on_different_arguments_must_all_hold() {
    let program = compiled(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["getpid"],"action":"SCMP_ACT_ERRNO",
            "args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":1,"value":2,"op":"SCMP_CMP_EQ"}]}]}"#,
    );
    assert_eq!(verdict(&program, libc::SYS_getpid, &[1, 2]), errno(1));
    assert_eq!(verdict(&program, libc::SYS_getpid, &[1, 3]), ALLOW);
}

#[test]
fn conditions_on_the_same_argument_are_alternatives() {
    let program = compiled(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["getpid"],"action":"SCMP_ACT_ERRNO",
            "args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]}]}"#,
    );
    for (value, expected) in [(1, errno(1)), (2, errno(1)), (3, ALLOW)] {
        assert_eq!(verdict(&program, libc::SYS_getpid, &[value]), expected);
    }
}

#[test]
fn unknown_names_are_skipped() {
    let program = compiled(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
            {"names":["from_the_future","read"],"action":"SCMP_ACT_ALLOW"}]}"#,
    );
    assert_eq!(verdict(&program, libc::SYS_read, &[]), ALLOW);
}

#[test]
fn a_rule_that_repeats_the_default_is_fine() {
    let program = compiled(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO"},
            {"names":["write"],"action":"SCMP_ACT_ALLOW"},{"names":["write"],"action":"SCMP_ACT_ALLOW"}]}"#,
    );
    assert_eq!(verdict(&program, libc::SYS_read, &[]), errno(libc::EPERM));
    assert_eq!(verdict(&program, libc::SYS_write, &[]), ALLOW);
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let json = |default: &str| {
        format!(
            r#"{{"defaultAction":"{default}","architectures":["SCMP_ARCH_NATIVE"],"syscalls":[
                {{"names":["read","openat2"],"action":"SCMP_ACT_ALLOW"}}]}}"#
        )
    };
    let (older, newer) = (libc::SYS_mount, libc::SYS_openat2 + 1);
    let program = compiled(&json("SCMP_ACT_ERRNO"));
    assert_eq!(verdict(&program, libc::SYS_openat2, &[]), ALLOW);
    assert_eq!(verdict(&program, older, &[]), errno(libc::EPERM));
    assert_eq!(verdict(&program, newer, &[]), errno(libc::ENOSYS));
    let program = compiled(&json("SCMP_ACT_KILL_PROCESS"));
    assert_eq!(verdict(&program, older, &[]), 0x8000_0000);
    assert_eq!(verdict(&program, newer, &[]), errno(libc::ENOSYS));
    let program = compiled(&json("SCMP_ACT_LOG"));
    assert_eq!(verdict(&program, newer, &[]), 0x7ffc_0000);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn listed_architectures_are_filtered_and_others_kill() {
    const I386: u32 = 0x4000_0003;
    const X32: i64 = 0x4000_0000;
    let call = |number, arch| Call { number, arch, args: [0; 6] };
    let rules = r#""syscalls":[{"names":["read","openat2"],"action":"SCMP_ACT_ALLOW"}]"#;
    let native = compiled(&format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO",{rules}}}"#));
    assert_eq!(run(&native.bpf, &call(3, I386)), KILL_THREAD);
    assert_eq!(run(&native.bpf, &call(X32, NATIVE)), KILL_THREAD);
    let all = compiled(&format!(
        r#"{{"defaultAction":"SCMP_ACT_ERRNO","architectures":
            ["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],{rules}}}"#
    ));
    assert_eq!(run(&all.bpf, &call(3, I386)), ALLOW);
    assert_eq!(run(&all.bpf, &call(0, I386)), errno(libc::EPERM));
    assert_eq!(run(&all.bpf, &call(438, I386)), errno(libc::ENOSYS));
    assert_eq!(run(&all.bpf, &call(X32, NATIVE)), ALLOW);
    assert_eq!(run(&all.bpf, &call(X32 + 1, NATIVE)), errno(libc::EPERM));
    assert_eq!(run(&all.bpf, &call(X32 + 438, NATIVE)), errno(libc::ENOSYS));
    assert_eq!(run(&all.bpf, &call(libc::SYS_read, NATIVE)), ALLOW);
    assert_eq!(run(&all.bpf, &call(libc::SYS_read, 0xc000_00b7)), KILL_THREAD);
}

#[test]
fn flags_default_to_allowing_speculation() {
    let flags =
        |flags: &str| compiled(&format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW"{flags}}}"#)).flags;
    assert_eq!(flags(""), 4);
    assert_eq!(flags(r#","flags":[]"#), 0);
    assert_eq!(flags(r#","flags":["SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_TSYNC"]"#), 2);
    assert_eq!(flags(r#","flags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]"#), 0);
}

#[test]
fn wrong_profiles_are_refused_with_the_pointer() {
    for (json, category, pointer) in [
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1}"#,
            Category::Spec,
            "/linux/seccomp/defaultErrnoRet",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL"},
                {"names":["read"],"action":"SCMP_ACT_TRAP","errnoRet":1}]}"#,
            Category::Spec,
            "/linux/seccomp/syscalls/1/errnoRet",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL",
                "args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]}]}"#,
            Category::Spec,
            "/linux/seccomp/syscalls/0/args/0/index",
        ),
    ] {
        let error = compile(&profile(json)).unwrap_err();
        assert_eq!((error.category(), error.pointer()), (category, Some(pointer)), "{json}");
    }
}

#[test]
fn a_profile_that_notifies_has_a_listener_and_the_flags_that_go_with_one() {
    let flags = |action: &str, flags: &str| {
        let json = format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","flags":[{flags}],
                "syscalls":[{{"names":["read"],"action":"{action}"}}]}}"#
        );
        compile(&profile(&json)).unwrap().flags
    };
    let all = r#""SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV","SECCOMP_FILTER_FLAG_TSYNC""#;
    let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let killable = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    assert_eq!(flags("SCMP_ACT_NOTIFY", ""), listener);
    assert_eq!(flags("SCMP_ACT_NOTIFY", all), listener | killable);
    assert_eq!(flags("SCMP_ACT_TRAP", all), 0);
}

#[test]
fn the_default_profile_allows_what_programs_need_and_stops_what_they_must_not_do() {
    let program = compile(&default_profile()).unwrap();
    let says = |number, args: &[u64]| verdict(&program, number, args);
    for number in [
        libc::SYS_read,
        libc::SYS_execve,
        libc::SYS_openat,
        libc::SYS_mmap,
        libc::SYS_futex,
        libc::SYS_wait4,
        libc::SYS_prctl,
        libc::SYS_getrandom,
        libc::SYS_statx,
        libc::SYS_rseq,
        libc::SYS_close_range,
        libc::SYS_ptrace,
        libc::SYS_chroot,
        libc::SYS_setgroups,
        libc::SYS_memfd_create,
        libc::SYS_sendmsg,
        libc::SYS_ppoll,
        libc::SYS_clock_nanosleep,
    ] {
        assert_eq!(says(number, &[]), ALLOW, "{number}");
    }
    for number in [
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_setns,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_kexec_load,
        libc::SYS_init_module,
        libc::SYS_reboot,
        libc::SYS_swapon,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_userfaultfd,
        libc::SYS_open_by_handle_at,
        libc::SYS_move_mount,
        libc::SYS_open_tree,
        libc::SYS_fsopen,
        libc::SYS_settimeofday,
        libc::SYS_sethostname,
    ] {
        assert_eq!(says(number, &[]), errno(libc::EPERM), "{number}");
    }
    for number in [libc::SYS_clone3, libc::SYS_io_uring_setup, 999] {
        assert_eq!(says(number, &[]), errno(libc::ENOSYS), "{number}");
    }
}

#[test]
fn the_default_profile_lets_no_namespace_be_made() {
    let program = compile(&default_profile()).unwrap();
    let thread = (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND) as u64;
    for number in [libc::SYS_clone, libc::SYS_unshare] {
        assert_eq!(verdict(&program, number, &[0]), ALLOW);
        for flag in [libc::CLONE_NEWNS, libc::CLONE_NEWUSER, libc::CLONE_NEWNET, libc::CLONE_NEWPID]
        {
            let refused = verdict(&program, number, &[thread | flag as u64]);
            assert_eq!(refused, errno(libc::EPERM), "{number} {flag:#x}");
        }
        let many = (libc::CLONE_NEWNS | libc::CLONE_NEWUSER | libc::CLONE_NEWCGROUP) as u64;
        assert_eq!(verdict(&program, number, &[many]), errno(libc::EPERM));
        let garbage = 1 << 40 | libc::CLONE_NEWUSER as u64;
        assert_eq!(verdict(&program, number, &[garbage]), errno(libc::EPERM));
    }
    assert_eq!(verdict(&program, libc::SYS_clone, &[thread | libc::SIGCHLD as u64]), ALLOW);
    assert_eq!(verdict(&program, libc::SYS_unshare, &[0x80]), errno(libc::EPERM));
}

#[test]
fn the_default_profile_limits_sockets_and_personalities() {
    let program = compile(&default_profile()).unwrap();
    let socket = |domain| verdict(&program, libc::SYS_socket, &[domain]);
    for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET]
    {
        assert_eq!(socket(family as u64), ALLOW, "{family}");
    }
    for domain in [libc::AF_VSOCK as u64, libc::AF_ALG as u64, 1 << 32 | libc::AF_VSOCK as u64] {
        assert_eq!(socket(domain), errno(libc::EAFNOSUPPORT), "{domain:#x}");
    }
    let personality = |persona| verdict(&program, libc::SYS_personality, &[persona]);
    assert_eq!(personality(0), ALLOW);
    assert_eq!(personality(0xffff_ffff), ALLOW);
    assert_ne!(personality(0x40000), ALLOW);
}

#[test]
fn a_program_of_the_default_profile_can_be_loaded_and_works() {
    let program = compile(&default_profile()).unwrap();
    assert!(program.bpf.len() / 8 <= 4096, "the kernel takes 4096 instructions");
    let mut filter = program.bpf.clone();
    let fprog =
        libc::sock_fprog { len: (filter.len() / 8) as u16, filter: filter.as_mut_ptr().cast() };
    // SAFETY: the child makes system calls only, on memory that was there before the fork.
    let status = unsafe {
        let child = libc::fork();
        assert!(child >= 0);
        if child == 0 {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            if libc::syscall(libc::SYS_seccomp, 1, program.flags, &fprog) != 0 {
                libc::_exit(1);
            }
            if libc::syscall(libc::SYS_keyctl, 0, 0, 0) != -1
                || *libc::__errno_location() != libc::EPERM
            {
                libc::_exit(2);
            }
            if libc::unshare(libc::CLONE_NEWUSER) != -1 || *libc::__errno_location() != libc::EPERM
            {
                libc::_exit(3);
            }
            if libc::syscall(libc::SYS_clone3, 0, 0) != -1
                || *libc::__errno_location() != libc::ENOSYS
            {
                libc::_exit(4);
            }
            if libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0) != -1
                || *libc::__errno_location() != libc::EAFNOSUPPORT
            {
                libc::_exit(5);
            }
            libc::_exit(if libc::getppid() > 0 { 0 } else { 6 });
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &mut status, 0), child);
        status
    };
    assert_eq!(status, 0);
}

#[test]
fn the_cache_compiles_a_profile_once() {
    let cache = Cache::new();
    let profile = default_profile();
    let first = cache.get(&profile).unwrap();
    let second = cache.get(&profile.clone()).unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &second));
    assert_eq!(cache.len(), 1);
}

#[test]
fn the_cache_forgets_what_was_used_longest_ago() {
    let cache = Cache::new();
    let nth = |n: u32| {
        profile(&format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
                {{"names":["getpid"],"action":"SCMP_ACT_ERRNO","errnoRet":{n}}}]}}"#
        ))
    };
    let first = cache.get(&nth(0)).unwrap();
    for n in 1..80 {
        cache.get(&nth(n)).unwrap();
        assert!(std::sync::Arc::ptr_eq(&first, &cache.get(&nth(0)).unwrap()), "{n}");
    }
    assert_eq!(cache.len(), 64);
}

#[test]
fn the_architectures_hold_this_one() {
    let native =
        if cfg!(target_arch = "x86_64") { Arch::ScmpArchX86_64 } else { Arch::ScmpArchAarch64 };
    assert!(architectures().contains(&native));
}

#[test]
fn profiles_that_engines_write_compile() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let shared = here
        .ancestors()
        .map(|dir| dir.join("shared/fixtures/engine-specs"))
        .find(|fixtures| fixtures.is_dir())
        .or_else(|| std::env::var_os("LOCULE_ENGINE_SPECS").map(Into::into));
    let Some(shared) = shared else {
        println!("skipped: shared/fixtures/engine-specs is missing");
        return;
    };
    for entry in std::fs::read_dir(shared).unwrap() {
        let path = entry.unwrap().path();
        let Ok(spec) = crate::spec::parse(&std::fs::read(&path).unwrap_or_default()) else {
            continue;
        };
        let Some(profile) = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()) else {
            continue;
        };
        let start = Instant::now();
        let program = compile(profile).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        println!(
            "{}: {} instructions, {:?}",
            path.display(),
            program.bpf.len() / 8,
            start.elapsed()
        );
        let says = |number, args: &[u64]| verdict(&program, number, args);
        assert_eq!(says(libc::SYS_execve, &[]), ALLOW);
        assert_eq!(says(libc::SYS_clone, &[libc::SIGCHLD as u64]), ALLOW);
        assert_eq!(says(4000, &[]), errno(libc::ENOSYS));
    }
}

/// Not a test: prints what compiling and looking up cost. Run with `--release -- --ignored`.
#[test]
#[ignore = "prints times, asserts nothing"]
fn times() {
    let profile = default_profile();
    let start = Instant::now();
    let program = compile(&profile).unwrap();
    if let Some(path) = std::env::var_os("LOCULE_BPF_OUT") {
        std::fs::write(path, &program.bpf).unwrap();
    }
    println!("compile: {:?}, {} instructions", start.elapsed(), program.bpf.len() / 8);
    let cache = Cache::new();
    cache.get(&profile).unwrap();
    let start = Instant::now();
    for _ in 0..1000 {
        cache.get(&profile).unwrap();
    }
    println!("cache hit: {:?}", start.elapsed() / 1000);
    let start = Instant::now();
    for _ in 0..1000 {
        default_profile();
    }
    println!("default profile: {:?}", start.elapsed() / 1000);
}
