//! ENOSYS for system calls that are newer than a profile.
//!
//! A profile that denies what it does not name was written when there were fewer calls. A C
//! library that tries a newer one and gets EPERM takes it for the answer; with ENOSYS it falls
//! back to the older call. So a few instructions in front of libseccomp's program answer ENOSYS
//! to every number above the greatest one that the profile names.

use libseccomp::{ScmpArch, ScmpSyscall};

/// Bit in the number of a call made with the x32 ABI, which x86-64's `AUDIT_ARCH` covers too.
const X32: u32 = 0x4000_0000;

/// The greatest number a profile names, for each architecture.
pub(super) struct Newest(Vec<(ScmpArch, u32)>);

impl Newest {
    pub(super) fn new(architectures: &[ScmpArch]) -> Self {
        Newest(architectures.iter().map(|arch| (*arch, 0)).collect())
    }

    /// Takes a call of the profile into account.
    pub(super) fn note(&mut self, name: &str) {
        for (arch, newest) in &mut self.0 {
            // Negative numbers stand for calls the architecture does not have.
            let number = ScmpSyscall::from_name_by_arch(name, *arch).map(i32::from).unwrap_or(-1);
            *newest = (*newest).max(u32::try_from(number).unwrap_or(0));
        }
    }
}

/// `AUDIT_ARCH_*` of the architectures this library runs on. On others a newer call gets what
/// the profile says.
fn audit_arch(arch: ScmpArch) -> Option<u32> {
    match arch {
        ScmpArch::X8664 | ScmpArch::X32 => Some(0xc000_003e),
        ScmpArch::X86 => Some(0x4000_0003),
        ScmpArch::Aarch64 => Some(0xc000_00b7),
        ScmpArch::Arm => Some(0x4000_0028),
        _ => None,
    }
}

/// Puts the check in front of a program.
pub(super) fn prepend(newest: &Newest, program: Vec<u8>) -> Vec<u8> {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
    const AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const NUMBER: u32 = 0; // offsets in struct seccomp_data
    const ARCH: u32 = 4;
    const ENOSYS: u32 = 0x0005_0000 | libc::ENOSYS as u32; // SECCOMP_RET_ERRNO

    let mut check = Vec::new();
    let mut emit = |code: u16, yes: u8, no: u8, k: u32| {
        check.extend_from_slice(&code.to_ne_bytes());
        check.extend_from_slice(&[yes, no]);
        check.extend_from_slice(&k.to_ne_bytes());
    };
    // One block for each architecture that skips itself and falls through to the next.
    for (arch, newest) in &newest.0 {
        let Some(audit) = audit_arch(*arch) else { continue };
        emit(LOAD, 0, 0, ARCH);
        match arch {
            ScmpArch::X8664 => {
                emit(EQUAL, 0, 4, audit);
                emit(LOAD, 0, 0, NUMBER);
                emit(AT_LEAST, 2, 0, X32);
                emit(GREATER, 0, 1, *newest);
                emit(RETURN, 0, 0, ENOSYS);
            }
            ScmpArch::X32 => {
                emit(EQUAL, 0, 3, audit);
                emit(LOAD, 0, 0, NUMBER);
                emit(GREATER, 0, 1, *newest | X32);
                emit(RETURN, 0, 0, ENOSYS);
            }
            _ => {
                emit(EQUAL, 0, 3, audit);
                emit(LOAD, 0, 0, NUMBER);
                emit(GREATER, 0, 1, *newest);
                emit(RETURN, 0, 0, ENOSYS);
            }
        }
    }
    check.extend_from_slice(&program);
    check
}
