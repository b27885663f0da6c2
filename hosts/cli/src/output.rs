//! What goes to standard output: tables for people, JSON for programs. Nothing else may write there, as a
//! reader that has gone is told from here.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use serde_json::Value;

/// The least width of a column, and the space to the next.
const LEAST: usize = 12;
const GAP: usize = 3;

/// How text looks: plain, but for people at a terminal who have not said `NO_COLOR`.
#[derive(Clone, Copy)]
pub struct Style {
    coloured: bool,
}

impl Style {
    /// For standard output.
    pub fn of_output() -> Style {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Style { coloured: io::stdout().is_terminal() && !refused }
    }

    pub fn heading(self, text: &str) -> String {
        self.with("1", text)
    }

    pub fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    pub fn warning(self, text: &str) -> String {
        self.with("33", text)
    }

    pub fn bad(self, text: &str) -> String {
        self.with("31", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Columns as wide as they have to be; the first row is the heading.
pub fn table(rows: &[Vec<String>]) -> io::Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let widest = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> =
        (0..columns).map(|column| (widest(column).unwrap_or(0) + GAP).max(LEAST)).collect();
    let mut out = io::stdout().lock();
    let style = Style::of_output();
    for (number, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            match column + 1 == row.len() {
                true => line.push_str(cell),
                false => line.push_str(&format!("{cell:width$}", width = widths[column])),
            }
        }
        writeln!(out, "{}", if number == 0 { style.heading(&line) } else { line })?;
    }
    Ok(())
}

/// Text that has all its ends of lines.
pub fn text(text: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "{text}")?;
    out.flush()
}

/// One line.
pub fn line(text: impl Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// One line of JSON.
pub fn compact(value: &Value) -> io::Result<()> {
    line(value)
}

/// Indented.
pub fn pretty(value: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)
}

/// A number of bytes, for people.
pub fn size(bytes: u64) -> String {
    let units = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut number = bytes as f64 / 1000.0;
    let mut unit = 0;
    // Before it would be rounded to 1000.0.
    while number >= 999.95 && unit + 1 < units.len() {
        number /= 1000.0;
        unit += 1;
    }
    format!("{number:.1} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let sizes = [0, 999, 1000, 999_949, 999_950, 12_345_678, u64::MAX].map(size);
        let short = ["0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "12.3 MB", "18.4 EB"];
        assert_eq!(sizes.each_ref().map(String::as_str), short);
    }
}
