//! Who has changed what. A place belongs to the plugin that has changed it, and with it all that is
//! in it, until the stage is over.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Fault;
use super::place::Place;

/// A change that a plugin has made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Who has made it.
    pub plugin: String,
    /// At which stage: `create`, `exec` or `update`.
    pub stage: String,
    /// By which adjustment, such as `set-env`.
    pub adjustment: String,
    /// Where: a JSON pointer into the configuration, in which an element of a list is named by what
    /// it is known by: `/process/env/PATH`, `/mounts/~1data`. What is added to a list of hooks is
    /// named `-`.
    pub pointer: String,
    /// What was there; `None` if nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What is there now; `None` if it has been removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// Why an adjustment was not taken. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Another plugin has changed this: its name, and where.
    Conflict {
        /// The plugin that was first.
        plugin: String,
        /// The place that both want to change.
        pointer: String,
    },
    /// This stage or this kind of plugin does not allow it; why.
    Denied(String),
    /// It is not of the form that the configuration wants; why.
    Invalid(String),
}

/// What a plugin does not get past is a failure of its own.
impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        Fault::failed(refusal.to_string())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Conflict { plugin, pointer } => {
                write!(f, "plugin {plugin:?} has changed {pointer} already")
            }
            Refusal::Denied(why) | Refusal::Invalid(why) => f.write_str(why),
        }
    }
}

/// What has been changed in one stage.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    /// Who owns what, by pointer; what is added to a list has as many owners as have added to it.
    owners: BTreeMap<String, Vec<String>>,
    changes: Vec<Change>,
}

impl Ledger {
    /// Another plugin that owns this place, something in it, or what it is in; and what it owns.
    pub(super) fn rival(&self, place: &Place, plugin: &str) -> Option<(&str, &str)> {
        let pointer = place.pointer();
        let around = pointer.match_indices('/').map(|(at, _)| &pointer[..at]);
        // To what others have added to a list, more can be added.
        let exactly = Some(pointer.as_str()).filter(|_| !place.is_shared());
        let around = around.chain(exactly).filter_map(|it| self.owners.get_key_value(it));
        let inside = format!("{pointer}/");
        let inside =
            self.owners.range(inside.clone()..).take_while(|(owned, _)| owned.starts_with(&inside));
        around.chain(inside).find_map(|(owned, owners)| {
            let other = owners.iter().find(|owner| *owner != plugin)?;
            Some((other.as_str(), owned.as_str()))
        })
    }

    pub(super) fn record(&mut self, place: &Place, change: Change) {
        let owners = self.owners.entry(change.pointer.clone()).or_default();
        if !place.is_shared() {
            owners.clear();
        }
        owners.push(change.plugin.clone());
        self.changes.push(change);
    }

    pub(super) fn changes(&self) -> &[Change] {
        &self.changes
    }

    pub(super) fn into_changes(self) -> Vec<Change> {
        self.changes
    }
}
