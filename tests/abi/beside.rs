//! Another Rust library in the same program, with its own copy of the standard library.

#[unsafe(no_mangle)]
pub extern "C" fn beside() -> i32 {
    std::panic::catch_unwind(|| std::env::args().map(|arg| arg.len() as i32).sum()).unwrap_or(-1)
}
