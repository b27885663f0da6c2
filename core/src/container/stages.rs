//! Where plugins come in: what they are called with at each stage of a container, and what becomes
//! of their changes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};

use super::configuration::Configuration;
use super::process::Exit;
use super::state_dir::{StateDir, lock_within};
use super::{Container, Runtime};
use crate::plugin::{Adjusted, Change, Plugins, Stage, Subject, log};
use crate::spec::{oci, process_to_json};
use crate::{Category, Error, Result};

/// In the state directory, beside the containers, whose ids have no such character.
const STORAGE: &str = "@plugins";
/// In a container's directory: plugins have been told that it has stopped.
const TOLD: &str = "stopped";

fn subject(runtime: &Runtime, id: &str, bundle: &Path) -> Subject {
    Subject {
        id: id.to_owned(),
        bundle: bundle.to_owned(),
        storage: Some(runtime.0.state_dir.join(STORAGE)),
        ..Subject::default()
    }
}

/// The configuration as plugins have made it, and what they have changed.
pub(super) fn create(
    runtime: &Runtime,
    id: &str,
    bundle: &Path,
    configuration: Arc<Configuration>,
) -> Result<(Arc<Configuration>, Vec<Change>)> {
    let plugins = &runtime.0.plugins;
    if !plugins.wants(Stage::Create) {
        return Ok((configuration, Vec::new()));
    }
    let document = configuration.document()?;
    let adjusted = plugins.before(Stage::Create, subject(runtime, id, bundle), document)?;
    if adjusted.changes.is_empty() {
        return Ok((configuration, Vec::new()));
    }
    let json = adjusted.document.to_string();
    let changed = runtime.0.configurations.of_text(json.into_bytes());
    let changed = changed.map_err(|error| adjusted.blame(error, ""))?;
    Ok((changed, adjusted.changes))
}

impl Container {
    fn subject(&self) -> Subject {
        let about = self.about();
        let mut subject = subject(&self.0.runtime, about.id, about.bundle);
        let init = &self.0.init;
        // Without a second look at the process: that would be the place to tell that it has ended.
        subject.pid = if init.0.exit.get().is_none() { init.pid() } else { 0 };
        subject
    }

    /// Asks plugins before something happens.
    pub(super) fn before(&self, stage: Stage) -> Result<()> {
        let plugins = &self.0.runtime.0.plugins;
        if !plugins.wants(stage) {
            return Ok(());
        }
        plugins.before(stage, self.subject(), self.0.configuration.document()?).map(drop)
    }

    /// Tells plugins what has happened.
    pub(super) fn after(&self, stage: Stage) {
        self.tell(stage, Vec::new);
    }

    /// Tells plugins that a signal is about to be sent.
    pub(super) fn before_signal(&self, signal: i32, all: bool) {
        self.tell(Stage::Kill, || vec![("signal", signal.to_string()), ("all", all.to_string())]);
    }

    fn tell(&self, stage: Stage, details: impl FnOnce() -> Vec<(&'static str, String)>) {
        let plugins = &self.0.runtime.0.plugins;
        if !plugins.wants(stage) {
            return;
        }
        if let Ok(document) = self.0.configuration.document() {
            plugins.tell(stage, Subject { details: details(), ..self.subject() }, document);
        }
    }

    /// The process to run in it, as plugins have made it; `None` if they leave it as it is.
    pub(super) fn before_exec(&self, process: &oci::Process) -> Result<Option<Part>> {
        self.adjusted(Stage::Exec, || process_to_json(process))
    }

    /// New limits, as plugins have made them; `None` if they leave them as they are.
    pub(super) fn before_update(&self, resources: &[u8]) -> Result<Option<Part>> {
        let part = || {
            serde_json::from_slice(resources).map_err(|error| {
                let message = format!("the document is not valid JSON: {error}");
                Error::new(Category::Spec, crate::Stage::Validate, message)
            })
        };
        self.adjusted(Stage::Update, part)
    }

    /// Asks plugins what to make of a part of the configuration that is to be another now.
    fn adjusted(&self, stage: Stage, part: impl FnOnce() -> Result<Value>) -> Result<Option<Part>> {
        let plugins = &self.0.runtime.0.plugins;
        if !plugins.wants(stage) {
            return Ok(None);
        }
        let path = stage.adjustable().unwrap_or_default();
        let mut document = Value::clone(&*self.0.configuration.document()?);
        *member(&mut document, path) = part()?;
        let mut subject = self.subject();
        if stage == Stage::Exec {
            subject.details.push(("container-pid", subject.pid.to_string()));
        }
        let mut adjusted = plugins.before(stage, subject, Arc::new(document))?;
        if adjusted.changes.is_empty() {
            return Ok(None);
        }
        let json = member(Arc::make_mut(&mut adjusted.document), path).to_string();
        Ok(Some(Part { path, json, adjusted }))
    }

    /// Keeps what plugins have changed, for who wants to know later. It has taken effect, whether
    /// there is room for that or not.
    pub(super) fn record_changes(&self, part: Option<Part>) {
        let changes = part.map(|part| part.adjusted.changes).unwrap_or_default();
        if let Err(error) = log::add(&self.0.dir.path, &changes) {
            tracing::warn!(%error, id = self.id(), count = changes.len(), "changes by plugins are not kept");
        }
    }
}

/// A part of a configuration that plugins have changed.
pub(super) struct Part {
    /// Where it is, as a JSON pointer.
    path: &'static str,
    json: String,
    adjusted: Adjusted,
}

impl Part {
    /// Reads it; an error says who has changed it.
    pub(super) fn read<T>(&self, read: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
        read(self.json.as_bytes()).map_err(|error| self.adjusted.blame(error, self.path))
    }
}

/// A member of members, which are made if they are missing.
fn member<'a>(document: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('/').skip(1).fold(document, |value, name| {
        if !value.is_object() {
            *value = json!({});
        }
        &mut value[name]
    })
}

/// Tells plugins that a container is gone to which there has been no handle.
pub(super) fn reclaimed(runtime: &Runtime, id: &str, bundle: &Path, configuration: &Configuration) {
    let plugins = &runtime.0.plugins;
    if !plugins.wants(Stage::Delete) {
        return;
    }
    if let Ok(document) = configuration.document() {
        plugins.tell(Stage::Delete, subject(runtime, id, bundle), document);
    }
}

/// What to tell plugins when the first process of a container has ended.
pub(super) struct Ending {
    plugins: Plugins,
    subject: Subject,
    configuration: Arc<Configuration>,
    dir: StateDir,
}

impl std::fmt::Debug for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ending").field("id", &self.subject.id).finish_non_exhaustive()
    }
}

impl Ending {
    /// `None` if no plugin wants to know.
    pub(super) fn of(
        runtime: &Runtime,
        id: &str,
        bundle: &Path,
        configuration: &Arc<Configuration>,
        dir: &StateDir,
    ) -> Result<Option<Ending>> {
        if !runtime.0.plugins.wants(Stage::Stopped) {
            return Ok(None);
        }
        Ok(Some(Ending {
            plugins: runtime.0.plugins.clone(),
            subject: subject(runtime, id, bundle),
            configuration: configuration.clone(),
            dir: dir.try_clone()?,
        }))
    }

    /// Tells them, once for all handles and processes.
    pub(super) fn tell(&self, exit: Exit) {
        // By the descriptor: another container may have the name by now.
        let _telling = match self.dir.mark(TOLD) {
            Ok(mark) => Flock::lock(mark, FlockArg::LockExclusiveNonblock).ok(),
            Err(Errno::EEXIST | Errno::ENOENT) => return,
            // Rather more than once than never.
            Err(_) => None,
        };
        let details = match exit {
            Exit::Code(code) => vec![("exit-code", code.to_string())],
            Exit::Signal { signal, .. } => vec![("signal", signal.to_string())],
            Exit::Unknown => Vec::new(),
        };
        if let Ok(document) = self.configuration.document() {
            let subject = Subject { details, ..self.subject.clone() };
            self.plugins.tell(Stage::Stopped, subject, document);
        }
    }

    /// Tells them, or waits until somebody else has done so.
    pub(super) fn have_told(&self, exit: Exit, patience: Duration) {
        self.tell(exit);
        if let Ok(mark) = self.dir.marked(TOLD) {
            // Who is telling them has it locked.
            let _ = lock_within(mark, FlockArg::LockSharedNonblock, patience);
        }
    }
}
