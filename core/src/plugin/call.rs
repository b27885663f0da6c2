//! One call of a plugin: what it can learn about the container, and what it can ask for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::Stage;
use super::adjustment::Adjustment;
use super::ledger::{Change, Ledger, Refusal};
use super::said::{Level, Listener, Said, say};

/// The container that plugins are called for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subject {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    /// 0 while there is no process.
    pub(crate) pid: i32,
    /// What is special about the stage: names and values.
    pub(crate) details: Vec<(&'static str, String)>,
    /// Where plugins may keep what they remember.
    pub(crate) storage: Option<PathBuf>,
}

/// A call of a plugin at a stage of a container, which it may keep for no longer than that.
#[derive(Debug)]
pub struct Call {
    pub(super) stage: Stage,
    pub(super) subject: Arc<Subject>,
    pub(super) document: Arc<Value>,
    pub(super) ledger: Ledger,
    /// Who is called.
    pub(super) plugin: Arc<str>,
    /// Whether it may change what others have changed.
    pub(super) may_override: bool,
    /// Whether it may change anything at all.
    pub(super) may_adjust: bool,
    /// Who hears what it says.
    pub(super) listener: Option<Listener>,
}

impl Default for Call {
    /// A call about nothing: what stands in while another one is elsewhere.
    fn default() -> Call {
        Call {
            stage: Stage::Delete,
            subject: Arc::default(),
            document: Arc::default(),
            ledger: Ledger::default(),
            plugin: Arc::from(""),
            may_override: false,
            may_adjust: false,
            listener: None,
        }
    }
}

impl Call {
    pub(super) fn new(stage: Stage, subject: Subject, document: Arc<Value>) -> Call {
        Call { stage, subject: Arc::new(subject), document, ..Call::default() }
    }

    /// The stage.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The name under which the plugin is called.
    pub fn plugin(&self) -> &str {
        &self.plugin
    }

    /// The container's id.
    pub fn id(&self) -> &str {
        &self.subject.id
    }

    /// The directory of its bundle.
    pub fn bundle(&self) -> &Path {
        &self.subject.bundle
    }

    /// The pid of its first process as the host sees it, from [`Stage::Created`] on until it has
    /// ended.
    pub fn pid(&self) -> Option<i32> {
        Some(self.subject.pid).filter(|pid| *pid > 0)
    }

    /// The annotations of its configuration, as far as it has come.
    pub fn annotations(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.document.get("annotations").and_then(Value::as_object);
        all.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
    }

    /// What is special about the stage: at `kill` `signal` and `all`, at `stopped` `exit-code` or
    /// `signal`, at `exec` `container-pid`.
    pub fn detail(&self, name: &str) -> Option<&str> {
        let mut details = self.subject.details.iter();
        details.find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// The configuration as far as it has come. At [`Stage::Exec`] `/process` is the process to
    /// run, at [`Stage::Update`] `/linux/resources` are the new limits.
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// A directory in which plugins of this runtime may keep what they remember, which need not
    /// exist yet; `None` if there is none.
    pub fn storage(&self) -> Option<&Path> {
        self.subject.storage.as_deref()
    }

    /// Says something about the container, for the host's log.
    pub fn say(&self, level: Level, message: &str) {
        let said = Said { level, plugin: self.plugin(), id: self.id(), message };
        say(self.listener.as_ref(), &said);
    }

    /// What has been changed so far in this stage.
    pub fn changes(&self) -> &[Change] {
        self.ledger.changes()
    }

    /// Changes the configuration. It takes effect if every plugin and the configuration as a whole
    /// agree. What is there already is no change, whoever has put it there.
    pub fn adjust(&mut self, adjustment: &Adjustment) -> Result<(), Refusal> {
        let stage = self.stage.name();
        if !self.may_adjust {
            return Err(Refusal::Denied("a plugin that judges adjusts nothing".to_owned()));
        }
        let Some(adjustable) = self.stage.adjustable() else {
            return Err(Refusal::Denied(format!("nothing can be adjusted at {stage}")));
        };
        let mut edits = adjustment.edits(&self.document).map_err(Refusal::Invalid)?;
        edits.retain(|(place, after)| !place.holds(&self.document, after.as_ref()));
        for (place, _) in &edits {
            let pointer = place.pointer();
            let inside = pointer.strip_prefix(adjustable);
            if !inside.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
                let why = format!("only {adjustable} can be adjusted at {stage}, not {pointer}");
                return Err(Refusal::Denied(why));
            }
            if let Some((plugin, pointer)) = self.ledger.rival(place, &self.plugin)
                && !self.may_override
            {
                let (plugin, pointer) = (plugin.to_owned(), pointer.to_owned());
                return Err(Refusal::Conflict { plugin, pointer });
            }
        }
        let mut document = self.document.clone();
        for (place, after) in &edits {
            place.put(Arc::make_mut(&mut document), after.clone()).map_err(Refusal::Invalid)?;
        }
        let before = std::mem::replace(&mut self.document, document);
        for (place, after) in edits {
            let change = Change {
                plugin: self.plugin.to_string(),
                stage: stage.to_owned(),
                adjustment: adjustment.name().to_owned(),
                pointer: place.pointer(),
                before: place.get(&before).cloned(),
                after,
            };
            self.ledger.record(&place, change);
        }
        Ok(())
    }
}
