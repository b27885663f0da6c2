//! A tiny machine for the BPF that seccomp programs are made of, so that tests can ask what a
//! program says without installing it.

/// What the kernel shows a filter of a call.
pub(super) struct Call {
    pub number: i64,
    pub arch: u32,
    pub args: [u64; 6],
}

/// Runs a program; the result is a `SECCOMP_RET_*` value.
pub(super) fn run(program: &[u8], call: &Call) -> u32 {
    let mut data = Vec::new();
    data.extend_from_slice(&(call.number as u32).to_ne_bytes());
    data.extend_from_slice(&call.arch.to_ne_bytes());
    data.extend_from_slice(&0_u64.to_ne_bytes());
    for arg in call.args {
        data.extend_from_slice(&arg.to_ne_bytes());
    }
    let word = |at: usize| u32::from_ne_bytes(data[at..at + 4].try_into().unwrap());
    assert_eq!(program.len() % 8, 0, "a program is whole instructions");
    let (mut counter, mut value) = (0, 0_u32);
    loop {
        let instruction = &program[counter * 8..counter * 8 + 8];
        let code = u16::from_ne_bytes(instruction[..2].try_into().unwrap());
        let (yes, no) = (usize::from(instruction[2]), usize::from(instruction[3]));
        let k = u32::from_ne_bytes(instruction[4..].try_into().unwrap());
        counter += 1;
        let mut jump = |condition: bool| counter += if condition { yes } else { no };
        match code {
            0x20 => value = word(k as usize), // load a word
            0x54 => value &= k,               // and
            0x05 => counter += k as usize,    // jump
            0x15 => jump(value == k),
            0x25 => jump(value > k),
            0x35 => jump(value >= k),
            0x45 => jump(value & k != 0),
            0x06 => return k,
            other => panic!("instruction {other:#x} is not of seccomp's kind"),
        }
    }
}
