//! Handles: opaque objects with an atomic reference count, shared between C and Rust.

use std::sync::Arc;

/// Moves a value behind a handle with one reference, which is the caller's.
pub(crate) fn new<T: Send + Sync>(value: T) -> *mut T {
    Arc::into_raw(Arc::new(value)).cast_mut()
}

/// Takes another reference. NULL stays NULL.
///
/// # Safety
/// `handle` is NULL or came from [`new`] and has not been released for the last time.
pub(crate) unsafe fn acquire<T>(handle: *mut T) -> *mut T {
    if !handle.is_null() {
        // SAFETY: the pointer came from `Arc::into_raw` and the caller holds a reference.
        unsafe { Arc::increment_strong_count(handle) };
    }
    handle
}

/// Gives a reference back. NULL is ignored.
///
/// # Safety
/// As for [`acquire`]; the caller gives up one reference that it owns.
pub(crate) unsafe fn release<T>(handle: *mut T) {
    if !handle.is_null() {
        // SAFETY: the pointer came from `Arc::into_raw` and this reference is the caller's.
        unsafe { Arc::decrement_strong_count(handle) };
    }
}
