//! The host's log, which everybody may write to. The host adds the plugin's name and the container,
//! and leaves out what is over the limit for a call.

pub use crate::bindings::plugin::locule::plugin::log::{Level, emit};

/// A line for those who look for a fault.
pub fn debug(message: &str) {
    emit(Level::Debug, message);
}

/// A line of interest.
pub fn info(message: &str) {
    emit(Level::Info, message);
}

/// A line about what may need attention.
pub fn warn(message: &str) {
    emit(Level::Warn, message);
}

/// A line about what went wrong.
pub fn error(message: &str) {
    emit(Level::Error, message);
}
