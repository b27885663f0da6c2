//! Waiting for the next event, at the price of a few pages.
//!
//! A keeper that has nothing to do for a while gives its own code back: the pages are in the
//! image's page cache and come back with the first instruction that needs them. Only this
//! function must stay, so it has a page and a mapping of its own (the kernel maps the
//! neighbours of a page it brings in, up to the ends of the mapping), and it may not call
//! anything outside.

use crate::abi::EpollEvent;
use crate::arch::{number as nr, stack_pointer, syscall};
use crate::system::Raw;

/// How long a keeper stays in memory as a whole after it last had something to do.
const PATIENCE: usize = 200;
const MADV_DONTNEED: usize = 4;

unsafe extern "C" {
    /// Bounds of everything that can be read and executed but this function; see `keeper.ld`.
    static text_start: u8;
    static text_end: u8;
}

/// How much of the stack below may have been touched by work of the past.
const OLD_STACK: usize = 128 << 10;
/// More than any ABI lets a function use below its stack pointer.
const RED_ZONE: usize = 256;
const PAGE: usize = 4096;

/// Waits for one event, and `true`, or a signal that ended the wait. `plan` is memory that
/// can be given back as well: a mapped file, or nothing.
pub fn wait(epoll: Raw, event: &mut EpollEvent, plan: &'static [u8]) -> bool {
    let text = &raw const text_start as usize;
    let text_len = &raw const text_end as usize - text;
    let ranges = [(text, text_len), (plan.as_ptr() as usize & !(PAGE - 1), plan.len())];
    stay(epoll, event, &ranges)
}

#[inline(never)]
#[unsafe(link_section = ".idle")]
fn stay(epoll: Raw, event: &mut EpollEvent, ranges: &[(usize, usize); 2]) -> bool {
    let mut timeout = PATIENCE;
    loop {
        let arguments = [epoll as usize, &raw mut *event as usize, 1, timeout, 0, 8];
        // SAFETY: room for one event is there.
        match unsafe { syscall(nr::EPOLL_PWAIT, arguments) } {
            0 => {}
            count => return count == 1,
        }
        // Below the stack pointer is nothing but what this function may keep there.
        let stack_end = (stack_pointer() - RED_ZONE) & !(PAGE - 1);
        for (start, len) in [ranges[0], ranges[1], (stack_end - OLD_STACK, OLD_STACK)] {
            if len != 0 {
                // SAFETY: the text and the plan are file pages nobody writes to, which come
                // back unchanged; the stack below this frame holds nothing alive.
                unsafe { syscall(nr::MADVISE, [start, len, MADV_DONTNEED, 0, 0, 0]) };
            }
        }
        timeout = usize::MAX;
    }
}
