//! What comes out and goes in is what the JSON schemas of the runtime specification say. They come
//! from the module that `tests/go.mod` names, in the version that it names.

use std::path::{Path, PathBuf};
use std::process::Command;

use jsonschema::{Registry, Validator};
use locule::spec::{self, Network, Template};
use locule_lifecycle::prelude::*;

pub const CASES: &[Case] = cases![
    the_state_of_a_container_fits_the_schema_in_every_status,
    the_features_document_fits_the_schema,
    default_configurations_fit_the_schema,
    what_is_good_for_the_schema_is_taken_and_what_is_bad_is_refused,
    every_member_that_the_schema_knows_is_read,
];

/// The schemas, in a directory of Go's module cache.
fn schemas(t: &Test) -> PathBuf {
    let module = "github.com/opencontainers/runtime-spec";
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let go = Command::new("go")
        .args(["mod", "download", "-json", module])
        .current_dir(tests)
        .output()
        .unwrap_or_else(|_| t.skip("go, which brings the schemas of the specification"));
    let told: Value = serde_json::from_slice(&go.stdout).unwrap_or_default();
    match told["Dir"].as_str() {
        Some(directory) => Path::new(directory).join("schema"),
        None => t.skip(&format!("the module {module}: {}", String::from_utf8_lossy(&go.stderr))),
    }
}

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    // Two references in the schemas lack a slash, which not every validator minds.
    serde_json::from_str(&text.replace("#definitions/", "#/definitions/"))
        .unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

/// The schema of a kind of document. The schemas refer to each other by file name.
fn schema(directory: &Path, name: &str) -> Validator {
    let uri = |file: &str| format!("http://schema/{file}");
    let mut registry = Registry::new();
    for entry in std::fs::read_dir(directory).expect("the schemas").flatten() {
        let file = entry.file_name().into_string().expect("a plain name");
        if file.ends_with(".json") {
            let resource = jsonschema::Resource::from_contents(read(&entry.path()));
            registry = registry.add(uri(&file), resource).expect("a schema");
        }
    }
    let registry = registry.prepare().expect("schemas that refer to each other");
    jsonschema::options()
        .with_registry(&registry)
        .with_base_uri(uri(name))
        .build(&read(&directory.join(name)))
        .expect("a schema")
}

/// What is wrong with a document: place and reason of each fault.
fn faults(schema: &Validator, document: &Value) -> Vec<String> {
    let tell = |error: jsonschema::ValidationError| format!("{}: {error}", error.instance_path());
    schema.iter_errors(document).map(tell).collect()
}

#[track_caller]
fn fits(schema: &Validator, document: &Value) {
    assert_eq!(faults(schema, document), [""; 0], "{document:#}");
}

/// An empty object lacks something in each of them: the schema is in force.
#[track_caller]
fn is_in_force(schema: &Validator) {
    assert_ne!(faults(schema, &json!({})), [""; 0]);
}

fn the_state_of_a_container_fits_the_schema_in_every_status(t: &Test) {
    t.need_root();
    let schema = schema(&schemas(t), "state-schema.json");
    is_in_force(&schema);
    // Hooks are told of the statuses between the calls.
    let mut spec = t.spec(&["/bin/sleep", "1000"]);
    let told = |name: &str| t.dir.join(format!("{name}.json"));
    for name in ["createRuntime", "createContainer", "poststart"] {
        let args = ["sh", "-c", &format!("cat >{}", told(name).display())];
        spec["hooks"][name] = json!([{ "path": "/bin/sh", "args": args }]);
    }
    spec["hooks"]["startContainer"] =
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", "cat >/tmp/startContainer.json"] }]);
    spec["mounts"].as_array_mut().unwrap().push(json!({
        "destination": "/tmp", "type": "bind", "source": t.dir, "options": ["rbind", "rw"],
    }));
    spec["annotations"] = json!({ "org.example.team": "blue" });

    let has_status = |state: &Value, status: &str| {
        assert_eq!(state["status"], status);
        fits(&schema, state);
    };
    let container = t.create("a", &spec);
    has_status(&container.state().expect("the state"), "created");
    started(&*container);
    has_status(&container.state().expect("the state"), "running");
    for (name, status) in [
        ("createRuntime", "creating"),
        ("createContainer", "creating"),
        ("startContainer", "created"),
        ("poststart", "running"),
    ] {
        has_status(&read(&told(name)), status);
    }
    if container.pause().is_ok() {
        // The schema has four statuses; the text lets a runtime have more, and engines know this.
        let paused = container.state().expect("the state");
        assert_eq!(paused["status"], "paused");
        let faults = faults(&schema, &paused);
        assert!(matches!(&faults[..], [one] if one.starts_with("/status: ")), "{faults:?}");
        container.resume().expect("resume");
    }
    for state in t.engine().list().expect("the list") {
        fits(&schema, &state);
    }
    container.signal(libc::SIGKILL, false).expect("kill");
    ended(&*container.init());
    has_status(&container.state().expect("the state"), "stopped");
    container.delete(false).expect("delete");
}

fn the_features_document_fits_the_schema(t: &Test) {
    let schema = schema(&schemas(t), "features-schema.json");
    is_in_force(&schema);
    let features = t.engine().features().expect("the features");
    fits(&schema, &features);
    // What the schema does not ask for, and callers rely on all the same.
    for list in ["/hooks", "/mountOptions", "/linux/namespaces", "/linux/seccomp/archs"] {
        let list = features.pointer(list).and_then(Value::as_array).expect(list);
        assert!(!list.is_empty());
    }
}

fn default_configurations_fit_the_schema(t: &Test) {
    let schema = schema(&schemas(t), "config-schema.json");
    is_in_force(&schema);
    let mut all = vec![Template::new("rootfs", ["sh"])];
    let mut everything = Template::new("/srv/image", ["server", "--port", "80"]);
    everything.env = vec!["TERM=xterm".into()];
    everything.cwd = "/srv".into();
    everything.user = (1000, 1000);
    everything.readonly = true;
    everything.terminal = true;
    everything.network = Network::Host;
    everything.memory = Some(1 << 30);
    everything.cpus = Some(1.5);
    everything.pids = Some(64);
    all.push(everything.clone());
    everything.rootless = Some((1000, 100));
    all.push(everything);
    let mut documents: Vec<Vec<u8>> =
        all.iter().map(|template| template.json().expect("a template is JSON")).collect();
    // Through the C ABI, with every set of flags.
    for flags in 0..16 {
        documents.push(locule_lifecycle::generated_spec(flags));
    }
    for json in documents {
        fits(&schema, &serde_json::from_slice(&json).expect("JSON"));
        spec::validate(&spec::parse(&json).expect("parse")).expect("validate");
    }
}

/// The specification's own examples. Most of the good ones show one member and are no whole
/// configuration; the complete one keeps to the rules beyond types, too.
fn what_is_good_for_the_schema_is_taken_and_what_is_bad_is_refused(t: &Test) {
    let directory = schemas(t);
    let examples = |kind: &str| {
        let folder = directory.join("test/config").join(kind);
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{folder:?}: {e}"));
        entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    let parsed = |path: &Path| {
        let json = std::fs::read_to_string(path).expect("an example");
        // The complete one says that it is older than the first version.
        spec::parse(json.replace("0.5.0-dev", spec::OCI_VERSION).as_bytes())
    };
    let good = examples("good");
    assert!(good.len() > 5, "{good:?}");
    for path in good {
        let spec = parsed(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        if path.ends_with("spec-example.json") {
            spec::validate(&spec).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        }
    }
    for path in examples("bad") {
        // What is wrong for another system does not concern this one.
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"freebsd")) {
            continue;
        }
        let taken = parsed(&path).and_then(|spec| spec::validate(&spec));
        assert!(taken.is_err(), "{path:?} was taken");
    }
}

/// One configuration for each value that some member can have, with what the schema requires
/// around it: each is read, and nothing of it is lost.
fn every_member_that_the_schema_knows_is_read(t: &Test) {
    let schemas = Schemas::read(&schemas(t));
    let config = schemas.get("config-schema.json", "");
    let documents = schemas.samples("config-schema.json", config);
    assert!(documents.len() > 300, "{} samples", documents.len());
    let mut faults = Vec::new();
    for mut document in documents {
        // Sections of other systems are none of our business.
        if ["solaris", "windows", "vm", "zos", "freebsd"].iter().any(|s| document.get(s).is_some())
        {
            continue;
        }
        document["ociVersion"] = json!(spec::OCI_VERSION);
        let text = document.to_string();
        match spec::parse(text.as_bytes()).and_then(|spec| spec::to_json(&spec)) {
            Err(error) => faults.push(format!("{text}: {error}")),
            Ok(written) => {
                let written: Value = serde_json::from_slice(&written).expect("JSON");
                if let Some(lost) = lost("", &document, &written) {
                    faults.push(format!("{text}: {lost} is lost"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The pointer of something in `all` that `part` does not have.
fn lost(at: &str, all: &Value, part: &Value) -> Option<String> {
    match (all, part) {
        (Value::Object(all), Value::Object(part)) => all.iter().find_map(|(key, value)| {
            lost(&format!("{at}/{key}"), value, part.get(key).unwrap_or(&Value::Null))
        }),
        // No machine has the memory that would make a difference between these two.
        (Value::Number(all), Value::Number(part))
            if at.starts_with("/linux/resources/hugepageLimits/") && all.is_u64() =>
        {
            (all.as_u64().map(|all| all.min(i64::MAX as u64)) != part.as_u64())
                .then(|| at.to_owned())
        }
        (Value::Array(all), Value::Array(part)) if all.len() == part.len() => {
            let pairs = all.iter().zip(part).enumerate();
            pairs.into_iter().find_map(|(index, (a, b))| lost(&format!("{at}/{index}"), a, b))
        }
        _ => (all != part).then(|| at.to_owned()),
    }
}

/// All schemas by file name.
struct Schemas(std::collections::BTreeMap<String, Value>);

impl Schemas {
    fn read(directory: &Path) -> Schemas {
        let entries = std::fs::read_dir(directory).expect("the schemas").flatten();
        let name = |path: &Path| path.file_name()?.to_str().map(str::to_owned);
        let files = entries.map(|entry| entry.path());
        let files = files.filter(|path| path.extension().is_some_and(|ext| ext == "json"));
        Schemas(files.map(|path| (name(&path).expect("a plain name"), read(&path))).collect())
    }

    fn get(&self, file: &str, pointer: &str) -> &Value {
        self.0[file].pointer(pointer).unwrap_or_else(|| panic!("{file}#{pointer}"))
    }

    /// Values that fit: of every kind, and at the edges of what is allowed.
    fn samples(&self, file: &str, schema: &Value) -> Vec<Value> {
        if let Some(reference) = schema["$ref"].as_str() {
            let (name, pointer) = reference.split_once('#').expect("a file and a pointer");
            let file = if name.is_empty() { file } else { name };
            return self.samples(file, self.get(file, pointer));
        }
        for key in ["oneOf", "anyOf", "allOf"] {
            if let Some(choices) = schema[key].as_array() {
                return choices.iter().flat_map(|choice| self.samples(file, choice)).collect();
            }
        }
        if let Some(values) = schema["enum"].as_array() {
            return values.clone();
        }
        match schema["type"].as_str().unwrap_or("object") {
            "boolean" => vec![json!(true), json!(false)],
            "integer" | "number" => ["minimum", "maximum"]
                .into_iter()
                .map(|edge| schema.get(edge).cloned().unwrap_or(json!(7)))
                .collect(),
            "string" => texts(schema["pattern"].as_str().unwrap_or_default()),
            "null" => Vec::new(),
            "array" => {
                self.samples(file, &schema["items"]).into_iter().map(|s| json!([s])).collect()
            }
            _ => self.objects(file, schema),
        }
    }

    fn objects(&self, file: &str, schema: &Value) -> Vec<Value> {
        let none = serde_json::Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&none);
        let mut required = json!({});
        for name in schema["required"].as_array().into_iter().flatten() {
            let name = name.as_str().expect("a name");
            required[name] = self.samples(file, &properties[name]).swap_remove(0);
        }
        // The text of the specification requires these two, and the schema forgets to.
        for name in ["domain", "mode"] {
            if let Some(schema) = properties.get(name) {
                required[name] = self.samples(file, schema).swap_remove(0);
            }
        }
        let mut all = vec![required.clone()];
        for (name, schema) in properties {
            let samples = match name.as_str() {
                // Any text for the schema, but not for the specification.
                "bounding" | "effective" | "inheritable" | "permitted" | "ambient" => {
                    vec![json!(["CAP_CHECKPOINT_RESTORE"])]
                }
                "type" if properties.contains_key("access") => texts("^[cbupa]$"),
                _ => self.samples(file, schema),
            };
            for sample in samples {
                let mut object = required.clone();
                object[name] = sample;
                all.push(object);
            }
        }
        let others = schema["patternProperties"].as_object().into_iter().flatten();
        let others = others.map(|(_, schema)| schema).chain(schema.get("additionalProperties"));
        for schema in others.filter(|schema| schema.is_object()) {
            let named = |sample| json!({ "name": sample });
            all.extend(self.samples(file, schema).into_iter().map(named));
        }
        all
    }
}

/// Texts for a pattern of the schemas.
fn texts(pattern: &str) -> Vec<Value> {
    let texts: &[&str] = match pattern {
        "" | ".{1,}" => &["/text"],
        "^[cbup]$" => &["c", "b", "u", "p"],
        "^[cbupa]$" => &["c", "b", "u", "p", "a"],
        "^[1-9][0-9]*[KMG]B$" => &["64KB", "2MB", "1GB"],
        "^RLIMIT_[A-Z]+$" => &["RLIMIT_CPU", "RLIMIT_RTTIME"],
        "^MB:[^\\n]*$" => &["MB:0=20"],
        "^[0-9, -]*$" => &["0", "0-3,7"],
        other => panic!("a new pattern: {other}"),
    };
    texts.iter().map(|text| json!(text)).collect()
}
