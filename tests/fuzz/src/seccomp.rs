//! Seccomp profiles. A program that comes out is one that the kernel takes.

use locule::{seccomp, spec};

use crate::plan;

/// One profile is a few dozen bytes a rule; libseccomp is slow with many, and not ours.
const LONGEST: usize = 64 << 10;

pub fn run(json: &[u8]) {
    if json.len() > LONGEST {
        return;
    }
    let mut config = br#"{"ociVersion":"1.3.0","root":{"path":"r"},"linux":{"seccomp":"#.to_vec();
    config.extend_from_slice(json);
    config.extend_from_slice(b"}}");
    let Ok(parsed) = spec::parse(&config) else { return };
    let Some(profile) = parsed.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()) else {
        return;
    };
    let valid = spec::validate(&parsed).is_ok();
    match seccomp::compile(profile) {
        Ok(program) => {
            check(&program.bpf);
            assert_eq!(seccomp::compile(profile).expect("as before"), program);
            let cache = seccomp::Cache::new();
            assert_eq!(cache.get(profile).expect("as before"), program);
        }
        Err(error) => {
            plan::check_error(&error);
            assert!(!valid || error.pointer().is_some(), "no pointer: {error}");
        }
    }
}

/// What `seccomp_check_filter` of the kernel asks: known instructions, loads from
/// `struct seccomp_data`, jumps forward and inside, and an answer at the end.
fn check(bpf: &[u8]) {
    const DATA: u32 = 64;
    assert!(!bpf.is_empty() && bpf.len() % 8 == 0 && bpf.len() / 8 <= 4096, "{} bytes", bpf.len());
    let count = bpf.len() / 8;
    let mut last = 0;
    for (at, op) in bpf.chunks_exact(8).enumerate() {
        let code = u16::from_ne_bytes([op[0], op[1]]);
        let (yes, no) = (usize::from(op[2]), usize::from(op[3]));
        let k = u32::from_ne_bytes([op[4], op[5], op[6], op[7]]);
        match code {
            0x20 => assert!(k < DATA && k % 4 == 0, "loads from {k}"),
            0x54 => {}
            0x05 => assert!((k as usize) < count - at - 1, "jumps out"),
            0x15 | 0x25 | 0x35 | 0x45 => assert!(at + 1 + yes.max(no) < count, "jumps out"),
            0x06 => {}
            other => panic!("instruction {other:#x}"),
        }
        last = code;
    }
    assert_eq!(last, 0x06, "the end is no answer");
}
