//! What plugins say, and what there is to say about them: an event of `tracing`, and a call of who
//! listens to the plugins of a runtime.

use std::fmt;
use std::sync::Arc;

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For who looks for a fault.
    Debug,
    /// What goes on.
    Info,
    /// What is not as it should be.
    Warn,
    /// What has failed.
    Error,
}

/// A line about a container.
#[derive(Debug, Clone, Copy)]
pub struct Said<'a> {
    /// How much it matters.
    pub level: Level,
    /// The plugin's name.
    pub plugin: &'a str,
    /// The container's id; empty while the plugin is configured.
    pub id: &'a str,
    /// The line.
    pub message: &'a str,
}

/// Who listens, on the thread on which a plugin is called.
#[derive(Clone)]
pub(super) struct Listener(pub(super) Arc<dyn Fn(&Said<'_>) + Send + Sync>);

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}

/// Says it.
pub(super) fn say(listener: Option<&Listener>, said: &Said<'_>) {
    let Said { plugin, id, message, .. } = *said;
    match said.level {
        Level::Debug => tracing::debug!(plugin, id, "{message}"),
        Level::Info => tracing::info!(plugin, id, "{message}"),
        Level::Warn => tracing::warn!(plugin, id, "{message}"),
        Level::Error => tracing::error!(plugin, id, "{message}"),
    }
    if let Some(Listener(listen)) = listener {
        listen(said);
    }
}
