//! Standard streams, extra descriptors, terminals.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use locule_lifecycle::prelude::*;

pub const CASES: &[Case] = cases![
    without_streams_the_program_reads_nothing_and_its_output_vanishes,
    inherited_streams_are_the_hosts_own,
    streams_can_be_files_of_the_host,
    pipes_carry_data_both_ways,
    a_pipe_is_given_away_once,
    a_user_can_open_its_pipes_anew,
    no_descriptor_of_the_host_leaks_into_the_container,
    passed_descriptors_become_three_and_up,
    exec_has_streams_and_descriptors_of_its_own,
    a_terminal_is_the_controlling_terminal_and_the_console,
    a_terminal_has_the_size_it_was_given_and_can_be_resized,
    a_resize_is_announced_to_the_program,
    a_terminal_is_interactive,
    exec_can_have_a_terminal,
    resize_without_a_terminal_is_refused,
];

pub const HELPERS: &[Case] = cases![run_inherited];

fn memory_file(text: &str) -> File {
    // SAFETY: a C string; the result is checked and owned by nobody else.
    let mut file = unsafe {
        let fd = libc::memfd_create(c"test".as_ptr(), libc::MFD_CLOEXEC);
        assert!(fd >= 0);
        File::from_raw_fd(fd)
    };
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    file
}

fn text_of(mut file: File) -> String {
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

fn without_streams_the_program_reads_nothing_and_its_output_vanishes(t: &Test) {
    let container = t.start("a", &t.shell("echo lost; echo lost >&2; test -z \"$(cat)\""));
    assert_eq!(ended(&*container.init()), Exit::Code(0));
    assert!(container.init().take_pipe(0).is_none());
    assert!(container.init().take_pipe(1).is_none());
    container.delete(false).expect("delete");
}

fn inherited_streams_are_the_hosts_own(t: &Test) {
    let mut helper = t.helper("run_inherited", &[]);
    helper.say("hello");
    assert_eq!(helper.line(), "got hello");
    helper.finish();
}

fn run_inherited(t: &Test) {
    let mut options = t.options("a", &t.shell("read line; echo got $line"));
    options.stdio = [Stream::Inherit; 3];
    let container = t.create_with(&options);
    started(&*container);
    assert_eq!(ended(&*container.init()), Exit::Code(0));
    container.delete(false).expect("delete");
}

fn streams_can_be_files_of_the_host(t: &Test) {
    let (input, output, error) = (memory_file("in"), memory_file(""), memory_file(""));
    let mut options = t.options("a", &t.shell("cat; echo error >&2"));
    options.stdio = [&input, &output, &error].map(|file| Stream::Fd(file.as_raw_fd()));
    let container = t.create_with(&options);
    started(&*container);
    assert_eq!(ended(&*container.init()), Exit::Code(0));
    assert_eq!((&*text_of(output), &*text_of(error)), ("in", "error\n"));
    container.delete(false).expect("delete");
}

fn pipes_carry_data_both_ways(t: &Test) {
    let mut options = t.options("a", &t.shell("tr a-z A-Z; echo done >&2"));
    options.stdio = [Stream::Pipe; 3];
    let container = t.create_with(&options);
    started(&*container);
    let init = container.init();
    let mut stdin = File::from(init.take_pipe(0).expect("a pipe"));
    let text = "many words ".repeat(50_000);
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()).unwrap());
    let output = output_of(&*init);
    writer.join().unwrap();
    assert_eq!(output.exit, Exit::Code(0));
    assert_eq!(output.stdout, "MANY WORDS ".repeat(50_000));
    assert_eq!(output.stderr, "done\n");
    container.delete(false).expect("delete");
}

fn a_user_can_open_its_pipes_anew(t: &Test) {
    t.need_root();
    let mut spec = t.shell("echo text >/dev/stdout; echo error >/dev/stderr; exec cat /dev/stdin");
    spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    let output = t.run(&spec);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("text\n", "error\n"));
    // What the host has given stays the host's.
    let (file, mut options) = (memory_file(""), t.options("b", &spec));
    options.stdio[1] = Stream::Fd(file.as_raw_fd());
    t.run_with(options);
    assert_eq!(file.metadata().expect("stat").uid(), 0);
}

fn a_pipe_is_given_away_once(t: &Test) {
    let mut options = t.options("a", &t.spec(&["/bin/true"]));
    options.stdio[1] = Stream::Pipe;
    let container = t.create_with(&options);
    let init = container.init();
    assert!(init.take_pipe(0).is_none());
    assert!(init.take_pipe(1).is_some());
    assert!(init.take_pipe(1).is_none());
    container.delete(true).expect("delete");
}

/// Prints the descriptors of the shell itself.
const OPEN: &str = "cd /proc/self/fd; echo *";

fn no_descriptor_of_the_host_leaks_into_the_container(t: &Test) {
    let file = memory_file("secret");
    // SAFETY: plain integers. Without FD_CLOEXEC, as a careless host has them.
    let leaked = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD, 100) };
    assert!(leaked >= 100);
    // SAFETY: a new descriptor that nobody else owns.
    let _leaked = unsafe { OwnedFd::from_raw_fd(leaked) };
    // The shell's own globbing opens the directory.
    assert_eq!(t.inside(OPEN), "0 1 2 3");
    let container = t.sleeper("a");
    assert_eq!(exec_shell(&*container, OPEN), "0 1 2 3");
    container.delete(true).expect("delete");
}

fn passed_descriptors_become_three_and_up(t: &Test) {
    let (one, two) = (memory_file("one"), memory_file("two"));
    let mut options = t.options("a", &t.shell("cat <&3; cat <&4"));
    options.pass_fds = vec![one.as_raw_fd(), two.as_raw_fd()];
    assert_eq!(t.run_with(options).success(), "onetwo");
}

fn exec_has_streams_and_descriptors_of_its_own(t: &Test) {
    let container = t.sleeper("a");
    let (input, passed) = (memory_file("in"), memory_file("passed"));
    let mut options = Exec::of(&["/bin/sh", "-c", "cat; cat <&3"]);
    options.stdio[0] = Stream::Fd(input.as_raw_fd());
    options.pass_fds = vec![passed.as_raw_fd()];
    assert_eq!(exec(&*container, &options).success(), "inpassed");
    container.delete(true).expect("delete");
}

fn with_terminal(t: &Test, script: &str) -> Value {
    let mut spec = t.shell(script);
    spec["process"]["terminal"] = json!(true);
    spec["process"]["consoleSize"] = json!({ "height": 20, "width": 70 });
    spec
}

fn a_terminal_is_the_controlling_terminal_and_the_console(t: &Test) {
    let script = "tty; test -t 0 && test -t 1 && test -t 2 && echo three; \
                  echo controlling > /dev/tty; echo console > /dev/console; \
                  stat -c %F /dev/console";
    let container = t.create("a", &with_terminal(t, script));
    let mut out = Lines::of(container.init().take_terminal());
    started(&*container);
    for line in ["/dev/pts/0", "three", "controlling", "console", "character special file"] {
        assert_eq!(out.next(), line);
    }
    assert_eq!(ended(&*container.init()), Exit::Code(0));
    container.delete(false).expect("delete");
}

fn a_terminal_has_the_size_it_was_given_and_can_be_resized(t: &Test) {
    let container = t.create("a", &with_terminal(t, "stty size; read x; stty size"));
    let terminal = container.init().take_terminal().expect("a terminal");
    assert!(container.init().take_terminal().is_none(), "given away once");
    let mut keyboard = File::from(terminal.try_clone().unwrap());
    let mut out = Lines::of(Some(terminal));
    started(&*container);
    assert_eq!(out.next(), "20 70");
    container.init().resize(33, 111).expect("resize");
    keyboard.write_all(b"\n").unwrap();
    assert_eq!(out.next(), "", "the echo of the key");
    assert_eq!(out.next(), "33 111");
    assert_eq!(ended(&*container.init()), Exit::Code(0));
    container.delete(false).expect("delete");
}

fn a_resize_is_announced_to_the_program(t: &Test) {
    let script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done";
    let container = t.create("a", &with_terminal(t, script));
    let mut out = Lines::of(container.init().take_terminal());
    started(&*container);
    assert_eq!(out.next(), "ready");
    container.init().resize(10, 40).expect("resize");
    assert_eq!(out.next(), "10 40");
    assert_eq!(ended(&*container.init()), Exit::Code(0));
    container.delete(false).expect("delete");
}

fn a_terminal_is_interactive(t: &Test) {
    let container =
        t.create("a", &with_terminal(t, "trap 'echo int; exit 5' INT; echo ready; cat"));
    let terminal = container.init().take_terminal().expect("a terminal");
    let mut keyboard = File::from(terminal.try_clone().unwrap());
    let mut out = Lines::of(Some(terminal));
    started(&*container);
    assert_eq!(out.next(), "ready");
    keyboard.write_all(b"word\n").unwrap();
    assert_eq!(out.next(), "word", "the echo");
    assert_eq!(out.next(), "word", "what cat says");
    keyboard.write_all(b"\x03").unwrap();
    // The kernel sends the signal before it echoes: the program may be faster.
    let last = out.next();
    assert!(["^Cint", "int"].contains(&last.as_str()), "{last}");
    assert_eq!(ended(&*container.init()), Exit::Code(5));
    container.delete(false).expect("delete");
}

fn exec_can_have_a_terminal(t: &Test) {
    let container = t.sleeper("a");
    let process = container
        .exec(&Exec {
            process: json!({
                "args": ["/bin/sh", "-c", "tty; stty size"], "terminal": true,
                "consoleSize": { "height": 11, "width": 22 }
            }),
            ..Exec::of(&[])
        })
        .expect("exec");
    let mut out = Lines::of(process.take_terminal());
    assert_eq!(out.next(), "/dev/pts/0");
    assert_eq!(out.next(), "11 22");
    assert_eq!(ended(&*process), Exit::Code(0));
    container.delete(true).expect("delete");
}

fn resize_without_a_terminal_is_refused(t: &Test) {
    let container = t.sleeper("a");
    assert!(container.init().take_terminal().is_none());
    refused(container.init().resize(1, 1)).must_be(Category::State, Stage::Stdio);
    container.delete(true).expect("delete");
}
