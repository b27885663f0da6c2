//! The engine through the Rust API.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use locule::cgroup::{Manager, Watch};
use locule::plugin::Plugins;
use locule::{
    Cancel, CreateOptions, Error, Event, ExecOptions, Exit, Runtime, RuntimeOptions, Source, Stdio,
    TerminalSize,
};
use serde_json::Value;

use crate::engine::{
    Container, Create, Ended, Engine, Exec, Failure, Happened, Process, Result, Stream, Token,
};

/// The Rust API.
pub struct RustApi(Runtime);

impl RustApi {
    /// Opens a runtime.
    pub fn open(state_dir: &Path) -> Result<RustApi> {
        RustApi::with_plugins(state_dir, Plugins::default())
    }

    /// Opens a runtime that calls plugins.
    pub fn with_plugins(state_dir: &Path, plugins: Plugins) -> Result<RustApi> {
        let cgroup_manager = match crate::with_systemd() {
            true => Manager::Systemd,
            false => Manager::Cgroupfs,
        };
        let options = RuntimeOptions {
            state_dir: Some(state_dir.to_owned()),
            cgroup_manager,
            plugins,
            ..RuntimeOptions::default()
        };
        Ok(RustApi(Runtime::new(options)?))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure {
            category: error.category(),
            stage: error.stage() as u32,
            errno: error.errno().unwrap_or(0),
            pointer: error.pointer().unwrap_or_default().to_owned(),
            message: error.to_string(),
            hint: error.advice().unwrap_or_default().to_owned(),
            container_id: error.container_id().unwrap_or_default().to_owned(),
        }
    }
}

fn cancel_of(token: Option<&Token>) -> Option<&Cancel> {
    token.map(|token| match token {
        Token::Rust(cancel) => cancel,
        Token::C(_) => unreachable!("a token of the other face"),
    })
}

fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: the case keeps it open through the call, as `Stream::Fd` asks.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

fn stdio<'a>(streams: &[Stream; 3]) -> [Stdio<'a>; 3] {
    streams.map(|stream| match stream {
        Stream::Null => Stdio::Null,
        Stream::Inherit => Stdio::Inherit,
        Stream::Fd(fd) => Stdio::Fd(borrow(fd)),
        Stream::Pipe => Stdio::Pipe,
    })
}

fn with_options<T>(
    options: &Create<'_>,
    call: impl FnOnce(CreateOptions<'_>) -> locule::Result<T>,
) -> Result<T> {
    let source = match &options.spec {
        Some(json) => Source::Spec { json, base: options.bundle.clone() },
        None => Source::Bundle(options.bundle.clone().expect("a bundle or a spec")),
    };
    let pass_fds: Vec<_> = options.pass_fds.iter().map(|&fd| borrow(fd)).collect();
    let converted = CreateOptions {
        id: options.id.as_deref(),
        source,
        rootfs: options.rootfs,
        lower: &options.lower,
        changes: options.changes.as_deref(),
        stdio: stdio(&options.stdio),
        parentage: options.parentage,
        on_host_exit: options.on_host_exit,
        pass_fds: &pass_fds,
        raw_output: false,
        seccomp_listener: options.seccomp_listener.map(borrow),
        timeout: options.timeout,
        cancel: cancel_of(options.cancel),
    };
    Ok(call(converted)?)
}

impl Engine for RustApi {
    fn create(&self, options: &Create<'_>) -> Result<Arc<dyn Container>> {
        with_options(options, |options| self.0.create(options))
            .map(|container| Arc::new(container) as Arc<dyn Container>)
    }

    fn open(&self, id: &str) -> Result<Arc<dyn Container>> {
        Ok(Arc::new(self.0.open(id)?))
    }

    fn list(&self) -> Result<Vec<Value>> {
        Ok(self.0.list()?.into_iter().map(|state| state.document).collect())
    }

    fn event_fd(&self) -> RawFd {
        self.0.event_fd().as_raw_fd()
    }

    fn dispatch_all(&self, timeout: Duration) -> Result<Vec<Happened>> {
        let mut all = Vec::new();
        let count = self.0.dispatch(Some(timeout), &mut |event| {
            all.push(match event {
                Event::Exited { container_id, process, exit } => {
                    Happened::Ended(Ended { container_id, pid: process.pid(), exit })
                }
                Event::OutOfMemory { container_id, .. } => Happened::OutOfMemory(container_id),
                Event::Pressure { container_id, trigger } => {
                    Happened::Pressure(container_id, trigger.resource)
                }
                other => panic!("{other:?}"),
            });
            Ok(())
        })?;
        assert_eq!(count, all.len());
        Ok(all)
    }

    fn explain(&self, options: &Create<'_>) -> Result<String> {
        with_options(options, |options| Ok(self.0.explain(&options)?.to_text()))
    }

    fn features(&self) -> Result<Value> {
        Ok(self.0.features())
    }

    fn token(&self) -> Token {
        Token::Rust(Cancel::new().expect("a token"))
    }
}

impl Container for locule::Container {
    fn id(&self) -> String {
        self.id().to_owned()
    }

    fn init(&self) -> Arc<dyn Process> {
        Arc::new(self.init().clone())
    }

    fn start(&self, cancel: Option<&Token>) -> Result<()> {
        Ok(self.start(cancel_of(cancel))?)
    }

    fn exec(&self, options: &Exec<'_>) -> Result<Arc<dyn Process>> {
        let process = options.process.to_string();
        let pass_fds: Vec<_> = options.pass_fds.iter().map(|&fd| borrow(fd)).collect();
        let converted = ExecOptions {
            stdio: stdio(&options.stdio),
            pass_fds: &pass_fds,
            seccomp_listener: options.seccomp_listener.map(borrow),
            timeout: options.timeout,
            cancel: cancel_of(options.cancel),
            ..ExecOptions::new(process.as_bytes())
        };
        Ok(Arc::new(self.exec(converted)?))
    }

    fn signal(&self, signal: i32, all: bool) -> Result<()> {
        Ok(self.signal(signal, all)?)
    }

    fn pause(&self) -> Result<()> {
        Ok(self.pause()?)
    }

    fn resume(&self) -> Result<()> {
        Ok(self.resume()?)
    }

    fn update(&self, resources: &Value) -> Result<()> {
        Ok(self.update(resources.to_string().as_bytes())?)
    }

    fn watch(&self, watch: Watch) -> Result<()> {
        Ok(self.watch(watch)?)
    }

    fn stats(&self) -> Result<Value> {
        Ok(serde_json::to_value(self.stats()?).expect("JSON"))
    }

    fn pids(&self) -> Result<Vec<i32>> {
        Ok(self.pids()?)
    }

    fn state(&self) -> Result<Value> {
        Ok(self.state()?.document)
    }

    fn delete(&self, force: bool) -> Result<()> {
        Ok(self.delete(force)?)
    }
}

impl Process for locule::Process {
    fn pid(&self) -> i32 {
        self.pid()
    }

    fn fd(&self) -> RawFd {
        self.exit_fd().as_raw_fd()
    }

    fn wait(&self, timeout: Option<Duration>, cancel: Option<&Token>) -> Result<Option<Exit>> {
        Ok(self.wait(timeout, cancel_of(cancel))?)
    }

    fn signal(&self, signal: i32) -> Result<()> {
        Ok(self.signal(signal)?)
    }

    fn take_pipe(&self, number: usize) -> Option<OwnedFd> {
        self.take_pipe(number)
    }

    fn take_terminal(&self) -> Option<OwnedFd> {
        self.take_terminal()
    }

    fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        Ok(self.resize(TerminalSize { rows, columns })?)
    }
}
