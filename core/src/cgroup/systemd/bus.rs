//! A connection to systemd for one operation: D-Bus over a Unix socket, with a deadline on
//! every wait. It lives on the calling thread, has no thread or loop of its own and keeps
//! nothing after it is dropped.
//!
//! Why not a whole D-Bus crate: `rustbus` opens its socket without close-on-exec, sends in a
//! way that raises SIGPIPE in the host, and may print on its standard error; `libdbus` sets the
//! host's SIGPIPE to be ignored; `zbus` needs a thread or a runtime. `zvariant` encodes.

use std::ffi::OsString;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, socket,
};
use serde::Serialize;
use zvariant::Type;

use super::wire::{self, FIXED, Kind, Message, Method};
use crate::error::{Category, Error, Result, Stage};
use crate::launch::Deadline;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const BUS: &str = "org.freedesktop.DBus";

/// Whose systemd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Whose {
    /// The machine's, which is process 1.
    System,
    /// The calling user's own.
    User,
}

/// An open connection.
pub(super) struct Connection<'a> {
    socket: OwnedFd,
    deadline: Deadline<'a>,
    serial: u32,
    /// Signals that came while an answer was waited for.
    signals: Vec<Message>,
}

/// Why a call did not succeed: the connection failed, or systemd said no.
#[derive(Debug)]
pub(super) enum Failure {
    Broken(Error),
    Refused { name: String, message: String },
}

impl Failure {
    /// Whether this is systemd's error of that name.
    pub(super) fn is(&self, error: &str) -> bool {
        matches!(self, Failure::Refused { name, .. } if name == error)
    }

    /// As an error of what was attempted.
    pub(super) fn into_error(self, attempt: &str) -> Error {
        match self {
            Failure::Broken(error) => error.context(attempt),
            Failure::Refused { name, message } => refusal(&name, &message, attempt),
        }
    }
}

fn refusal(name: &str, message: &str, attempt: &str) -> Error {
    let short = name.rsplit('.').next().unwrap_or(name);
    let category = match short {
        "AccessDenied" | "InteractiveAuthorizationRequired" | "AuthFailed" => Category::Permission,
        // systemd has numbers for most of what is wrong with a value.
        "InvalidArgs" | "PropertyReadOnly" | "UnknownProperty" | "InvalidSignature" | "EINVAL"
        | "ENXIO" | "ERANGE" => Category::Spec,
        "LimitsExceeded" | "NoMemory" => Category::Resource,
        "NoReply" | "Timeout" | "TimedOut" => Category::Timeout,
        "ServiceUnknown" | "NameHasNoOwner" | "UnknownMethod" => Category::Unsupported,
        _ => Category::System,
    };
    Error::new(category, Stage::Cgroup, format!("{attempt}: {message} ({short})"))
}

impl<'a> Connection<'a> {
    /// Connects to a systemd, and makes sure to be told of the ends of its jobs.
    pub(super) fn open(whose: Whose, deadline: Deadline<'a>) -> Result<Connection<'a>> {
        let mut causes = Vec::new();
        for address in addresses(whose) {
            match Self::connect(&address, deadline) {
                Ok(mut connection) => {
                    if !address.direct {
                        connection.subscribe().map_err(|failure| {
                            failure.into_error("ask systemd to report the ends of its jobs")
                        })?;
                    }
                    return Ok(connection);
                }
                Err(error) if matches!(error.category(), Category::Cancelled) => return Err(error),
                Err(error) => causes.push(format!("{}: {}", address.name(), error)),
            }
        }
        let (who, hint) = match whose {
            Whose::System => (
                "the machine's systemd",
                "is systemd process 1 here? If not, open the runtime with the cgroupfs manager",
            ),
            Whose::User => (
                "the user's systemd",
                "set XDG_RUNTIME_DIR, or DBUS_SESSION_BUS_ADDRESS; a user who is not logged in has \
                 one after `loginctl enable-linger USER`",
            ),
        };
        let message = match causes.is_empty() {
            true => format!("no way to {who} is known"),
            false => format!("cannot reach {who}: {}", causes.join("; ")),
        };
        Err(Error::new(Category::Unsupported, Stage::Cgroup, message).hint(hint))
    }

    fn connect(address: &Address, deadline: Deadline<'a>) -> Result<Connection<'a>> {
        let failed = |error: io::Error| Error::io(Stage::Cgroup, &error, "connect");
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)
            .map_err(|errno| failed(errno.into()))?;
        let to = address.socket().map_err(|errno| failed(errno.into()))?;
        loop {
            match connect(socket.as_raw_fd(), &to) {
                Ok(()) => break,
                // Too many callers; nothing can be polled for this.
                Err(Errno::EAGAIN) => deadline.pause(Duration::from_millis(2), Stage::Cgroup)?,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(failed(errno.into())),
            }
        }
        let mut connection = Connection { socket, deadline, serial: 0, signals: Vec::new() };
        connection.authenticate()?;
        Ok(connection)
    }

    /// Who the caller is, the other side sees for itself. Not telling it a number works from a
    /// user namespace as well, where the caller would tell the wrong one.
    ///
    /// All at once, as systemd's own clients do it: a server of theirs that reads the first
    /// message together with the last of these lines does not look at it before more comes.
    fn authenticate(&mut self) -> Result<()> {
        self.write(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        // One to each of the first two; old servers say yes to the first and no to the second.
        let answers = [self.read_line()?, self.read_line()?];
        if answers.iter().any(|answer| answer.starts_with("OK")) {
            return Ok(());
        }
        let message = format!("the other side does not accept this user: {answers:?}");
        Err(Error::new(Category::Permission, Stage::Cgroup, message))
    }

    fn subscribe(&mut self) -> Result<(), Failure> {
        let of_bus = |member| Method {
            destination: BUS,
            path: "/org/freedesktop/DBus",
            interface: BUS,
            member,
        };
        self.call(of_bus("Hello"), &())?;
        let rule = "type='signal',sender='org.freedesktop.systemd1',\
                    path='/org/freedesktop/systemd1',\
                    interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";
        self.call(of_bus("AddMatch"), &rule)?;
        self.manager("Subscribe", &())?;
        Ok(())
    }

    /// Calls a method of systemd's manager object.
    pub(super) fn manager<B: Serialize + Type>(
        &mut self,
        member: &str,
        body: &B,
    ) -> Result<Message, Failure> {
        let path = "/org/freedesktop/systemd1";
        let interface = "org.freedesktop.systemd1.Manager";
        self.call(Method { destination: SYSTEMD, path, interface, member }, body)
    }

    /// A property that is a string.
    pub(super) fn property(
        &mut self,
        path: &str,
        interface: &str,
        name: &str,
    ) -> Result<String, Failure> {
        let method = Method {
            destination: SYSTEMD,
            path,
            interface: "org.freedesktop.DBus.Properties",
            member: "Get",
        };
        let answer = self.call(method, &(interface, name))?;
        let value: zvariant::Value<'_> = answer.body().map_err(unreadable)?;
        String::try_from(value).map_err(unreadable)
    }

    /// Calls a method and waits for its answer.
    fn call<B: Serialize + Type>(
        &mut self,
        method: Method<'_>,
        body: &B,
    ) -> Result<Message, Failure> {
        self.serial += 1;
        let serial = NonZeroU32::new(self.serial).expect("counts from 1");
        let bytes = wire::call(method, serial, body).map_err(|error| {
            Failure::Broken(Error::new(
                Category::Spec,
                Stage::Cgroup,
                format!("{} cannot be sent: {error}", method.member),
            ))
        })?;
        self.write(&bytes).map_err(Failure::Broken)?;
        loop {
            let message = self.read().map_err(Failure::Broken)?;
            match &message.kind {
                Kind::Return(to) if *to == self.serial => return Ok(message),
                Kind::Error(to, name) if *to == self.serial => {
                    let text = message.body::<&str>().unwrap_or("no reason given");
                    return Err(Failure::Refused { name: name.clone(), message: text.to_owned() });
                }
                Kind::Signal(_) => self.signals.push(message),
                _ => {}
            }
        }
    }

    /// Waits for the end of a job, and returns its result, such as `done`.
    pub(super) fn job_result(&mut self, job: &str) -> Result<String> {
        let result = |message: &Message| {
            let is_end = matches!(&message.kind, Kind::Signal(name) if name == "JobRemoved");
            let parts = is_end.then(|| message.body());
            let (_, path, _, result): (u32, zvariant::ObjectPath<'_>, &str, &str) = parts?.ok()?;
            (path.as_str() == job).then(|| result.to_owned())
        };
        if let Some(result) = self.signals.iter().find_map(result) {
            return Ok(result);
        }
        loop {
            if let Some(result) = result(&self.read()?) {
                return Ok(result);
            }
        }
    }

    fn read(&mut self) -> Result<Message> {
        let strange = |what: String| {
            Error::new(Category::System, Stage::Cgroup, format!("systemd's message: {what}"))
        };
        let mut start = [0; FIXED];
        self.fill(&mut start)?;
        let size = wire::size(&start).ok_or_else(|| strange("not of D-Bus".to_owned()))?;
        let mut bytes = vec![0; size];
        bytes[..FIXED].copy_from_slice(&start);
        self.fill(&mut bytes[FIXED..])?;
        Message::decode(&bytes).map_err(|error| strange(error.to_string()))
    }

    /// A line of the conversation before the messages. Byte by byte: what follows is no line.
    fn read_line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") && line.len() < 1024 {
            let mut byte = [0];
            self.fill(&mut byte)?;
            line.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn fill(&mut self, mut bytes: &mut [u8]) -> Result<()> {
        while !bytes.is_empty() {
            match recv(self.socket.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Err(self.broken(Errno::ECONNRESET)),
                Ok(count) => bytes = &mut bytes[count..],
                Err(Errno::EAGAIN) => {
                    self.deadline.wait(self.socket.as_fd(), Stage::Cgroup).map_err(slow)?;
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(self.broken(errno)),
            }
        }
        Ok(())
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(self.socket.as_raw_fd(), bytes, flags) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::EAGAIN) => {
                    self.deadline
                        .wait_for_room(self.socket.as_fd(), Stage::Cgroup)
                        .map_err(slow)?;
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(self.broken(errno)),
            }
        }
        Ok(())
    }

    fn broken(&self, errno: Errno) -> Error {
        Error::os(Stage::Cgroup, errno as i32, "the connection to systemd broke")
    }
}

pub(super) fn unreadable(error: zvariant::Error) -> Failure {
    Failure::Broken(Error::new(
        Category::System,
        Stage::Cgroup,
        format!("systemd's answer is not what it should be: {error}"),
    ))
}

fn slow(error: Error) -> Error {
    match error.category() {
        Category::Timeout => {
            Error::new(Category::Timeout, Stage::Cgroup, "systemd did not answer in time")
                .with_errno(libc::ETIMEDOUT)
        }
        _ => error,
    }
}

/// Where a systemd or a bus may be reached.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    path: PathBuf,
    /// A name that is in no filesystem.
    is_abstract: bool,
    /// systemd itself, and no bus in between.
    direct: bool,
}

impl Address {
    fn file(path: impl Into<PathBuf>, direct: bool) -> Address {
        Address { path: path.into(), is_abstract: false, direct }
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn socket(&self) -> nix::Result<UnixAddr> {
        match self.is_abstract {
            true => UnixAddr::new_abstract(self.path.as_os_str().as_bytes()),
            false => UnixAddr::new(&self.path),
        }
    }
}

fn addresses(whose: Whose) -> Vec<Address> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    match whose {
        Whose::System => {
            let mut all = match variable("DBUS_SYSTEM_BUS_ADDRESS") {
                Some(text) => parse_addresses(&text, None),
                None => vec![Address::file("/run/dbus/system_bus_socket", false)],
            };
            // A machine may do without a bus, and at boot and shutdown it has to.
            all.push(Address::file("/run/systemd/private", true));
            all
        }
        Whose::User => {
            let runtime_dir = variable("XDG_RUNTIME_DIR").map(PathBuf::from);
            let runtime_dir = runtime_dir.or_else(|| {
                let usual = PathBuf::from(format!("/run/user/{}", nix::unistd::geteuid()));
                usual.exists().then_some(usual)
            });
            let mut all = Vec::new();
            if let Some(directory) = &runtime_dir {
                all.push(Address::file(directory.join("systemd/private"), true));
            }
            if let Some(text) = variable("DBUS_SESSION_BUS_ADDRESS") {
                all.extend(parse_addresses(&text, runtime_dir.as_deref()));
            }
            all
        }
    }
}

/// The Unix sockets in a list of server addresses (D-Bus specification, "Server Addresses").
fn parse_addresses(text: &OsString, runtime_dir: Option<&Path>) -> Vec<Address> {
    let mut all = Vec::new();
    for address in text.as_bytes().split(|byte| *byte == b';') {
        let Some(rest) = address.strip_prefix(b"unix:") else { continue };
        for pair in rest.split(|byte| *byte == b',') {
            let mut parts = pair.splitn(2, |byte| *byte == b'=');
            let (key, value) = (parts.next(), parts.next().unwrap_or_default());
            let path = PathBuf::from(OsString::from_vec(unescape(value)));
            match key {
                Some(b"path") => all.push(Address::file(path, false)),
                Some(b"abstract") => {
                    all.push(Address { path, is_abstract: true, direct: false });
                }
                Some(b"runtime") => {
                    all.extend(runtime_dir.map(|dir| Address::file(dir.join("bus"), false)));
                }
                _ => {}
            }
        }
    }
    all
}

/// `%20` and the like.
fn unescape(value: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(value.len());
    let mut rest = value;
    while let [first, tail @ ..] = rest {
        let escaped = (*first == b'%').then(|| tail.get(..2)).flatten();
        let code = escaped.and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                plain.push(byte);
                rest = &tail[2..];
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_specification_has_them() {
        let text = OsString::from(
            "tcp:host=a;unix:path=/run/a%20b,guid=00;unix:abstract=/tmp/dbus-X;unix:runtime=yes",
        );
        assert_eq!(
            parse_addresses(&text, Some(Path::new("/run/user/7"))),
            [
                Address::file("/run/a b", false),
                Address { path: "/tmp/dbus-X".into(), is_abstract: true, direct: false },
                Address::file("/run/user/7/bus", false),
            ]
        );
        assert!(parse_addresses(&OsString::from(""), None).is_empty());
        assert_eq!(unescape(b"%zz%2"), b"%zz%2");
    }

    #[test]
    fn systemds_refusals_get_the_category_that_fits() {
        let category = |name: &str| refusal(name, "no", "start").category();
        assert_eq!(category("org.freedesktop.DBus.Error.AccessDenied"), Category::Permission);
        assert_eq!(category("org.freedesktop.DBus.Error.PropertyReadOnly"), Category::Spec);
        assert_eq!(category("org.freedesktop.systemd1.LoadFailed"), Category::System);
    }

    /// Connects to a server that gives these answers, whatever it is asked, and stays.
    fn connected(answers: &'static [u8], time: Duration) -> (Result<()>, Vec<u8>) {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = format!("locule-test-{}-{number}", std::process::id());
        let address = Address { path: path.into(), is_abstract: true, direct: true };
        let flags = SockFlag::SOCK_CLOEXEC;
        let listener = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
        nix::sys::socket::bind(listener.as_raw_fd(), &address.socket().unwrap()).unwrap();
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(1).unwrap()).unwrap();
        let server = std::os::unix::net::UnixListener::from(listener);
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut asked = vec![0; 256];
            let length = io::Read::read(&mut stream, &mut asked).unwrap();
            io::Write::write_all(&mut stream, answers).unwrap();
            let _ = wait.recv();
            asked.truncate(length);
            asked
        });
        let connected = Connection::connect(&address, Deadline::within(Some(time), None));
        drop(end);
        (connected.map(drop), server.join().unwrap())
    }

    #[test]
    fn the_conversation_before_the_messages_is_one_write() {
        const LONG: Duration = Duration::from_secs(10);
        for answers in [&b"DATA\r\nOK 1234\r\n"[..], b"OK 1234\r\nERROR\r\n"] {
            let (connected, asked) = connected(answers, LONG);
            connected.unwrap();
            assert_eq!(asked, b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n");
        }
        let (refused, _) = connected(b"REJECTED EXTERNAL\r\nERROR\r\n", LONG);
        assert_eq!(refused.unwrap_err().category(), Category::Permission);
    }

    #[test]
    fn a_systemd_that_does_not_answer_is_waited_for_as_long_as_allowed() {
        let begun = std::time::Instant::now();
        let (refused, _) = connected(b"DATA\r\n", Duration::from_millis(50));
        assert_eq!(refused.unwrap_err().category(), Category::Timeout);
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}
