//! The tables: on standard output, and as the file that the README quotes.

use std::fmt::Write;

use crate::sample::Samples;

/// One line of the table of DESIGN.md, section 7.
pub struct Bar {
    what: &'static str,
    measured: String,
    bar: String,
    met: bool,
}

impl Bar {
    /// A number that may be at most `limit`. `unit` says of what.
    pub fn at_most(what: &'static str, value: f64, limit: f64, unit: &str) -> Bar {
        Bar {
            what,
            measured: format!("{value:.2}{unit}"),
            bar: format!("<= {limit}{unit}"),
            met: value <= limit,
        }
    }

    /// Two contenders whose ratio may be at most `limit`.
    pub fn ratio(what: &'static str, of: &Samples, to: &Samples, limit: f64, unit: &str) -> Bar {
        let mut bar = Bar::at_most(what, of.ratio(to), limit, unit);
        let [low, middle, high] = of.paired(to);
        let _ = write!(bar.measured, " (paired {middle:.2}, {low:.2} to {high:.2})");
        bar
    }
}

/// A document of tables.
#[derive(Default)]
pub struct Report(String);

impl Report {
    /// A paragraph.
    pub fn text(&mut self, text: &str) {
        let _ = writeln!(self.0, "{text}\n");
    }

    /// The bars.
    pub fn bars(&mut self, bars: &[Bar]) {
        let rows = bars.iter().map(|bar| {
            let met = if bar.met { "met" } else { "**missed**" };
            [bar.what.to_owned(), bar.measured.clone(), bar.bar.clone(), met.to_owned()]
        });
        self.table(["what", "measured", "bar", ""], rows);
    }

    /// Times of contenders in microseconds.
    pub fn times<'a>(&mut self, times: impl Iterator<Item = (&'a str, &'a Samples)>) {
        let rows = times.map(|(name, samples)| {
            let at = |part: f64| format!("{:.0}", samples.quantile(part) / 1e3);
            [
                name.to_owned(),
                at(0.5),
                format!("{} to {}", at(0.25), at(0.75)),
                at(0.0),
                samples.count().to_string(),
            ]
        });
        self.table(["times in us", "median", "quartiles", "least", "runs"], rows);
    }

    /// Any table, with its columns aligned.
    pub fn table<const N: usize>(
        &mut self,
        head: [&str; N],
        rows: impl Iterator<Item = [String; N]>,
    ) {
        let mut lines = vec![head.map(str::to_owned)];
        lines.extend(rows);
        let mut widths = [3; N];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = cell.len().max(*width);
            }
        }
        for (number, line) in lines.iter().enumerate() {
            for (cell, width) in line.iter().zip(widths) {
                let _ = write!(self.0, "| {cell:width$} ");
            }
            self.0.push_str("|\n");
            if number == 0 {
                for width in widths {
                    let _ = write!(self.0, "|{}", "-".repeat(width + 2));
                }
                self.0.push_str("|\n");
            }
        }
        self.0.push('\n');
    }

    /// The whole.
    pub fn into_text(mut self) -> String {
        self.0.truncate(self.0.trim_end().len());
        self.0.push('\n');
        self.0
    }
}
