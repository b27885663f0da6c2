//! An HTTP server for one test.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

/// What a client has sent.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    /// Names in lower case.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Asked {
    pub(super) fn is(&self, method: &str, target: &str) -> bool {
        self.method == method && self.target == target
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// The length that is promised, if it is another.
    pub(super) length: Option<usize>,
    /// Says nothing more until the test is over.
    pub(super) stalls: bool,
}

impl Reply {
    pub(super) fn new(status: u16) -> Reply {
        Reply { status, headers: Vec::new(), body: Vec::new(), length: None, stalls: false }
    }

    pub(super) fn ok(body: &[u8]) -> Reply {
        Reply { body: body.to_vec(), ..Reply::new(200) }
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Reply {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(super) fn body(mut self, body: impl AsRef<[u8]>) -> Reply {
        self.body = body.as_ref().to_vec();
        self
    }
}

type Answer = dyn Fn(&Asked) -> Reply + Send + Sync;

/// Makes of a connection what is spoken over it: TLS, or nothing.
pub(super) type Wrap = dyn Fn(TcpStream) -> Box<dyn Stream> + Send + Sync;

pub(super) trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

struct Shared {
    answer: Box<Answer>,
    wrap: Option<Box<Wrap>>,
    asked: Mutex<Vec<Asked>>,
    connections: Mutex<Vec<TcpStream>>,
    over: Mutex<bool>,
    changed: Condvar,
}

pub(super) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
    listening: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn new(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Server {
        Server::start(Box::new(answer), None)
    }

    pub(super) fn start(answer: Box<Answer>, wrap: Option<Box<Wrap>>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            answer,
            wrap,
            asked: Mutex::default(),
            connections: Mutex::default(),
            over: Mutex::new(false),
            changed: Condvar::new(),
        });
        let threads = Arc::new(Mutex::new(Vec::new()));
        let (serving, started) = (shared.clone(), threads.clone());
        let listening = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if *serving.over.lock().unwrap() {
                    break;
                }
                let Ok(stream) = stream else { continue };
                serving.connections.lock().unwrap().push(stream.try_clone().unwrap());
                let serving = serving.clone();
                let thread = std::thread::spawn(move || drop(serve(&serving, stream)));
                started.lock().unwrap().push(thread);
            }
        });
        Server { address, shared, threads, listening: Some(listening) }
    }

    /// `127.0.0.1:PORT`.
    pub(super) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// `METHOD TARGET` of all that was asked.
    pub(super) fn lines(&self) -> Vec<String> {
        self.asked().iter().map(|asked| format!("{} {}", asked.method, asked.target)).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        *self.shared.over.lock().unwrap() = true;
        self.shared.changed.notify_all();
        let _ = TcpStream::connect(self.address);
        if let Some(listening) = self.listening.take() {
            let _ = listening.join();
        }
        for stream in self.shared.connections.lock().unwrap().iter() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        for thread in self.threads.lock().unwrap().drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve(shared: &Shared, stream: TcpStream) -> std::io::Result<()> {
    let socket = stream.try_clone()?;
    if shared.wrap.is_none() {
        // A TLS greeting: not for us.
        let mut first = [0];
        if stream.peek(&mut first)? == 1 && first[0] == 0x16 {
            return socket.shutdown(std::net::Shutdown::Both);
        }
    }
    let stream = match &shared.wrap {
        Some(wrap) => wrap(stream),
        None => Box::new(stream),
    };
    let mut stream = BufReader::new(stream);
    while let Some(asked) = read_request(&mut stream)? {
        shared.asked.lock().unwrap().push(asked.clone());
        let reply = (shared.answer)(&asked);
        let length = reply.length.unwrap_or(reply.body.len());
        let mut text = format!("HTTP/1.1 {} Status\r\nContent-Length: {length}\r\n", reply.status);
        for (name, value) in &reply.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let out = stream.get_mut();
        out.write_all(text.as_bytes())?;
        if asked.method != "HEAD" {
            out.write_all(&reply.body)?;
        }
        out.flush()?;
        if reply.stalls {
            let over = shared.over.lock().unwrap();
            drop(shared.changed.wait_while(over, |over| !*over).unwrap());
        }
        if length != reply.body.len() {
            break;
        }
    }
    socket.shutdown(std::net::Shutdown::Both)
}

fn read_request(stream: &mut impl BufRead) -> std::io::Result<Option<Asked>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut first = lines[0].split(' ').map(str::to_owned);
    let (method, target) = (first.next().unwrap(), first.next().unwrap());
    let headers: BTreeMap<String, String> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some(Asked { method, target, headers, body }))
}
