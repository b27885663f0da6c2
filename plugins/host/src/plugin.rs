//! A component as a plugin: made from its source once, and called in a store of its own each time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use locule::plugin::{Call, Change, Fault, Plugin, Stage};
use locule::{Error, Result};
use serde_json::Value;
use wasmtime::component::{
    Component, ComponentExportIndex, ComponentNamedList, ComponentType, Instance, InstancePre,
    Lift, Lower,
};
use wasmtime::{Store, Trap};

use crate::cache::{self, Cache};
use crate::configuration::{Configuration, Limits};
use crate::engine::Engine;
use crate::guest::{Container, Failure, Guest};
use crate::source::Source;
use crate::ticker::{TICK, Ticking};
use crate::{alternate, failed, kv, linker, stack};

/// A Wasm component that is called at stages of containers' lives.
///
/// Each call has a store of its own, so nothing of one call is seen in the next, or in one of
/// another container at the same time; unless the configuration says `keepAlive`.
pub struct WasmPlugin {
    name: String,
    digest: String,
    engine: Engine,
    prepared: InstancePre<Guest>,
    exports: Exports,
    stages: Vec<Stage>,
    config: Arc<str>,
    limits: Arc<Limits>,
    /// Those that wait for another call.
    kept: Option<Mutex<Vec<Live>>>,
    recording: Mutex<Option<Recorded>>,
}

/// What the last call did, for who asked for it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Recorded {
    pub(crate) calls: Vec<Value>,
    pub(crate) fuel: u64,
}

/// A component in its store.
struct Live {
    store: Store<Guest>,
    instance: Instance,
}

/// The functions that are called.
struct Exports {
    lifecycle: Option<(ComponentExportIndex, ComponentExportIndex)>,
    validate: Option<ComponentExportIndex>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct Registration {
    stages: Vec<String>,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct ChangeShown {
    plugin: String,
    pointer: String,
    before: Option<String>,
    after: Option<String>,
}

type Answer = (std::result::Result<(), Failure>,);

impl std::fmt::Debug for WasmPlugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WasmPlugin").field("name", &self.name).finish_non_exhaustive()
    }
}

impl WasmPlugin {
    /// Loads a component, and has it look at its configuration.
    pub fn new(configuration: Configuration) -> Result<WasmPlugin> {
        let limits = Arc::new(configuration.limits.clone());
        let engine = Engine::of(configuration.engine, &limits)?;
        let digest = configuration.digest.as_deref();
        let source = Source::read(&configuration.path, &configuration.base, digest)?;
        let component = component(&engine, &source, configuration.cache.as_deref())?;

        let component_type = component.component_type();
        linker::check(&engine.engine, &component_type, &configuration.powers)?;
        let exports = Exports::of(&engine, &component)?;
        let adjusts = |power: &String| power.starts_with("adjust-");
        if exports.validate.is_some() && configuration.powers.iter().any(adjusts) {
            let message = "it exports validator, and what judges is not granted adjustments";
            return Err(failed(message).at("/powers"));
        }
        let linker = linker::make(&engine.engine, &configuration.powers).map_err(not_linked)?;
        let prepared = linker.instantiate_pre(&component).map_err(not_linked)?;
        let mut plugin = WasmPlugin {
            name: configuration.name,
            digest: source.digest,
            engine,
            prepared,
            exports,
            stages: Vec::new(),
            config: configuration.config.to_string().into(),
            limits,
            kept: configuration.keep_alive.then(Mutex::default),
            recording: Mutex::default(),
        };
        plugin.stages = plugin.configure()?;
        Ok(plugin)
    }

    /// The SHA-256 of the component, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Has it configure itself, and asks where it wants to be called.
    fn configure(&self) -> Result<Vec<Stage>> {
        let describe = |fault| match fault {
            Fault::Refused { message, .. } => {
                failed(format!("it does not accept its configuration: {message}")).at("/config")
            }
            Fault::Failed { message } => failed(format!("it could not be configured: {message}")),
        };
        let mut call = Call::default();
        let registration = self.run(&mut call, true, |live| {
            // All that will be called later, to find out now whether it can be.
            live.typed::<(String, Container), Answer>(self.exports.lifecycle.map(|it| it.1))?;
            live.typed::<(Container, Vec<ChangeShown>), Answer>(self.exports.validate)?;
            type Configured = (std::result::Result<Registration, Failure>,);
            let function = live.typed::<(), Configured>(self.exports.lifecycle.map(|it| it.0))?;
            match function {
                Some(function) => Ok(function.call(&mut live.store, ())?.0),
                None => Ok(Ok(Registration { stages: Vec::new() })),
            }
        });
        let named = |name: &String| {
            Stage::named(name).ok_or_else(|| {
                failed(format!("it wants to be called at {name:?}, which is no stage here"))
                    .hint("it may have been built for a later version")
            })
        };
        let registration = registration.map_err(describe)?;
        registration.stages.iter().map(named).collect()
    }

    /// Records what the next calls do, until it is taken.
    pub(crate) fn record(&self) {
        *self.recording.lock().unwrap_or_else(PoisonError::into_inner) = Some(Recorded::default());
    }

    /// What the last call has done.
    pub(crate) fn recorded(&self) -> Recorded {
        let mut recording = self.recording.lock().unwrap_or_else(PoisonError::into_inner);
        recording.take().unwrap_or_default()
    }

    /// Calls it, within its limits.
    fn run<T>(
        &self,
        call: &mut Call,
        configuring: bool,
        body: impl FnOnce(&mut Live) -> wasmtime::Result<std::result::Result<T, Failure>>,
    ) -> Result<T, Fault> {
        let limits = &self.limits;
        if let Err(left) = stack::has_room(limits.stack_bytes) {
            let message = format!(
                "the thread that calls it has {} KiB of stack left, and it may use {}",
                left >> 10,
                limits.stack_bytes >> 10
            );
            return Err(Fault::failed(message));
        }
        alternate::keep().map_err(|error| {
            Fault::failed(format!("the thread that calls it cannot be prepared for it: {error}"))
        })?;
        let ticking = limits.wall_milliseconds.map(|_| Ticking::begin(&self.engine.engine));
        let ticking = ticking.transpose().map_err(|error| {
            Fault::failed(format!("no thread could be started for its limit on time: {error}"))
        })?;

        let waiting = self
            .kept
            .as_ref()
            .and_then(|kept| kept.lock().unwrap_or_else(PoisonError::into_inner).pop());
        let mut store = None;
        let live = match waiting {
            Some(mut live) => {
                self.arm(&mut live.store, call, configuring);
                Ok(live)
            }
            None => {
                let guest = Guest::new(self.config.clone(), limits.clone());
                let mut fresh = Store::new(&self.engine.engine, guest);
                fresh.limiter(|guest| guest);
                self.arm(&mut fresh, call, configuring);
                match self.prepared.instantiate(&mut fresh) {
                    Ok(instance) => Ok(Live { store: fresh, instance }),
                    Err(error) => {
                        store = Some(fresh);
                        Err(error)
                    }
                }
            }
        };
        let outcome = live.and_then(|mut live| {
            let answer = body(&mut live);
            store = Some(live.store);
            Ok((answer?, live.instance))
        });
        drop(ticking);
        let mut store = store.expect("it is there after a call, and after a failure to begin one");
        *call = std::mem::take(&mut store.data_mut().call);
        self.keep_record(&mut store);
        match outcome {
            Ok((answer, instance)) => {
                if let Some(kept) = &self.kept {
                    let live = Live { store, instance };
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(live);
                }
                answer.map_err(|Failure { code, message }| Fault::Refused { code, message })
            }
            Err(error) => Err(Fault::failed(self.explain(store.data(), &error))),
        }
    }

    /// Gives a store what one call may use, and the call.
    fn arm(&self, store: &mut Store<Guest>, call: &mut Call, configuring: bool) {
        // The engine ends a call that has used up what it was given.
        store.set_fuel(self.limits.fuel.saturating_add(1)).expect("the engine counts it");
        if let Some(milliseconds) = self.limits.wall_milliseconds {
            let wall = Duration::from_millis(milliseconds);
            // The tick that is going on is not whole.
            store.set_epoch_deadline((wall.as_millis() / TICK.as_millis()) as u64 + 1);
            store.data_mut().deadline = Instant::now().checked_add(wall);
        }
        let kept = (!configuring).then(|| kv::Store::of(call.storage(), &self.name));
        let recording = self.recording.lock().unwrap_or_else(PoisonError::into_inner);
        let guest = store.data_mut();
        guest.begin(std::mem::take(call), kept);
        guest.trace = recording.is_some().then(Vec::new);
    }

    fn keep_record(&self, store: &mut Store<Guest>) {
        let given = self.limits.fuel.saturating_add(1);
        let fuel = given.saturating_sub(store.get_fuel().unwrap_or_default());
        let mut recording = self.recording.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(recorded), Some(calls)) = (recording.as_mut(), store.data_mut().trace.take()) {
            *recorded = Recorded { calls, fuel };
        }
    }

    /// What ended a call, in the words of its limits.
    fn explain(&self, guest: &Guest, error: &wasmtime::Error) -> String {
        let limits = &self.limits;
        if let Some(hit) = &guest.hit {
            return hit.clone();
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::OutOfFuel) => format!("it computed more than fuel, {}", limits.fuel),
            Some(Trap::Interrupt) => {
                let most = limits.wall_milliseconds.unwrap_or_default();
                format!("it took longer than wallMilliseconds, {most}")
            }
            Some(Trap::StackOverflow) => {
                format!("it needed more stack than stackBytes, {}", limits.stack_bytes)
            }
            Some(trap) => format!("it trapped: {trap}"),
            None => {
                let cause = error.root_cause().to_string();
                match cause.strip_prefix("resource limit exceeded: ") {
                    Some(what) if what.starts_with("instance") => {
                        format!("it has more than instances, {}", limits.instances)
                    }
                    Some(what) if what.starts_with("table") => {
                        format!("it has more than tables, {}", limits.tables)
                    }
                    _ => cause,
                }
            }
        }
    }
}

impl Live {
    /// A function by its index, if there is one, of the type that it has to have.
    fn typed<P, R>(
        &mut self,
        index: Option<ComponentExportIndex>,
    ) -> wasmtime::Result<Option<wasmtime::component::TypedFunc<P, R>>>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        index.map(|index| self.instance.get_typed_func(&mut self.store, index)).transpose()
    }
}

impl Exports {
    fn of(engine: &Engine, component: &Component) -> Result<Exports> {
        let component_type = component.component_type();
        let of = |wanted: &str| {
            let mut names = component_type.exports(&engine.engine).map(|(name, _)| name.to_owned());
            let name = names.find(|name| linker::interface(name) == Some(wanted))?;
            component.get_export_index(None, &name)
        };
        let function = |interface: &ComponentExportIndex, name: &str| {
            component
                .get_export_index(Some(interface), name)
                .ok_or_else(|| failed(format!("it does not export {name}")))
        };
        let lifecycle = of("lifecycle").map(|interface| {
            Ok::<_, Error>((function(&interface, "configure")?, function(&interface, "handle")?))
        });
        let validate = of("validator").map(|interface| function(&interface, "validate"));
        let exports =
            Exports { lifecycle: lifecycle.transpose()?, validate: validate.transpose()? };
        if exports.lifecycle.is_none() && exports.validate.is_none() {
            let message = "it exports neither locule:plugin/lifecycle nor locule:plugin/validator";
            return Err(failed(message));
        }
        Ok(exports)
    }
}

/// The component, compiled: out of the cache, or here and now.
fn component(
    engine: &Engine,
    source: &Source,
    directory: Option<&std::path::Path>,
) -> Result<Component> {
    let default = cache::default_directory();
    let directory = directory.or(default.as_deref()).filter(|path| !path.as_os_str().is_empty());
    let cache = directory.and_then(|directory| match Cache::open(directory) {
        Ok(cache) => Some(cache),
        Err(why) => {
            tracing::debug!("compiled plugins are not kept: {why}");
            None
        }
    });
    let name = format!("{}-{}", source.digest, engine.fingerprint);
    if let Some(compiled) = cache.as_ref().and_then(|cache| cache.get(&name)) {
        // SAFETY: these are the bytes that this user has put into the cache, as their code says,
        // and the engine checks that they were compiled for it.
        match unsafe { Component::deserialize(&engine.engine, compiled) } {
            Ok(component) => return Ok(component),
            Err(error) => tracing::debug!("a compiled plugin does not fit: {error:#}"),
        }
    }
    compile(engine, source, cache.as_ref(), &name)
}

#[cfg(feature = "compile")]
fn compile(
    engine: &Engine,
    source: &Source,
    cache: Option<&Cache>,
    name: &str,
) -> Result<Component> {
    let component = Component::from_binary(&engine.engine, &source.bytes)
        .map_err(|error| failed(format!("it is no component that can be run: {error:#}")))?;
    if let Some(cache) = cache {
        match component.serialize() {
            Ok(compiled) => cache.put(name, &compiled),
            Err(error) => tracing::debug!("a plugin cannot be kept: {error:#}"),
        }
    }
    Ok(component)
}

#[cfg(not(feature = "compile"))]
fn compile(_: &Engine, source: &Source, cache: Option<&Cache>, _: &str) -> Result<Component> {
    let message = match cache {
        Some(_) => format!("sha256:{} is not in the cache of compiled plugins", source.digest),
        None => "there is no cache of compiled plugins".to_owned(),
    };
    Err(failed(format!("{message}, and this build of Locule does not compile"))
        .with_category(locule::Category::Unsupported)
        .hint("`locule plugin check` compiles it for all that use the same cache"))
}

fn not_linked(error: wasmtime::Error) -> Error {
    failed(format!("it does not fit the interfaces of this version: {error:#}"))
}

impl Plugin for WasmPlugin {
    fn stages(&self) -> &[Stage] {
        &self.stages
    }

    fn handle(&self, call: &mut Call) -> Result<(), Fault> {
        let arguments = (call.stage().name().to_owned(), container(call));
        self.run(call, false, |live| {
            match live.typed::<_, Answer>(self.exports.lifecycle.map(|it| it.1))? {
                Some(function) => Ok(function.call(&mut live.store, arguments)?.0),
                None => Ok(Ok(())),
            }
        })
    }

    fn validates(&self) -> bool {
        self.exports.validate.is_some()
    }

    fn validate(&self, call: &mut Call, changes: &[Change]) -> Result<(), Fault> {
        let json = |value: &Option<Value>| value.as_ref().map(Value::to_string);
        let shown = changes.iter().map(|change| ChangeShown {
            plugin: change.plugin.clone(),
            pointer: change.pointer.clone(),
            before: json(&change.before),
            after: json(&change.after),
        });
        let arguments = (container(call), shown.collect::<Vec<_>>());
        self.run(call, false, |live| match live.typed::<_, Answer>(self.exports.validate)? {
            Some(function) => Ok(function.call(&mut live.store, arguments)?.0),
            None => Ok(Ok(())),
        })
    }
}

fn container(call: &Call) -> Container {
    let annotations = call.annotations();
    Container {
        id: call.id().to_owned(),
        bundle: call.bundle().to_string_lossy().into_owned(),
        pid: call.pid().and_then(|pid| u32::try_from(pid).ok()),
        annotations: annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
    }
}
