//! Refuses containers that run as root or that mount more of the host than they may, and takes
//! capabilities away.

mod path;

use locule_plugin::{Container, Failure, Plugin, Refusal, Stage, config, security, spec_view};
use serde::Deserialize;
use serde::de::DeserializeOwned;

struct Policy;

locule_plugin::export!(Policy);

/// Codes of failures, for those who handle them.
const RUNS_AS_ROOT: u32 = 1;
const MOUNTS_THE_HOST: u32 = 2;

/// The plugin's configuration. Without any, nobody is root and nothing of the host is mounted.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
struct Rules {
    allow_root: bool,
    host_paths: Vec<String>,
    drop_capabilities: Vec<String>,
}

/// A member of the configuration's `mounts`.
#[derive(Deserialize)]
struct Mount {
    destination: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    source: String,
    #[serde(default)]
    options: Vec<String>,
}

impl Plugin for Policy {
    fn configure() -> Result<Vec<Stage>, Failure> {
        Rules::read()?;
        Ok(vec![Stage::Create, Stage::Exec])
    }

    fn handle(stage: Stage, container: &Container) -> Result<(), Failure> {
        let rules = Rules::read()?;
        rules.check_user()?;
        if stage == Stage::Create {
            rules.check_mounts(container)?;
        }
        rules.drop_capabilities()
    }
}

impl Rules {
    fn read() -> Result<Self, Failure> {
        let rules: Option<Self> = serde_json::from_str(&config::get())
            .map_err(|error| Failure::new(format!("the configuration is wrong: {error}")))?;
        let rules = rules.unwrap_or_default();
        match rules.host_paths.iter().find(|path| !path.starts_with('/')) {
            Some(path) => Err(Failure::new(format!(
                "the configuration is wrong: hostPaths has {path:?}, which does not begin with /"
            ))),
            None => Ok(rules),
        }
    }

    /// The uid is that inside the container. Root that a user namespace maps to somebody else is
    /// refused as well: it still is root over what the namespace owns.
    fn check_user(&self) -> Result<(), Failure> {
        // A container may be created without a process. Without a user it would run as root.
        if self.allow_root || spec_view::get("/process").is_none() {
            return Ok(());
        }
        match view("/process/user/uid")?.unwrap_or(0u32) {
            0 => Err(Failure::new("process.user.uid is 0: the policy lets nobody run as root")
                .with_code(RUNS_AS_ROOT)),
            _ => Ok(()),
        }
    }

    fn check_mounts(&self, container: &Container) -> Result<(), Failure> {
        let mounts: Vec<Mount> = view("/mounts")?.unwrap_or_default();
        for (index, mount) in mounts.iter().enumerate().filter(|(_, mount)| mount.is_bind()) {
            if !self.allows(&mount.source, &container.bundle) {
                return Err(Failure::new(format!(
                    "mounts[{index}].source is {:?}, for {}: {}",
                    mount.source,
                    mount.destination,
                    self.allowance()
                ))
                .with_code(MOUNTS_THE_HOST));
            }
        }
        Ok(())
    }

    /// Whether a source is in the bundle, or in one of the allowed paths.
    fn allows(&self, source: &str, bundle: &str) -> bool {
        if !source.starts_with('/') {
            return path::stays_inside(source);
        }
        let source = path::normal(source);
        self.host_paths.iter().any(|allowed| path::is_at_or_below(&source, &path::normal(allowed)))
            || (!bundle.is_empty() && path::is_at_or_below(&source, &path::normal(bundle)))
    }

    fn allowance(&self) -> String {
        match &self.host_paths[..] {
            [] => "the policy lets nothing of the host be mounted".into(),
            paths => format!("the policy lets only {} be mounted", paths.join(", ")),
        }
    }

    fn drop_capabilities(&self) -> Result<(), Failure> {
        for name in &self.drop_capabilities {
            security::drop_capability(name).map_err(|refusal: Refusal| {
                Failure::new(format!("cannot drop {name}: {}", refusal.reason()))
            })?;
        }
        Ok(())
    }
}

impl Mount {
    /// As the runtime specification has it, the options make a bind mount. The type is looked at too
    /// for the sake of runtimes that go by it.
    fn is_bind(&self) -> bool {
        self.kind == "bind"
            || self.options.iter().any(|option| option == "bind" || option == "rbind")
    }
}

/// What the configuration has at a pointer.
fn view<T: DeserializeOwned>(pointer: &str) -> Result<Option<T>, Failure> {
    spec_view::get(pointer).map(|json| serde_json::from_str(&json)).transpose().map_err(|error| {
        Failure::new(format!("cannot read {pointer} of the configuration: {error}"))
    })
}
