//! How far a long call is, on standard error: bars for people, JSON for programs.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};

use clap::ArgMatches;
use locule::image::{Progress, Step};
use serde_json::json;

use crate::arguments::text;
use crate::failure::Failure;
use crate::foreground::size_of;
use crate::output::size;

/// The most columns of a bar.
const WIDEST: usize = 40;
/// With less it is left out.
const NARROWEST: usize = 8;

/// Who is told.
pub enum Watcher {
    Nobody,
    Program,
    Person(Screen),
}

impl Watcher {
    /// As the options say.
    pub fn of(own: &ArgMatches) -> Result<Watcher, Failure> {
        let quiet = matches!(own.try_get_one::<bool>("quiet"), Ok(Some(true)));
        match text(own, "progress") {
            _ if quiet => Ok(Watcher::Nobody),
            Some("none") => Ok(Watcher::Nobody),
            Some("json") => Ok(Watcher::Program),
            Some("bar") => Ok(Watcher::Person(Screen::default())),
            Some("auto") | None => Ok(match std::io::stderr().is_terminal() {
                true => Watcher::Person(Screen::default()),
                false => Watcher::Nobody,
            }),
            Some(other) => {
                Err(Failure::of(format!("--progress {other}: expected auto, bar, json or none")))
            }
        }
    }

    /// Tells. Nobody may look any more, and that is no reason to stop.
    pub fn tell(&mut self, progress: &Progress<'_>) {
        let text = match self {
            Watcher::Nobody => return,
            Watcher::Program => document(progress),
            Watcher::Person(screen) => {
                let size = size_of(2).filter(|size| size.rows > 0 && size.columns > 0);
                let (rows, columns) = size.map_or((24, 80), |size| (size.rows, size.columns));
                screen.next(progress, rows.into(), columns.into())
            }
        };
        // In one piece, so that nothing flickers or mixes.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

fn document(progress: &Progress<'_>) -> String {
    let document = json!({
        "step": progress.step.name(),
        "digest": progress.digest,
        "done": progress.done,
        "total": progress.total,
        "finished": progress.finished,
    });
    format!("{document}\n")
}

/// A line for each blob: what is finished scrolls away, what goes on is below it and drawn again.
#[derive(Default)]
pub struct Screen {
    active: VecDeque<Line>,
    /// How many lines of them are on the screen.
    drawn: usize,
}

struct Line {
    step: Step,
    digest: String,
    done: u64,
    total: u64,
}

impl Screen {
    /// What is to be written for it.
    fn next(&mut self, progress: &Progress<'_>, rows: usize, columns: usize) -> String {
        let line = Line {
            step: progress.step,
            digest: progress.digest.to_owned(),
            done: progress.done,
            total: progress.total,
        };
        let mut text = match self.drawn {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\x1b[J"),
        };
        // A layer gets its digest when it is made.
        let same = |one: &Line| {
            one.step == line.step
                && (one.digest == line.digest || one.digest.is_empty() && progress.finished)
        };
        let known = self.active.iter().position(same);
        match (known, progress.finished) {
            (known, true) => {
                known.map(|at| self.active.remove(at));
                text.push_str(&line.finished(columns));
            }
            (Some(at), false) => self.active[at] = line,
            (None, false) => self.active.push_back(line),
        }
        self.drawn = self.active.len().min(rows.saturating_sub(1));
        for line in self.active.iter().take(self.drawn) {
            text.push_str(&line.active(columns));
        }
        text
    }
}

impl Line {
    fn name(&self) -> String {
        let digest = self.digest.rsplit(':').next().unwrap_or_default();
        format!("{:6}  {:12}", self.step.name(), digest.get(..12).unwrap_or(digest))
    }

    fn finished(&self, columns: usize) -> String {
        let bytes = self.total.max(self.done);
        cut(
            format!("{}  {}", self.name(), if bytes == 0 { "done".into() } else { size(bytes) }),
            columns,
        )
    }

    fn active(&self, columns: usize) -> String {
        let name = self.name();
        if self.total == 0 {
            return cut(format!("{name}  {}", size(self.done)), columns);
        }
        let numbers = format!("{} of {}", size(self.done), size(self.total));
        // Between its brackets, with two spaces on both sides, and one column left free.
        let room = columns.saturating_sub(name.len() + numbers.len() + 7).min(WIDEST);
        if room < NARROWEST {
            return cut(format!("{name}  {numbers}"), columns);
        }
        let part = (self.done as f64 / self.total as f64).min(1.0);
        let bar = "=".repeat((part * room as f64) as usize);
        cut(format!("{name}  [{bar:room$}]  {numbers}"), columns)
    }
}

/// A line that does not wrap: it is gone back over by its number.
fn cut(line: String, columns: usize) -> String {
    line.chars().take(columns.saturating_sub(1)).chain(['\n']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "sha256:0123456789abcdef";
    const TWO: &str = "sha256:fedcba9876543210";

    fn at(digest: &str, done: u64, finished: bool) -> Progress<'_> {
        Progress { step: Step::Fetch, digest, done, total: 2_000_000, finished }
    }

    #[test]
    fn a_program_gets_an_object_for_each_line() {
        let line = document(&at(ONE, 7, false));
        assert_eq!(
            line,
            format!(
                "{{\"step\":\"fetch\",\"digest\":\"{ONE}\",\"done\":7,\"total\":2000000,\"finished\":false}}\n"
            )
        );
    }

    #[test]
    fn what_goes_on_is_drawn_again_below_what_is_finished() {
        let mut screen = Screen::default();
        let first = screen.next(&at(ONE, 1_000_000, false), 24, 80);
        let bar = format!("{}{}", "=".repeat(18), " ".repeat(19));
        assert_eq!(first, format!("fetch   0123456789ab  [{bar}]  1.0 MB of 2.0 MB\n"));
        let second = screen.next(&at(TWO, 0, false), 24, 80);
        assert!(second.starts_with("\x1b[1A\x1b[Jfetch   0123456789ab  ["), "{second:?}");
        assert_eq!(second.lines().count(), 2);
        let third = screen.next(&at(ONE, 2_000_000, true), 24, 80);
        assert!(third.starts_with("\x1b[2A\x1b[Jfetch   0123456789ab  2.0 MB\n"), "{third:?}");
        assert_eq!(third.lines().count(), 2, "the other one stays");
        let last = screen.next(&at(TWO, 2_000_000, true), 24, 80);
        assert_eq!(last, "\x1b[1A\x1b[Jfetch   fedcba987654  2.0 MB\n");
        // What is there already was never active.
        assert_eq!(screen.next(&at(ONE, 0, true), 24, 80), "fetch   0123456789ab  2.0 MB\n");
    }

    #[test]
    fn a_layer_that_is_made_is_one_line_though_it_gets_a_digest() {
        let pack =
            |digest, finished| Progress { step: Step::Pack, digest, done: 5, total: 0, finished };
        let mut screen = Screen::default();
        assert_eq!(screen.next(&pack("", false), 24, 80), "pack                  5 B\n");
        let last = screen.next(&pack(ONE, true), 24, 80);
        assert_eq!(last, "\x1b[1A\x1b[Jpack    0123456789ab  5 B\n");
        assert_eq!(screen.drawn, 0);
    }

    #[test]
    fn no_line_wraps_and_no_screen_overflows() {
        for columns in 0..100 {
            let mut screen = Screen::default();
            for (number, digest) in [ONE, TWO, "sha256:0", "", "a"].into_iter().enumerate() {
                let text = screen.next(&at(digest, 1_500_000, false), 4, columns);
                assert_eq!(screen.drawn, (number + 1).min(3));
                let drawn = text.rsplit("\x1b[J").next().unwrap();
                assert!(
                    drawn.lines().all(|line| line.len() < columns.max(1)),
                    "{columns}: {drawn}"
                );
                assert_eq!(drawn.lines().count(), screen.drawn);
            }
        }
    }
}
