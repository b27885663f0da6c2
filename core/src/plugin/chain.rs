//! The plugins of a runtime: in which order they are called, and what becomes of what they say.
//!
//! A stage that can be refused is a transaction: each plugin sees what those before it have made
//! of the configuration, and nothing has happened until all have agreed, the validators and the
//! guard included. After a stage that has happened the order is the other way round, and what
//! goes wrong is told to the log.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::call::{Call, Subject};
use super::guard::Guard;
use super::ledger::Change;
use super::said::{Level, Listener, Said};
use super::{Fault, Plugin, Stage};
use crate::{Category, Error, Result};

/// What becomes of a container when a plugin has failed: a trap, a limit, an answer that makes no
/// sense. A refusal is no failure and always counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// The stage fails, where it can. Elsewhere as [`OnFailure::Skip`].
    #[default]
    Fail,
    /// As if the plugin had not been called: what it has changed in this call is undone. A container
    /// that requires it is not created.
    Skip,
    /// As [`OnFailure::Skip`], and the runtime does not call it again. Where it is required, no
    /// container is created from then on.
    Disable,
}

impl OnFailure {
    /// The policy of this name: `fail`, `skip` or `disable`.
    pub fn named(name: &str) -> Option<OnFailure> {
        Some(match name {
            "fail" => OnFailure::Fail,
            "skip" => OnFailure::Skip,
            "disable" => OnFailure::Disable,
            _ => return None,
        })
    }
}

/// A plugin, and how it is to be called.
#[derive(Clone)]
pub struct Registration {
    /// Its name: letters, digits and `_.-`, at most 64. No two of a runtime have the same.
    pub name: String,
    /// The plugin.
    pub plugin: Arc<dyn Plugin>,
    /// Lower ones are called first; of equal ones the names decide.
    pub priority: i32,
    /// What becomes of a container when it fails.
    pub on_failure: OnFailure,
    /// The same for single stages.
    pub on_failure_at: BTreeMap<Stage, OnFailure>,
    /// Whether it may change what plugins before it have changed.
    pub may_override: bool,
    /// Whether no container is created without it.
    pub required: bool,
}

impl Registration {
    /// The defaults for this plugin.
    pub fn new(name: impl Into<String>, plugin: Arc<dyn Plugin>) -> Registration {
        Registration {
            name: name.into(),
            plugin,
            priority: 0,
            on_failure: OnFailure::default(),
            on_failure_at: BTreeMap::new(),
            may_override: false,
            required: false,
        }
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Registration");
        out.field("name", &self.name).field("priority", &self.priority).finish_non_exhaustive()
    }
}

/// The plugins of a runtime. Cloning gives another handle to the same; the default has none.
#[derive(Debug, Clone, Default)]
pub struct Plugins {
    chain: Arc<Chain>,
    listener: Option<Listener>,
}

#[derive(Debug, Default)]
struct Chain {
    /// In the order in which they are called.
    links: Vec<Link>,
    required: Vec<String>,
    guard: Guard,
}

#[derive(Debug)]
struct Link {
    registration: Registration,
    required: bool,
    disabled: AtomicBool,
}

impl Link {
    fn is_for(&self, stage: Stage) -> bool {
        !self.disabled.load(Ordering::Relaxed) && self.registration.plugin.stages().contains(&stage)
    }

    fn judges(&self) -> bool {
        !self.disabled.load(Ordering::Relaxed) && self.registration.plugin.validates()
    }

    fn policy(&self, stage: Stage) -> OnFailure {
        let registration = &self.registration;
        registration.on_failure_at.get(&stage).copied().unwrap_or(registration.on_failure)
    }
}

/// What has become of a configuration.
#[derive(Debug)]
pub(crate) struct Adjusted {
    pub(crate) document: Arc<Value>,
    pub(crate) changes: Vec<Change>,
}

impl Adjusted {
    /// Says of an error in the configuration, or in the part of it at `prefix`, who has changed
    /// what is nearest to it. Before the changes it was without one.
    pub(crate) fn blame(&self, error: Error, prefix: &str) -> Error {
        let place = format!("{prefix}{}", error.pointer().unwrap_or_default());
        let common = |change: &Change| {
            let names = change.pointer.split('/').zip(place.split('/'));
            names.take_while(|(one, other)| one == other).count()
        };
        let nearest = self.changes.iter().map(common).max();
        let mut names = Vec::new();
        for change in &self.changes {
            let name = format!("{:?}", change.plugin);
            if Some(common(change)) == nearest && !names.contains(&name) {
                names.push(name);
            }
        }
        match names.is_empty() {
            true => error,
            false => error.context(format!("changed by plugin {}", names.join(", "))),
        }
    }
}

impl Plugins {
    /// A chain of these plugins. `required` names further ones without which no container is
    /// created, present or not.
    ///
    /// # Errors
    /// [`Category::Invalid`] for a name that is none, or that two have.
    pub fn new(
        registrations: Vec<Registration>,
        mut required: Vec<String>,
        guard: Guard,
    ) -> Result<Plugins> {
        let mut links: Vec<Link> = Vec::with_capacity(registrations.len());
        for registration in registrations {
            check_name(&registration.name)?;
            if links.iter().any(|link| link.registration.name == registration.name) {
                let message = format!("two plugins have the name {:?}", registration.name);
                return Err(Error::new(Category::Invalid, crate::Stage::Arguments, message));
            }
            if registration.required {
                required.push(registration.name.clone());
            }
            let disabled = AtomicBool::new(false);
            links.push(Link {
                required: required.contains(&registration.name),
                registration,
                disabled,
            });
        }
        links.sort_by(|one, other| {
            let key = |link: &Link| (link.registration.priority, link.registration.name.clone());
            key(one).cmp(&key(other))
        });
        Ok(Plugins { chain: Arc::new(Chain { links, required, guard }), listener: None })
    }

    /// The same, with somebody who hears what they say and what there is to say about them: a
    /// plugin that was skipped, a fault at a stage that cannot be refused. It is called on the
    /// thread on which the plugin is, and must return. Both are events of `tracing` as well.
    pub fn heard_by(self, listener: impl Fn(&Said<'_>) + Send + Sync + 'static) -> Plugins {
        Plugins { listener: Some(Listener(Arc::new(listener))), ..self }
    }

    /// Whether there is nothing to do, now or ever.
    pub fn is_empty(&self) -> bool {
        self.chain.links.is_empty() && self.chain.required.is_empty()
    }

    /// The plugins in the order in which they are called, and whether each is disabled.
    pub fn iter(&self) -> impl Iterator<Item = (&Registration, bool)> {
        let disabled = |link: &Link| link.disabled.load(Ordering::Relaxed);
        self.chain.links.iter().map(move |link| (&link.registration, disabled(link)))
    }

    /// Whether anything is to be called at this stage.
    pub(crate) fn wants(&self, stage: Stage) -> bool {
        let creates = stage == Stage::Create;
        let judged = || self.chain.links.iter().any(Link::judges);
        self.chain.links.iter().any(|link| link.is_for(stage))
            || creates && (!self.chain.required.is_empty() || judged())
    }

    /// Asks all before something happens.
    pub(crate) fn before(
        &self,
        stage: Stage,
        subject: Subject,
        document: Arc<Value>,
    ) -> Result<Adjusted> {
        if stage == Stage::Create {
            self.check_required()?;
        }
        let before = document.clone();
        let mut call = self.call(stage, subject, document);
        for link in self.chain.links.iter().filter(|link| link.is_for(stage)) {
            link.address(&mut call);
            link.ask(&mut call, |plugin, call| plugin.handle(call))?;
        }
        if stage == Stage::Create {
            let changes = call.ledger.changes().to_vec();
            for link in self.chain.links.iter().filter(|link| link.judges()) {
                link.address(&mut call);
                link.ask(&mut call, |plugin, call| plugin.validate(call, &changes))?;
            }
        }
        let verdict = self.chain.guard.check(&before, &call.document, call.ledger.changes());
        verdict.map_err(|fault| refusal("the guard", stage, &fault))?;
        Ok(Adjusted { document: call.document, changes: call.ledger.into_changes() })
    }

    /// What they would make of a configuration at a stage, of a container that there is not: for
    /// who writes plugins. Returns the configuration and what has been changed.
    ///
    /// # Errors
    /// [`Category::Plugin`] if one refuses, or fails and its policy says so.
    pub fn rehearse(
        &self,
        stage: Stage,
        id: &str,
        bundle: &Path,
        document: Value,
    ) -> Result<(Value, Vec<Change>)> {
        let (id, bundle) = (id.to_owned(), bundle.to_owned());
        let subject = Subject { id, bundle, ..Subject::default() };
        let adjusted = self.before(stage, subject, Arc::new(document))?;
        Ok((Arc::unwrap_or_clone(adjusted.document), adjusted.changes))
    }

    /// Tells all what has happened, the last one first; or what is about to and cannot be refused,
    /// the first one first.
    pub(crate) fn tell(&self, stage: Stage, subject: Subject, document: Arc<Value>) {
        let mut call = self.call(stage, subject, document);
        let mut links: Vec<_> = self.chain.links.iter().filter(|link| link.is_for(stage)).collect();
        if stage != Stage::Kill {
            links.reverse();
        }
        for link in links {
            link.address(&mut call);
            if let Err(error) = link.ask(&mut call, |plugin, call| plugin.handle(call)) {
                call.say(Level::Warn, &format!("it happens all the same: {error}"));
            }
        }
    }

    fn call(&self, stage: Stage, subject: Subject, document: Arc<Value>) -> Call {
        Call { listener: self.listener.clone(), ..Call::new(stage, subject, document) }
    }

    fn check_required(&self) -> Result<()> {
        for name in &self.chain.required {
            let link = self.chain.links.iter().find(|link| link.registration.name == *name);
            let why = match link {
                None => "is missing",
                Some(link) if link.disabled.load(Ordering::Relaxed) => {
                    "has been disabled after a failure"
                }
                Some(_) => continue,
            };
            let message = format!("the required plugin {name:?} {why}");
            return Err(Error::new(Category::Plugin, crate::Stage::Plugin, message));
        }
        Ok(())
    }
}

impl Link {
    /// Makes it a call of this plugin.
    fn address(&self, call: &mut Call) {
        let registration = &self.registration;
        call.plugin = Arc::from(registration.name.as_str());
        call.may_override = registration.may_override;
        call.may_adjust = !registration.plugin.validates();
    }

    /// Calls it. If it fails and need not succeed, the call is as it was before.
    fn ask(
        &self,
        call: &mut Call,
        ask: impl FnOnce(&dyn Plugin, &mut Call) -> Result<(), Fault>,
    ) -> Result<()> {
        let (document, ledger) = (call.document.clone(), call.ledger.clone());
        let plugin = &*self.registration.plugin;
        let (stage, subject) = (call.stage, call.subject.clone());
        let listener = call.listener.clone();
        let answer = catch_unwind(AssertUnwindSafe(|| ask(plugin, call)));
        let fault = match answer {
            Ok(Ok(())) if Arc::ptr_eq(&call.subject, &subject) => return Ok(()),
            Ok(Ok(())) => Fault::failed("it has put another call in the place of this one"),
            Ok(Err(fault)) => fault,
            Err(panic) => Fault::failed(format!("it panicked: {}", words_of(&*panic))),
        };
        // Whatever it has left of it.
        (call.stage, call.subject, call.document, call.ledger) = (stage, subject, document, ledger);
        call.listener = listener;
        self.address(call);
        let error = refusal(&format!("plugin {:?}", self.registration.name), stage, &fault);
        let (policy, refused) = (self.policy(stage), matches!(fault, Fault::Refused { .. }));
        if policy == OnFailure::Disable && !refused {
            self.disabled.store(true, Ordering::Relaxed);
        }
        if refused || policy == OnFailure::Fail || (self.required && stage == Stage::Create) {
            return Err(error);
        }
        call.say(Level::Warn, &format!("skipped, as it may be: {error}"));
        Ok(())
    }
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without a word")
}

fn refusal(who: &str, stage: Stage, fault: &Fault) -> Error {
    let stage = stage.name();
    let message = match fault {
        Fault::Refused { code: 0, message } => format!("{who} refused {stage}: {message}"),
        Fault::Refused { code, message } => {
            format!("{who} refused {stage} with code {code}: {message}")
        }
        Fault::Failed { message } => format!("{who} failed at {stage}: {message}"),
    };
    Error::new(Category::Plugin, crate::Stage::Plugin, message)
}

/// A name that is good for a file's, too.
fn check_name(name: &str) -> Result<()> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if name.bytes().all(fits) && !name.is_empty() && name.len() <= 64 && !name.starts_with('.') {
        return Ok(());
    }
    let message = format!("the plugin's name {name:?} is none");
    Err(Error::new(Category::Invalid, crate::Stage::Arguments, message)
        .hint("use letters, digits and _ . - only, at most 64, and no . at its beginning"))
}
