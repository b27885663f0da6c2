//! Who is measured: programs that are run once per container, and processes that stay and make
//! many. The latter take their own times, so that no pipe is in them.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::time::Instant;

use crate::Result;

/// Something that does one operation over and over.
pub struct Contender {
    /// Its name in the tables.
    pub name: &'static str,
    /// How many operations in a row; the first of each batch is not counted.
    pub batch: usize,
    means: Means,
}

enum Means {
    Programs { steps: Vec<Vec<String>> },
    Server { server: Rc<RefCell<Server>>, command: &'static str },
}

impl Contender {
    /// A program that is executed for each operation.
    pub fn program(name: &'static str, batch: usize, argv: Vec<String>) -> Contender {
        Contender::programs(name, batch, vec![argv])
    }

    /// Programs that are executed one after the other for each operation.
    pub fn programs(name: &'static str, batch: usize, steps: Vec<Vec<String>>) -> Contender {
        Contender { name, batch, means: Means::Programs { steps } }
    }

    /// A process that does the operation when it is told `command`.
    pub fn server(
        name: &'static str,
        batch: usize,
        server: &Rc<RefCell<Server>>,
        command: &'static str,
    ) -> Contender {
        Contender { name, batch, means: Means::Server { server: Rc::clone(server), command } }
    }

    /// Nanoseconds of each operation of one batch.
    pub fn run(&mut self) -> Result<Vec<f64>> {
        let count = self.batch + 1;
        let mut times = match &self.means {
            Means::Programs { steps } => (0..count)
                .map(|_| steps.iter().map(|argv| run_program(argv)).sum())
                .collect::<Result<_>>()?,
            Means::Server { server, command } => {
                server.borrow_mut().ask(&format!("{command} {count}"))?
            }
        };
        times.remove(0);
        Ok(times)
    }
}

/// Runs a program and waits for it; it must succeed. Nanoseconds.
pub fn run_program(argv: &[String]) -> Result<f64> {
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    let begin = Instant::now();
    let status = command.status().map_err(|error| format!("{}: {error}", argv[0]))?;
    let time = begin.elapsed().as_nanos() as f64;
    if !status.success() {
        return Err(format!("{}: {status}", argv.join(" ")).into());
    }
    Ok(time)
}

/// A process that answers each line with a line of numbers.
pub struct Server {
    name: String,
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Server {
    /// Starts it.
    pub fn start<S: AsRef<std::ffi::OsStr>>(argv: &[S]) -> Result<Server> {
        let mut command = Command::new(&argv[0]);
        command.args(&argv[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let name = argv[0].as_ref().to_string_lossy().into_owned();
        let mut process = command.spawn().map_err(|error| format!("{name}: {error}"))?;
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().ok_or("no output")?);
        Ok(Server { name, process, input, output })
    }

    /// Sends a line without waiting for the answer.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().ok_or("no input")?;
        Ok(writeln!(input, "{}", line.trim_start())?)
    }

    /// Takes the answer.
    pub fn answer(&mut self) -> Result<Vec<f64>> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err(format!("{} has given up", self.name).into());
        }
        Ok(line.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>()?)
    }

    /// Sends a line and takes the answer.
    pub fn ask(&mut self, line: &str) -> Result<Vec<f64>> {
        self.tell(line)?;
        self.answer()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The end of its input is the end of its work.
        self.input = None;
        let _ = self.process.wait();
    }
}
