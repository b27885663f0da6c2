//! Device rules as a BPF program of type `BPF_PROG_TYPE_CGROUP_DEVICE`. Pure.
//!
//! The rules are tried from the last to the first. A register holds the accesses that no rule
//! has decided yet: a rule that allows takes its own away, and none left means yes; a rule that
//! denies one that is left means no.

use super::{ALL, Kind, Rule};

/// One instruction, as `struct bpf_insn` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    pub(super) code: u8,
    /// Destination in the low four bits, source in the high four.
    pub(super) registers: u8,
    pub(super) offset: i16,
    pub(super) immediate: i32,
}

/// `BPF_LDX | BPF_MEM | BPF_W`
pub(super) const LOAD_WORD: u8 = 0x61;
/// `BPF_ALU64 | BPF_MOV | BPF_K`
pub(super) const MOVE: u8 = 0xb7;
/// `BPF_ALU64 | BPF_MOV | BPF_X`
pub(super) const MOVE_REGISTER: u8 = 0xbf;
/// `BPF_ALU | BPF_AND | BPF_K`
pub(super) const AND: u8 = 0x54;
/// `BPF_ALU | BPF_RSH | BPF_K`
pub(super) const SHIFT_RIGHT: u8 = 0x74;
/// `BPF_JMP32 | BPF_JNE | BPF_K` (Linux 5.1): the numbers are unsigned 32 bit, which the
/// 64-bit form would sign-extend.
pub(super) const JUMP_NOT_EQUAL: u8 = 0x56;
/// `BPF_JMP32 | BPF_JSET | BPF_K`
pub(super) const JUMP_ANY_BIT: u8 = 0x46;
/// `BPF_JMP | BPF_JA`
pub(super) const JUMP: u8 = 0x05;
/// `BPF_JMP | BPF_EXIT`
pub(super) const EXIT: u8 = 0x95;

/// Result, and registers of the program: kind, open accesses, major, minor.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const OPEN: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const fn op(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: to | from << 4, offset, immediate }
}

/// The program for the rules, of which none means "deny".
pub(super) fn assemble(rules: &[Rule]) -> Vec<Instruction> {
    let mut program = vec![
        // struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }, the first being
        // access << 16 | kind.
        op(LOAD_WORD, KIND, CONTEXT, 0, 0),
        op(MOVE_REGISTER, OPEN, KIND, 0, 0),
        op(AND, KIND, 0, 0, 0xffff),
        op(SHIFT_RIGHT, OPEN, 0, 0, 16),
        op(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        op(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().rev() {
        append(rule, &mut program);
    }
    program.extend([op(MOVE, RESULT, 0, 0, 0), op(EXIT, 0, 0, 0, 0)]);
    program
}

fn append(rule: &Rule, program: &mut Vec<Instruction>) {
    let body: &[Instruction] = match (rule.allow, rule.access) {
        (true, ALL) => &[op(MOVE, RESULT, 0, 0, 1), op(EXIT, 0, 0, 0, 0)],
        (true, access) => &[
            op(AND, OPEN, 0, 0, i32::from(ALL & !access)),
            op(JUMP_ANY_BIT, OPEN, 0, 2, i32::from(ALL)),
            op(MOVE, RESULT, 0, 0, 1),
            op(EXIT, 0, 0, 0, 0),
        ],
        (false, ALL) => &[op(MOVE, RESULT, 0, 0, 0), op(EXIT, 0, 0, 0, 0)],
        (false, access) => &[
            op(JUMP_ANY_BIT, OPEN, 0, 1, i32::from(access)),
            op(JUMP, 0, 0, 2, 0),
            op(MOVE, RESULT, 0, 0, 0),
            op(EXIT, 0, 0, 0, 0),
        ],
    };
    // BPF_DEVCG_DEV_BLOCK and _CHAR.
    let kind = match rule.kind {
        Kind::Block => 1,
        Kind::Char => 2,
    };
    let tests = [(KIND, Some(kind)), (MAJOR, rule.major), (MINOR, rule.minor)];
    let tests: Vec<(u8, u32)> =
        tests.into_iter().filter_map(|(register, value)| Some((register, value?))).collect();
    for (index, (register, value)) in tests.iter().enumerate() {
        let past_the_rule = (tests.len() - index - 1 + body.len()) as i16;
        program.push(op(JUMP_NOT_EQUAL, *register, 0, past_the_rule, *value as i32));
    }
    program.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::super::{DEFAULTS, MKNOD, READ, WRITE, decide};
    use super::*;

    /// Runs a program as the kernel would, for the few instructions that we use.
    fn run(program: &[Instruction], kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        let kind = match kind {
            Kind::Block => 1,
            Kind::Char => 2,
        };
        let context = [u32::from(access) << 16 | kind, major, minor];
        let mut registers = [0u64; 11];
        let mut at = 0usize;
        for _ in 0..10_000 {
            let i = program[at];
            let (to, from) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            at += 1;
            match i.code {
                LOAD_WORD => registers[to] = context[i.offset as usize / 4].into(),
                MOVE => registers[to] = i.immediate as u64,
                MOVE_REGISTER => registers[to] = registers[from],
                AND => registers[to] = u64::from(registers[to] as u32 & i.immediate as u32),
                SHIFT_RIGHT => registers[to] = u64::from(registers[to] as u32 >> i.immediate),
                JUMP_NOT_EQUAL if registers[to] as u32 != i.immediate as u32 => {
                    at += i.offset as usize;
                }
                JUMP_ANY_BIT if registers[to] as u32 & i.immediate as u32 != 0 => {
                    at += i.offset as usize;
                }
                JUMP_NOT_EQUAL | JUMP_ANY_BIT => {}
                JUMP => at += i.offset as usize,
                EXIT => return registers[0] != 0,
                other => panic!("instruction {other:#x}"),
            }
        }
        panic!("endless");
    }

    fn agrees(rules: &[Rule]) {
        let program = assemble(rules);
        for kind in [Kind::Block, Kind::Char] {
            for (major, minor) in [(1, 3), (1, 4), (8, 0), (8, 3), (136, 5), (u32::MAX, u32::MAX)] {
                for access in 1..=ALL {
                    assert_eq!(
                        run(&program, kind, major, minor, access),
                        decide(rules, kind, major, minor, access),
                        "{kind:?} {major}:{minor} access {access} under {rules:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_program_decides_as_the_rules_do_for_every_pair_of_rules() {
        let mut every = Vec::new();
        for allow in [false, true] {
            for kind in [Kind::Block, Kind::Char] {
                for major in [None, Some(8), Some(u32::MAX)] {
                    for minor in [None, Some(3)] {
                        for access in [MKNOD, READ, READ | WRITE, ALL] {
                            every.push(Rule { allow, kind, major, minor, access });
                        }
                    }
                }
            }
        }
        agrees(&[]);
        for first in &every {
            agrees(&[*first]);
            for second in &every {
                agrees(&[*first, *second]);
                agrees(&[DEFAULTS[0], *first, *second, DEFAULTS[2]]);
            }
        }
    }

    #[test]
    fn the_program_for_the_defaults_is_short() {
        agrees(&DEFAULTS);
        assert!(assemble(&DEFAULTS).len() < 80);
    }
}
