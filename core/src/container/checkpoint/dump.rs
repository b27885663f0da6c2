//! Writing a checkpoint of a container.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::super::create::{Keeper, Opened, raw_of};
use super::super::handle::{Container, PATIENCE};
use super::super::record::Status;
use super::super::state_dir::{StateDir, make_directory};
use super::criu::{self, Criu, text_of};
use super::directories::Directories;
use super::messages::{Features, Kind, Options, PageServer};
use super::superblock::Kept;
use super::{CheckpointOptions, DESCRIPTORS, common, mounts, namespaces, need_root};
use crate::compile::{CriuInput, Descriptors, Slot, compile_criu};
use crate::launch::{Deadline, Relation};
use crate::{Category, Error, Result, Stage};

const LOG: &str = "dump.log";

impl Container {
    /// Writes the state of its processes to files, by CRIU. Unless it is to run on, they are dead
    /// afterwards, and the container has stopped. It must be running or paused. Blocks.
    ///
    /// Needs root and the program `criu`.
    pub fn checkpoint(&self, options: &CheckpointOptions<'_>) -> Result<()> {
        dump(self, options).map_err(|error| error.of_container(self.id()))
    }
}

fn dump(container: &Container, options: &CheckpointOptions<'_>) -> Result<()> {
    let deadline = Deadline::within(options.criu.timeout, options.criu.cancel);
    deadline.check()?;
    let shared = &*container.0;
    need_root(&shared.runtime)?;
    let _lock = shared.dir.lock(PATIENCE)?;
    let status = container.status()?;
    if !matches!(status, Status::Running | Status::Paused) {
        let message = format!("container cannot be checkpointed in {} state", status.name());
        return Err(Error::new(Category::State, Stage::Checkpoint, message));
    }
    check_root(container)?;
    let directories = Directories::make(&options.criu, LOG)?;
    check_parent(options)?;
    let request = request(container, options, &directories)?;
    if !options.pre_dump {
        write_descriptors(container, &options.criu.image_dir)?;
    }

    let _kept = Kept::of(shared.cgroup.location());
    let criu = start(container, &deadline)?;
    let wanted = Features {
        mem_track: options.pre_dump.then_some(true),
        lazy_pages: options.criu.lazy_pages.then_some(true),
    };
    if wanted != Features::default() {
        criu.check_features(wanted, &deadline)?;
    }
    let kind = if options.pre_dump { Kind::PreDump } else { Kind::Dump };
    let mut status = options.status;
    criu.carry_out(kind, request, directories.log(), &deadline, &mut |notification, _| {
        if notification.script.as_deref() == Some("status-ready")
            && let Some(status) = status.take()
        {
            // Who does not listen does not want to know.
            let _ = nix::unistd::write(status, &[0]);
        }
        Ok(())
    })?;
    // After a pre-dump it would wait for the next one.
    drop(criu);
    if !options.pre_dump && !options.leave_running {
        shared.init.wait(Some(PATIENCE), None)?;
    }
    Ok(())
}

/// The images of a pre-dump are found again by a link, which has to lead there from anywhere.
fn check_parent(options: &CheckpointOptions<'_>) -> Result<()> {
    let Some(parent) = &options.parent else { return Ok(()) };
    let invalid = |why: &str| {
        let message = format!("the images of the pre-dump, {parent:?} (--parent-path), {why}");
        Err(Error::new(Category::Invalid, Stage::Arguments, message))
    };
    if parent.is_absolute() {
        return invalid("have to be named relative to the directory with the new ones");
    }
    if !options.criu.image_dir.join(parent).is_dir() {
        return invalid("are in no directory that is there");
    }
    Ok(())
}

/// What an overlay has taken is in no image, and would be missing.
fn check_root(container: &Container) -> Result<()> {
    let spec = container.spec();
    let Some(root) = spec.root() else { return Ok(()) };
    let about = container.about();
    let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let seen = identity(Path::new(&format!("/proc/{}/root", container.init().pid())));
    if seen.is_none() || seen == identity(&about.bundle.join(root.path())) {
        return Ok(());
    }
    let message = "changes to the container's root are in a private overlay, which no checkpoint \
                   keeps";
    Err(Error::new(Category::Unsupported, Stage::Checkpoint, message)
        .hint("create the container with a root of its own"))
}

fn start(container: &Container, deadline: &Deadline<'_>) -> Result<Criu> {
    let shared = &*container.0;
    let runtime = &shared.runtime;
    let (here, there) = criu::sockets()?;
    let path = criu::search_path();
    let descriptors = Descriptors { pass: 1, ..Descriptors::default() };
    let plan = compile_criu(&CriuInput { path: &path, descriptors, restore: None })?;
    let passed = [std::os::fd::AsFd::as_fd(&there)];
    let opened = Opened::open(&plan, |slot| match slot {
        Slot::Pass(index) => raw_of(&passed, *index),
        _ => None,
    })?;
    // The lock sees to it that nobody else needs it.
    let name = "criu";
    let path = shared.dir.path.join(name);
    let _ = fs::remove_dir_all(&path);
    make_directory(&path)
        .map_err(|error| Error::io(Stage::State, &error, format!("create {path:?}")))?;
    let dir = StateDir::open(&shared.dir.path, name)?;
    let (keeper, _) = Keeper::spawn(runtime, Relation::Leaving)?;
    let started = Criu::start(runtime, &keeper, &plan, &opened, &dir, here, deadline);
    drop(there);
    let _ = dir.remove();
    started
}

fn request(
    container: &Container,
    options: &CheckpointOptions<'_>,
    directories: &Directories,
) -> Result<Options> {
    let shared = &*container.0;
    let spec = container.spec();
    let pid = container.init().pid();
    let mut request = Options {
        pid: Some(pid),
        leave_running: Some(options.leave_running),
        tcp_skip_in_flight: Some(options.tcp_skip_in_flight),
        tcp_close: options.tcp_close.then_some(true),
        link_remap: Some(options.link_remap),
        external: namespaces::external(spec)?,
        ..common(&shared.runtime, &options.criu, directories, spec, shared.cgroup.location())
    };
    if let Some(root) = spec.root() {
        request.root = Some(text_of(&container.about().bundle.join(root.path()))?);
    }
    if let Some(parent) = &options.parent {
        request.parent_img = Some(text_of(parent)?);
        request.track_mem = Some(true);
    }
    if let Some((address, port)) = &options.page_server {
        let (address, port) = (Some(address.clone()), Some((*port).into()));
        request.page_server = Some(PageServer { address, port });
    }
    let location = shared.cgroup.location();
    if let Some(freezer) = location.unified().or_else(|| location.controller("freezer")) {
        request.freeze_cgroup = Some(text_of(&freezer.directory())?);
    }
    if !options.pre_dump {
        request.external_mounts = mounts::of_container(pid, spec)?;
    }
    Ok(request)
}

/// What standard input, output and error are, for a restore to put others in their place. The file
/// and its format are runc's, so that either can restore the other's images.
fn write_descriptors(container: &Container, images: &Path) -> Result<()> {
    let pid = container.init().pid();
    let name = |number: i32| {
        let link = fs::read_link(format!("/proc/{pid}/fd/{number}"));
        link.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let names = serde_json::json!([name(0), name(1), name(2)]).to_string();
    let path = images.join(DESCRIPTORS);
    let mut options = fs::File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(&path)
        .and_then(|mut file| file.write_all(names.as_bytes()))
        .map_err(|error| Error::io(Stage::Checkpoint, &error, format!("write {path:?}")))
}
