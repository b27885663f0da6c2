//! What a component can call. Each function checks what it was given, counts what it uses, and does
//! what the engine's core does for every plugin; none of them waits for anything.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use locule::plugin::{self, Adjustment, Call};
use serde_json::{Value, json};
use wasmtime::{ResourceLimiter, Result, bail};

use crate::configuration::Limits;
use crate::kv::{LONGEST_KEY, Store};

pub(crate) use crate::bindings::locule::plugin as wit;
pub(crate) use wit::types::{Container, Failure, Refusal};

/// What a component is called with, and what it has used.
pub(crate) struct Guest {
    pub(crate) call: Call,
    pub(crate) config: Arc<str>,
    pub(crate) limits: Arc<Limits>,
    /// `None` while it is configured.
    pub(crate) store: Option<Store>,
    pub(crate) deadline: Option<Instant>,
    /// The limit that was hit, for who has to explain the trap.
    pub(crate) hit: Option<String>,
    /// Each call with its result, where somebody records them.
    pub(crate) trace: Option<Vec<Value>>,
    memory: usize,
    log: usize,
    adjustments: u32,
}

impl Guest {
    pub(crate) fn new(config: Arc<str>, limits: Arc<Limits>) -> Guest {
        Guest {
            call: Call::default(),
            config,
            limits,
            store: None,
            deadline: None,
            hit: None,
            trace: None,
            memory: 0,
            log: 0,
            adjustments: 0,
        }
    }

    /// Begins another call: what a call may use is counted anew, but for the memory it has.
    pub(crate) fn begin(&mut self, call: Call, store: Option<Store>) {
        (self.call, self.store) = (call, store);
        (self.hit, self.log, self.adjustments) = (None, 0, 0);
    }

    /// Ends the component because of a limit.
    fn limit<T>(&mut self, what: impl Display) -> Result<T> {
        let message = what.to_string();
        self.hit = Some(message.clone());
        bail!(message)
    }

    /// Checks texts that the component gives.
    fn take(&mut self, texts: &[&str]) -> Result<()> {
        let most = self.limits.text_bytes;
        if texts.iter().map(|text| text.len()).sum::<usize>() > most {
            return self.limit(format!("it gave a text longer than textBytes, {most}"));
        }
        if self.deadline.is_some_and(|deadline| Instant::now() > deadline) {
            return self.out_of_time();
        }
        Ok(())
    }

    pub(crate) fn out_of_time<T>(&mut self) -> Result<T> {
        let most = self.limits.wall_milliseconds.unwrap_or_default();
        self.limit(format!("it took longer than wallMilliseconds, {most}"))
    }

    /// Checks a text that the component is given.
    fn give(&mut self, text: String) -> Result<String> {
        let most = self.limits.input_bytes;
        match text.len() > most {
            true => self.limit(format!("it asked for a text longer than inputBytes, {most}")),
            false => Ok(text),
        }
    }

    fn record(&mut self, function: &str, arguments: Value, result: Value) {
        if let Some(trace) = &mut self.trace {
            trace.push(json!({ "call": function, "arguments": arguments, "result": result }));
        }
    }

    fn adjust(&mut self, adjustment: Adjustment) -> Result<Result<(), Refusal>> {
        let most = self.limits.adjustments;
        self.adjustments += 1;
        if self.adjustments > most {
            return self.limit(format!("it made more than {most} adjustments"));
        }
        let result = self.call.adjust(&adjustment);
        if self.trace.is_some() {
            let outcome = match &result {
                Ok(()) => Value::Null,
                Err(refusal) => json!({ "refused": refusal.to_string() }),
            };
            self.record("adjust", json!(adjustment), outcome);
        }
        Ok(result.map_err(|refusal| match refusal {
            plugin::Refusal::Conflict { plugin, .. } => Refusal::Conflict(plugin),
            plugin::Refusal::Denied(why) => Refusal::Denied(why),
            plugin::Refusal::Invalid(why) => Refusal::Invalid(why),
        }))
    }
}

impl ResourceLimiter for Guest {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        let (most, total) = (self.limits.memory_bytes, self.memory - current + desired);
        if total > most {
            return self.limit(format!("it wanted more memory than memoryBytes, {most}"));
        }
        self.memory = total;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        let most = self.limits.table_elements;
        match desired > most {
            true => self.limit(format!("it wanted a table of more than tableElements, {most}")),
            false => Ok(true),
        }
    }

    fn instances(&self) -> usize {
        self.limits.instances
    }

    fn tables(&self) -> usize {
        self.limits.tables
    }

    fn memories(&self) -> usize {
        self.limits.instances
    }
}

impl wit::types::Host for Guest {}

impl wit::config::Host for Guest {
    fn get(&mut self) -> Result<String> {
        let config = self.config.to_string();
        let config = self.give(config)?;
        self.record("config.get", json!([]), json!(config));
        Ok(config)
    }
}

impl wit::event::Host for Guest {
    fn detail(&mut self, name: String) -> Result<Option<String>> {
        self.take(&[&name])?;
        let detail = self.call.detail(&name).map(str::to_owned);
        self.record("event.detail", json!([name]), json!(detail));
        Ok(detail)
    }
}

impl wit::log::Host for Guest {
    fn emit(&mut self, level: wit::log::Level, message: String) -> Result<()> {
        use wit::log::Level;
        self.take(&[&message])?;
        let most = self.limits.log_bytes;
        let before = self.log;
        self.log = before.saturating_add(message.len());
        if before > most {
            return Ok(());
        }
        if self.log > most {
            let left_out = format!("what it has to say is more than logBytes, {most}");
            self.call.say(plugin::Level::Warn, &left_out);
            return Ok(());
        }
        self.call.say(
            match level {
                Level::Debug => plugin::Level::Debug,
                Level::Info => plugin::Level::Info,
                Level::Warn => plugin::Level::Warn,
                Level::Error => plugin::Level::Error,
            },
            &message,
        );
        self.record("log.emit", json!([format!("{level:?}"), message]), Value::Null);
        Ok(())
    }
}

impl wit::kv::Host for Guest {
    fn get(&mut self, key: String) -> Result<Option<Vec<u8>>> {
        self.take(&[&key])?;
        let fits = key.len() <= LONGEST_KEY;
        let value = self.store.as_ref().filter(|_| fits).and_then(|store| store.get(&key));
        self.record("kv.get", json!([key]), json!(value));
        Ok(value)
    }

    fn set(&mut self, key: String, value: Vec<u8>) -> Result<Result<(), wit::kv::Full>> {
        self.take(&[&key])?;
        let result = self.store(&key, &value);
        if self.trace.is_some() {
            let outcome = result.as_ref().err().map(|full| format!("{full:?}"));
            self.record("kv.set", json!([key, value]), json!(outcome));
        }
        Ok(result)
    }

    fn delete(&mut self, key: String) -> Result<()> {
        self.take(&[&key])?;
        if let Some(store) = self.store.as_mut().filter(|_| key.len() <= LONGEST_KEY) {
            store.delete(&key);
        }
        self.record("kv.delete", json!([key]), Value::Null);
        Ok(())
    }

    fn keys(&mut self) -> Result<Vec<String>> {
        let keys = self.store.as_ref().and_then(|store| store.keys().ok()).unwrap_or_default();
        self.record("kv.keys", json!([]), json!(keys));
        Ok(keys)
    }
}

impl Guest {
    fn store(&mut self, key: &str, value: &[u8]) -> Result<(), wit::kv::Full> {
        use wit::kv::Full;
        let Some(store) = &mut self.store else { return Err(Full::Keys(0)) };
        if key.len() > LONGEST_KEY {
            return Err(Full::Size(LONGEST_KEY as u32));
        }
        if value.len() > self.limits.value_bytes as usize {
            return Err(Full::Size(self.limits.value_bytes));
        }
        let failed = |error: std::io::Error| Full::Failed(error.to_string());
        let keys = store.keys().map_err(failed)?;
        if keys.len() >= self.limits.keys as usize && !keys.iter().any(|known| known == key) {
            return Err(Full::Keys(self.limits.keys));
        }
        store.set(key, value).map_err(failed)
    }
}

impl wit::spec_view::Host for Guest {
    fn get(&mut self, pointer: String) -> Result<Option<String>> {
        self.take(&[&pointer])?;
        let value = self.call.document().pointer(&pointer).map(Value::to_string);
        let value = value.map(|value| self.give(value)).transpose()?;
        self.record("spec-view.get", json!([pointer]), json!(value));
        Ok(value)
    }

    fn whole(&mut self) -> Result<String> {
        self.take(&[])?;
        let text = self.call.document().to_string();
        let text = self.give(text)?;
        self.record("spec-view.whole", json!([]), json!(text));
        Ok(text)
    }
}

type Adjusted = Result<Result<(), Refusal>>;

impl wit::adjust_annotations::Host for Guest {
    fn set(&mut self, key: String, value: String) -> Adjusted {
        self.take(&[&key, &value])?;
        self.adjust(Adjustment::SetAnnotation { key, value })
    }

    fn remove(&mut self, key: String) -> Adjusted {
        self.take(&[&key])?;
        self.adjust(Adjustment::RemoveAnnotation { key })
    }
}

impl wit::adjust_env::Host for Guest {
    fn set(&mut self, name: String, value: String) -> Adjusted {
        self.take(&[&name, &value])?;
        self.adjust(Adjustment::SetEnv { name, value })
    }

    fn remove(&mut self, name: String) -> Adjusted {
        self.take(&[&name])?;
        self.adjust(Adjustment::RemoveEnv { name })
    }
}

/// Of a list of texts, as one.
fn texts(list: &[String]) -> impl Iterator<Item = &str> {
    list.iter().map(String::as_str)
}

impl wit::adjust_mounts::Host for Guest {
    fn set(&mut self, mount: wit::adjust_mounts::Mount) -> Adjusted {
        let wit::adjust_mounts::Mount { destination, kind, source, options } = mount;
        let own = [destination.as_str(), &kind, &source];
        self.take(&own.into_iter().chain(texts(&options)).collect::<Vec<_>>())?;
        self.adjust(Adjustment::SetMount(plugin::Mount { destination, kind, source, options }))
    }

    fn remove(&mut self, destination: String) -> Adjusted {
        self.take(&[&destination])?;
        self.adjust(Adjustment::RemoveMount { destination })
    }
}

impl wit::adjust_devices::Host for Guest {
    fn set(&mut self, device: wit::adjust_devices::Device) -> Adjusted {
        let wit::adjust_devices::Device { path, kind, major, minor, mode, uid, gid, access } =
            device;
        self.take(&[&path, &kind, &access])?;
        let device = plugin::Device { path, kind, major, minor, mode, uid, gid, access };
        self.adjust(Adjustment::SetDevice(device))
    }

    fn remove(&mut self, path: String) -> Adjusted {
        self.take(&[&path])?;
        self.adjust(Adjustment::RemoveDevice { path })
    }
}

impl wit::adjust_resources::Host for Guest {
    fn set(&mut self, name: String, value: String) -> Adjusted {
        self.take(&[&name, &value])?;
        self.adjust(Adjustment::SetResource { name, value })
    }

    fn set_unified(&mut self, file: String, value: String) -> Adjusted {
        self.take(&[&file, &value])?;
        self.adjust(Adjustment::SetUnified { file, value })
    }
}

impl wit::adjust_rlimits::Host for Guest {
    fn set(&mut self, kind: String, soft: String, hard: String) -> Adjusted {
        self.take(&[&kind, &soft, &hard])?;
        self.adjust(Adjustment::SetRlimit { kind, soft, hard })
    }

    fn remove(&mut self, kind: String) -> Adjusted {
        self.take(&[&kind])?;
        self.adjust(Adjustment::RemoveRlimit { kind })
    }
}

impl wit::adjust_process::Host for Guest {
    fn set_args(&mut self, args: Vec<String>) -> Adjusted {
        self.take(&texts(&args).collect::<Vec<_>>())?;
        self.adjust(Adjustment::SetArgs { args })
    }

    fn set_cwd(&mut self, path: String) -> Adjusted {
        self.take(&[&path])?;
        self.adjust(Adjustment::SetCwd { path })
    }

    fn set_user(&mut self, uid: u32, gid: u32, additional_gids: Vec<u32>) -> Adjusted {
        self.take(&[])?;
        self.adjust(Adjustment::SetUser { uid, gid, additional_gids })
    }

    fn set_oom_score_adj(&mut self, value: i32) -> Adjusted {
        self.take(&[])?;
        self.adjust(Adjustment::SetOomScoreAdj { value })
    }
}

impl wit::adjust_namespaces::Host for Guest {
    fn set(&mut self, kind: String, path: Option<String>) -> Adjusted {
        self.take(&[&kind, path.as_deref().unwrap_or_default()])?;
        self.adjust(Adjustment::SetNamespace { kind, path })
    }

    fn remove(&mut self, kind: String) -> Adjusted {
        self.take(&[&kind])?;
        self.adjust(Adjustment::RemoveNamespace { kind })
    }
}

impl wit::adjust_security::Host for Guest {
    fn drop_capability(&mut self, name: String) -> Adjusted {
        self.take(&[&name])?;
        self.adjust(Adjustment::DropCapability { name })
    }

    fn add_capability(&mut self, name: String) -> Adjusted {
        self.take(&[&name])?;
        self.adjust(Adjustment::AddCapability { name })
    }

    fn set_no_new_privileges(&mut self, value: bool) -> Adjusted {
        self.take(&[])?;
        self.adjust(Adjustment::SetNoNewPrivileges { value })
    }

    fn set_seccomp(&mut self, profile: String) -> Adjusted {
        self.take(&[&profile])?;
        self.adjust(Adjustment::SetSeccomp { profile })
    }

    fn set_apparmor_profile(&mut self, name: String) -> Adjusted {
        self.take(&[&name])?;
        self.adjust(Adjustment::SetApparmorProfile { name })
    }

    fn set_selinux_label(&mut self, label: String) -> Adjusted {
        self.take(&[&label])?;
        self.adjust(Adjustment::SetSelinuxLabel { label })
    }

    fn mask_path(&mut self, path: String) -> Adjusted {
        self.take(&[&path])?;
        self.adjust(Adjustment::MaskPath { path })
    }

    fn write_protect_path(&mut self, path: String) -> Adjusted {
        self.take(&[&path])?;
        self.adjust(Adjustment::WriteProtectPath { path })
    }

    fn set_root_read_only(&mut self, value: bool) -> Adjusted {
        self.take(&[])?;
        self.adjust(Adjustment::SetRootReadOnly { value })
    }
}

impl wit::adjust_hooks::Host for Guest {
    fn add(&mut self, kind: String, hook: wit::adjust_hooks::Hook) -> Adjusted {
        let wit::adjust_hooks::Hook { path, args, env, timeout } = hook;
        let own = [kind.as_str(), &path];
        self.take(&own.into_iter().chain(texts(&args)).chain(texts(&env)).collect::<Vec<_>>())?;
        let hook = plugin::Hook { path, args, env, timeout };
        self.adjust(Adjustment::AddHook { kind, hook })
    }
}

impl wit::adjust_raw::Host for Guest {
    fn merge(&mut self, patch: String) -> Adjusted {
        self.take(&[&patch])?;
        self.adjust(Adjustment::Merge { patch })
    }
}
