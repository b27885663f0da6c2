//! One profile to one program, with libseccomp.

use std::fs::File;
use std::io::{Read, Seek};
use std::sync::{Arc, Mutex, PoisonError};

use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};
use nix::sys::memfd::{MFdFlags, memfd_create};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator, LinuxSyscall,
};

use super::{Program, unknown};
use crate::error::{Category, Error, Result, Stage};

const AT: &str = "/linux/seccomp";

/// Bytes of a BPF instruction, and `BPF_MAXINSNS`.
const INSTRUCTION: usize = 8;
const MOST_INSTRUCTIONS: usize = 4096;

/// libseccomp keeps what it learned about the kernel in unguarded globals.
static LIBSECCOMP: Mutex<()> = Mutex::new(());

/// The actions that [`compile`] takes.
pub const ACTIONS: [LinuxSeccompAction; 9] = [
    LinuxSeccompAction::ScmpActAllow,
    LinuxSeccompAction::ScmpActErrno,
    LinuxSeccompAction::ScmpActKill,
    LinuxSeccompAction::ScmpActKillProcess,
    LinuxSeccompAction::ScmpActKillThread,
    LinuxSeccompAction::ScmpActLog,
    LinuxSeccompAction::ScmpActNotify,
    LinuxSeccompAction::ScmpActTrace,
    LinuxSeccompAction::ScmpActTrap,
];

/// The operators that [`compile`] takes: all there are.
pub const OPERATORS: [LinuxSeccompOperator; 7] = [
    LinuxSeccompOperator::ScmpCmpEq,
    LinuxSeccompOperator::ScmpCmpGe,
    LinuxSeccompOperator::ScmpCmpGt,
    LinuxSeccompOperator::ScmpCmpLe,
    LinuxSeccompOperator::ScmpCmpLt,
    LinuxSeccompOperator::ScmpCmpMaskedEq,
    LinuxSeccompOperator::ScmpCmpNe,
];

/// The flags that have an effect.
pub const FLAGS: [LinuxSeccompFilterFlag; 4] = [
    LinuxSeccompFilterFlag::SeccompFilterFlagLog,
    LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow,
    LinuxSeccompFilterFlag::SeccompFilterFlagTsync,
    LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv,
];

/// Every architecture of the specification but the native one, and libseccomp's name for it.
const ARCHITECTURES: [(Arch, ScmpArch); 23] = [
    (Arch::ScmpArchX86, ScmpArch::X86),
    (Arch::ScmpArchX86_64, ScmpArch::X8664),
    (Arch::ScmpArchX32, ScmpArch::X32),
    (Arch::ScmpArchArm, ScmpArch::Arm),
    (Arch::ScmpArchAarch64, ScmpArch::Aarch64),
    (Arch::ScmpArchMips, ScmpArch::Mips),
    (Arch::ScmpArchMips64, ScmpArch::Mips64),
    (Arch::ScmpArchMips64n32, ScmpArch::Mips64N32),
    (Arch::ScmpArchMipsel, ScmpArch::Mipsel),
    (Arch::ScmpArchMipsel64, ScmpArch::Mipsel64),
    (Arch::ScmpArchMipsel64n32, ScmpArch::Mipsel64N32),
    (Arch::ScmpArchPpc, ScmpArch::Ppc),
    (Arch::ScmpArchPpc64, ScmpArch::Ppc64),
    (Arch::ScmpArchPpc64le, ScmpArch::Ppc64Le),
    (Arch::ScmpArchS390, ScmpArch::S390),
    (Arch::ScmpArchS390x, ScmpArch::S390X),
    (Arch::ScmpArchParisc, ScmpArch::Parisc),
    (Arch::ScmpArchParisc64, ScmpArch::Parisc64),
    (Arch::ScmpArchRiscv64, ScmpArch::Riscv64),
    (Arch::ScmpArchLoongarch64, ScmpArch::Loongarch64),
    (Arch::ScmpArchM68k, ScmpArch::M68k),
    (Arch::ScmpArchSh, ScmpArch::Sh),
    (Arch::ScmpArchSheb, ScmpArch::Sheb),
];

/// The architectures the libseccomp at hand can compile for.
pub fn architectures() -> Vec<Arch> {
    let _guard = LIBSECCOMP.lock().unwrap_or_else(PoisonError::into_inner);
    let known = |arch: ScmpArch| {
        ScmpFilterContext::new(ScmpAction::Allow).is_ok_and(|mut context| {
            // A context starts with the native one, and holds one byte order only.
            arch == ScmpArch::native()
                || context.remove_arch(ScmpArch::native()).is_ok() && context.add_arch(arch).is_ok()
        })
    };
    ARCHITECTURES.iter().filter(|(_, arch)| known(*arch)).map(|(arch, _)| *arch).collect()
}

/// Compiles a profile: milliseconds of work, so keep the result, or use a [`Cache`](super::Cache).
///
/// - The machine's own architecture is always covered; a call made in one that is not listed
///   kills the thread.
/// - Without `flags`, `SPEC_ALLOW` is set, as in runc: the mitigation it avoids costs every
///   program dear and protects only against itself.
/// - Names of calls that libseccomp does not know are skipped. A call that is newer than all
///   the profile names fails with ENOSYS, whatever the default action denies it with.
/// - Conditions on the same argument in one rule are alternatives.
///
/// # Errors
///
/// `Spec` with the pointer where the profile is wrong.
/// Any thread may call it; calls wait for each other.
pub fn compile(profile: &LinuxSeccomp) -> Result<Arc<Program>> {
    let _guard = LIBSECCOMP.lock().unwrap_or_else(PoisonError::into_inner);
    let default = action(
        profile.default_action(),
        profile.default_errno_ret(),
        &format!("{AT}/defaultErrnoRet"),
    )?;
    let mut context = ScmpFilterContext::new(default).map_err(|e| failed("start", AT, &e))?;
    let mut architectures = vec![ScmpArch::native()];
    for (index, arch) in profile.architectures().iter().flatten().enumerate() {
        let pointer = format!("{AT}/architectures/{index}");
        let Some((name, arch)) = ARCHITECTURES.iter().find(|(known, _)| known == arch) else {
            continue; // SCMP_ARCH_NATIVE
        };
        if !architectures.contains(arch) {
            context.add_arch(*arch).map_err(|error| {
                failed(&format!("add {name}"), &pointer, &error)
                    .hint("one filter has architectures of one byte order, the machine's, only")
            })?;
            architectures.push(*arch);
        }
    }
    // A binary tree instead of a list: with our default profile a call is judged in 16
    // instructions instead of 174, on average.
    // Older libraries cannot, and then it is slower, nothing else.
    let _ = context.set_ctl_optimize(2);

    let mut newest = unknown::Newest::new(&architectures);
    for (index, rule) in profile.syscalls().iter().flatten().enumerate() {
        add_rule(&mut context, &mut newest, rule, default, &format!("{AT}/syscalls/{index}"))?;
    }
    let mut bpf = export(&context)?;
    if denies(default) && default != ScmpAction::Errno(libc::ENOSYS) {
        bpf = unknown::prepend(&newest, bpf);
    }
    // Else the kernel says "invalid argument", when the program is to run.
    let instructions = bpf.len() / INSTRUCTION;
    if instructions > MOST_INSTRUCTIONS {
        let message = format!(
            "the profile makes a filter of {instructions} instructions, more than the kernel's \
             {MOST_INSTRUCTIONS}"
        );
        return Err(refused(message, AT));
    }
    Ok(Arc::new(Program { bpf, flags: flags(profile) }))
}

fn add_rule(
    context: &mut ScmpFilterContext,
    newest: &mut unknown::Newest,
    rule: &LinuxSyscall,
    default: ScmpAction,
    at: &str,
) -> Result<()> {
    let action = action(rule.action(), rule.errno_ret(), &format!("{at}/errnoRet"))?;
    let conditions = conditions(rule.args().as_deref().unwrap_or_default(), at)?;
    for (index, name) in rule.names().iter().enumerate() {
        let Ok(call) = ScmpSyscall::from_name(name) else {
            tracing::debug!(name, "skipping a system call that libseccomp does not know");
            continue;
        };
        newest.note(name);
        if action == default {
            continue; // libseccomp refuses a rule that changes nothing
        }
        let added = match &conditions[..] {
            [] => context.add_rule(action, call).map(drop),
            all => all
                .iter()
                .try_for_each(|one| context.add_rule_conditional(action, call, one).map(drop)),
        };
        added.map_err(|e| failed(&format!("add {name}"), &format!("{at}/names/{index}"), &e))?;
    }
    Ok(())
}

/// The conditions of a rule as alternatives, each a conjunction. libseccomp cannot compare one
/// argument twice in a rule; profiles that do so have always meant "one of these".
fn conditions(args: &[LinuxSeccompArg], at: &str) -> Result<Vec<Vec<ScmpArgCompare>>> {
    let mut all = Vec::with_capacity(args.len());
    for (index, arg) in args.iter().enumerate() {
        if arg.index() > 5 {
            return Err(refused(
                format!("a system call has no argument {}", arg.index()),
                &format!("{at}/args/{index}/index"),
            ));
        }
        all.push(condition(arg));
    }
    let repeated =
        (1..args.len()).any(|n| args[..n].iter().any(|earlier| earlier.index() == args[n].index()));
    Ok(match all.len() {
        0 => Vec::new(),
        _ if repeated => all.into_iter().map(|one| vec![one]).collect(),
        _ => vec![all],
    })
}

fn condition(arg: &LinuxSeccompArg) -> ScmpArgCompare {
    let (operator, value) = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpLt => (ScmpCompareOp::Less, arg.value()),
        LinuxSeccompOperator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, arg.value()),
        LinuxSeccompOperator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpGt => (ScmpCompareOp::Greater, arg.value()),
        // `value` is the mask here, and `valueTwo` what must remain.
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (ScmpCompareOp::MaskedEqual(arg.value()), arg.value_two().unwrap_or(0))
        }
    };
    ScmpArgCompare::new(arg.index() as u32, operator, value)
}

fn action(action: LinuxSeccompAction, errno: Option<u32>, errno_at: &str) -> Result<ScmpAction> {
    use LinuxSeccompAction::*;
    if let Some(errno) = errno {
        let limit = match action {
            ScmpActErrno => 4095,
            ScmpActTrace => u32::from(u16::MAX),
            _ => {
                let message = format!("{action} cannot carry an errno, but has {errno}");
                return Err(refused(message, errno_at));
            }
        };
        if errno > limit {
            let message = format!("{action} with {errno}: the greatest is {limit}");
            return Err(refused(message, errno_at));
        }
    }
    let errno = errno.unwrap_or(libc::EPERM as u32);
    Ok(match action {
        ScmpActKill | ScmpActKillThread => ScmpAction::KillThread,
        ScmpActKillProcess => ScmpAction::KillProcess,
        ScmpActTrap => ScmpAction::Trap,
        ScmpActErrno => ScmpAction::Errno(errno as i32),
        ScmpActTrace => ScmpAction::Trace(errno as u16),
        ScmpActLog => ScmpAction::Log,
        ScmpActAllow => ScmpAction::Allow,
        ScmpActNotify => ScmpAction::Notify,
    })
}

/// Whether a call that the profile does not know would be stopped. A tracer counts as one that
/// lets it pass: it can answer for itself.
fn denies(default: ScmpAction) -> bool {
    !matches!(default, ScmpAction::Allow | ScmpAction::Log | ScmpAction::Trace(_))
}

/// `SECCOMP_FILTER_FLAG_*` bits.
fn flags(profile: &LinuxSeccomp) -> u64 {
    use LinuxSeccompFilterFlag::*;
    let mut rules = profile.syscalls().iter().flatten();
    let notifies = rules.any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify);
    let listener = if notifies { libc::SECCOMP_FILTER_FLAG_NEW_LISTENER } else { 0 };
    let Some(flags) = profile.flags() else {
        return listener | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    };
    flags.iter().fold(listener, |bits, flag| {
        bits | match flag {
            // The process has one thread, and the kernel does not take it with a listener.
            SeccompFilterFlagTsync => 0,
            SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
            SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            // The kernel takes it only together with a listener.
            SeccompFilterFlagWaitKillableRecv if notifies => {
                libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
            }
            SeccompFilterFlagWaitKillableRecv => 0,
        }
    })
}

/// The program's bytes. The library can only write to a descriptor (before 2.6).
fn export(context: &ScmpFilterContext) -> Result<Vec<u8>> {
    let io = |e: std::io::Error| Error::io(Stage::Seccomp, &e, "export the seccomp program");
    let fd = memfd_create(c"locule-seccomp", MFdFlags::MFD_CLOEXEC).map_err(|e| {
        Error::os(Stage::Seccomp, e as i32, "create a memfd for the seccomp program")
    })?;
    let mut file = File::from(fd);
    context.export_bpf(&file).map_err(|e| failed("export", AT, &e))?;
    file.rewind().map_err(io)?;
    let mut bpf = Vec::new();
    file.read_to_end(&mut bpf).map_err(io)?;
    Ok(bpf)
}

fn refused(message: String, at: &str) -> Error {
    Error::new(Category::Spec, Stage::Seccomp, message).at(at)
}

fn failed(what: &str, at: &str, error: &libseccomp::error::SeccompError) -> Error {
    refused(format!("libseccomp: {what}: {error}"), at)
}
