//! Where plugins come in: what they are called with at each stage of a container, and what becomes
//! of their changes.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::configuration::Configuration;
use super::process::Exit;
use super::{Container, Runtime};
use crate::plugin::{Adjusted, Change, Stage, Subject, log};
use crate::spec::oci;
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
    let changed = changed.map_err(|error| adjusted.blame(error))?;
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

    /// Tells plugins what has happened, or in the case of signals is about to.
    pub(super) fn after(&self, stage: Stage, details: Vec<(&'static str, String)>) {
        let plugins = &self.0.runtime.0.plugins;
        if !plugins.wants(stage) {
            return;
        }
        if let Ok(document) = self.0.configuration.document() {
            plugins.after(stage, Subject { details, ..self.subject() }, document);
        }
    }

    /// The process to run in it, as plugins have made it; `None` if they leave it as it is.
    pub(super) fn before_exec(&self, process: &oci::Process) -> Result<Option<Part>> {
        let part = || {
            serde_json::to_value(process).map_err(|error| {
                let message = format!("write a process: {error}");
                Error::new(Category::Bug, crate::Stage::Plugin, message)
            })
        };
        self.adjusted(Stage::Exec, &["process"], part)
    }

    /// New limits, as plugins have made them; `None` if they leave them as they are.
    pub(super) fn before_update(&self, resources: &[u8]) -> Result<Option<Part>> {
        let part = || {
            serde_json::from_slice(resources).map_err(|error| {
                let message = format!("the document is not valid JSON: {error}");
                Error::new(Category::Spec, crate::Stage::Validate, message)
            })
        };
        self.adjusted(Stage::Update, &["linux", "resources"], part)
    }

    /// Asks plugins what to make of a part of the configuration that is to be another now.
    fn adjusted(
        &self,
        stage: Stage,
        path: &[&str],
        part: impl FnOnce() -> Result<Value>,
    ) -> Result<Option<Part>> {
        let plugins = &self.0.runtime.0.plugins;
        if !plugins.wants(stage) {
            return Ok(None);
        }
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
        Ok(Some(Part { json, adjusted }))
    }

    /// Keeps what plugins have changed, for who wants to know later.
    pub(super) fn record_changes(&self, part: &Part) -> Result<()> {
        log::append(&self.0.dir.path, &part.adjusted.changes)
    }
}

/// A part of a configuration that plugins have changed.
pub(super) struct Part {
    json: String,
    adjusted: Adjusted,
}

impl Part {
    /// Reads it; an error says who has changed it.
    pub(super) fn read<T>(&self, read: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
        read(self.json.as_bytes()).map_err(|error| self.adjusted.blame(error))
    }
}

/// A member of members, which are made if they are missing.
fn member<'a>(document: &'a mut Value, path: &[&str]) -> &'a mut Value {
    path.iter().fold(document, |value, name| {
        if !value.is_object() {
            *value = json!({});
        }
        &mut value[*name]
    })
}

/// What to tell plugins when the first process of a container has ended.
pub(super) struct Ending {
    runtime: Runtime,
    subject: Subject,
    document: Arc<Value>,
    state_dir: PathBuf,
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
        configuration: &Configuration,
    ) -> Option<Ending> {
        if !runtime.0.plugins.wants(Stage::Stopped) {
            return None;
        }
        Some(Ending {
            runtime: runtime.clone(),
            subject: subject(runtime, id, bundle),
            document: configuration.document().ok()?,
            state_dir: runtime.0.state_dir.join(id),
        })
    }

    /// Tells them, once for all handles and processes.
    pub(super) fn tell(&self, exit: Exit) {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        if options.open(self.state_dir.join(TOLD)).is_err() {
            return;
        }
        let details = match exit {
            Exit::Code(code) => vec![("exit-code", code.to_string())],
            Exit::Signal { signal, .. } => vec![("signal", signal.to_string())],
            Exit::Unknown => Vec::new(),
        };
        let subject = Subject { details, ..self.subject.clone() };
        self.runtime.0.plugins.after(Stage::Stopped, subject, self.document.clone());
    }
}
