//! The keeper executable, as bytes.
//!
//! A keeper is the small process that carries a plan out: it creates the container's first
//! process, stays its parent, and answers for it (see `locule_plan::protocol`). Its sources
//! are in `freestanding/`; the build script compiles them. The host writes [`IMAGE`] to a
//! sealed memfd and executes it with descriptor 3 as its socket.

/// The executable: a static ELF file for the target this crate was built for.
pub static IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/locule-keeper"));

#[cfg(test)]
mod tests {
    use super::IMAGE;

    fn word(at: usize, size: usize) -> usize {
        IMAGE[at..at + size].iter().rev().fold(0, |word, &byte| word << 8 | usize::from(byte))
    }

    #[test]
    fn the_image_is_a_small_static_elf_without_interpreter() {
        const EXECUTABLE: usize = 2;
        const INTERPRETER: usize = 3;
        const DYNAMIC: usize = 2;
        const STACK: usize = 0x6474_e551;
        assert_eq!(&IMAGE[..5], b"\x7fELF\x02");
        assert_eq!(word(16, 2), EXECUTABLE);
        let (table, size, count) = (word(32, 8), word(54, 2), word(56, 2));
        let mut stack_flags = None;
        for entry in (0..count).map(|index| table + index * size) {
            let (kind, flags) = (word(entry, 4), word(entry + 4, 4));
            assert!(kind != INTERPRETER && kind != DYNAMIC, "segment of type {kind}");
            assert_ne!(flags & 3, 3, "a segment is writable and executable");
            if kind == STACK {
                stack_flags = Some(flags);
            }
        }
        assert_eq!(stack_flags, Some(6), "the stack is not executable");
        assert!(IMAGE.len() < 128 << 10, "{} bytes", IMAGE.len());
    }
}
