//! Plugins without containers, for who writes them: what a plugin makes of a configuration, what it
//! calls on the way, and what that costs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use locule::plugin::{Change, Guard, Plugins, Registration, Stage};
use locule::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::configuration::Configuration;
use crate::plugin::WasmPlugin;
use crate::{failed, invalid};

/// A plugin, and the stage on which it is tried.
#[derive(Debug)]
pub struct Session {
    plugin: Arc<WasmPlugin>,
    plugins: Plugins,
    config: Value,
}

/// What a plugin is tried with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scene {
    /// The stage, by its name.
    pub stage: String,
    /// The container's id.
    pub id: String,
    /// Its bundle.
    pub bundle: PathBuf,
    /// Its configuration.
    pub document: Value,
}

/// What has become of it.
#[derive(Debug)]
pub struct Outcome {
    /// The configuration afterwards; or why the container is refused.
    pub document: Result<Value>,
    /// What has been changed.
    pub changes: Vec<Change>,
    /// What was called, with arguments and results.
    pub calls: Vec<Value>,
    /// How much was computed.
    pub fuel: u64,
    /// How long it took.
    pub time: Duration,
}

/// A call of a plugin, written down: to be compared with what it does later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    /// The form of this document: 1.
    pub version: u32,
    /// The plugin's configuration.
    pub config: Value,
    /// What it was called with.
    pub scene: Scene,
    /// What it called, with arguments and results.
    pub calls: Vec<Value>,
    /// What came of it: `null`, or why the container was refused.
    pub refused: Option<String>,
    /// How much it computed.
    pub fuel: u64,
}

impl Recording {
    const VERSION: u32 = 1;

    /// Reads one.
    pub fn parse(json: &[u8]) -> Result<Recording> {
        let recording: Recording = serde_json::from_slice(json)
            .map_err(|error| invalid(format!("the recording: {error}")))?;
        match recording.version {
            Recording::VERSION => Ok(recording),
            other => Err(invalid(format!("the recording has the form {other}, which is unknown"))
                .at("/version")),
        }
    }
}

impl Session {
    /// Loads a plugin.
    pub fn new(configuration: Configuration) -> Result<Session> {
        let settings = configuration.registration();
        let config = configuration.config.clone();
        let plugin = Arc::new(WasmPlugin::new(configuration)?);
        let registration = Registration { plugin: plugin.clone(), ..settings };
        let plugins = Plugins::new(vec![registration], Vec::new(), Guard::default())?;
        Ok(Session { plugin, plugins, config })
    }

    /// The stages at which it wants to be called.
    pub fn stages(&self) -> &[Stage] {
        use locule::plugin::Plugin;
        self.plugin.stages()
    }

    /// Calls it.
    pub fn run(&self, scene: &Scene) -> Result<Outcome> {
        let stage = Stage::named(&scene.stage)
            .ok_or_else(|| invalid(format!("{:?} is no stage", scene.stage)))?;
        self.plugin.record();
        let begun = Instant::now();
        let document = scene.document.clone();
        let rehearsed = self.plugins.rehearse(stage, &scene.id, &scene.bundle, document);
        let time = begun.elapsed();
        let recorded = self.plugin.recorded();
        let (document, changes) = match rehearsed {
            Ok((document, changes)) => (Ok(document), changes),
            Err(error) => (Err(error), Vec::new()),
        };
        Ok(Outcome { document, changes, calls: recorded.calls, fuel: recorded.fuel, time })
    }

    /// Calls it, and writes down what it does.
    pub fn record(&self, scene: Scene) -> Result<Recording> {
        let outcome = self.run(&scene)?;
        Ok(Recording {
            version: Recording::VERSION,
            config: self.config.clone(),
            scene,
            calls: outcome.calls,
            refused: outcome.document.err().map(|error| error.to_string()),
            fuel: outcome.fuel,
        })
    }

    /// Does again what was written down. It has to do the same, and may compute a tenth more.
    ///
    /// # Errors
    /// [`Plugin`](locule::Category::Plugin), with the first difference.
    pub fn replay(&self, recording: &Recording) -> Result<()> {
        let again = self.record(recording.scene.clone())?;
        let differs = |what: String, was: &Value, is: &Value| -> Error {
            failed(format!("{what} was {was} and is {is}"))
        };
        if again.config != recording.config {
            return Err(differs("its configuration".to_owned(), &recording.config, &again.config));
        }
        for index in 0..again.calls.len().max(recording.calls.len()) {
            let call = |calls: &[Value]| calls.get(index).cloned().unwrap_or_default();
            let (was, is) = (call(&recording.calls), call(&again.calls));
            if was != is {
                return Err(differs(format!("call {}", index + 1), &was, &is));
            }
        }
        let (was, is) = (json!(recording.refused), json!(again.refused));
        if was != is {
            return Err(differs("the answer".to_owned(), &was, &is));
        }
        let most = recording.fuel + recording.fuel / 10;
        if again.fuel > most {
            let message = format!("it computed {} instead of {}", again.fuel, recording.fuel);
            return Err(failed(message).hint("a tenth more is allowed"));
        }
        Ok(())
    }
}
