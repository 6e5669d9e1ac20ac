//! Where a command writes: data to standard output in the form that was asked for, everything else to standard error.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use anstream::{AutoStream, ColorChoice};
use anyhow::Context as _;
use clap::ValueEnum;
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::job::Status;

/// A terminal narrower than this is not believed: cells are then not wrapped to fit it.
const NARROWEST: u16 = 40;

/// The form of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A table on a terminal, plain columns elsewhere
    Table,
    /// One JSON document
    Json,
    /// One JSON document a line
    Jsonl,
    /// The ids (or names) alone, one a line
    Id,
}

/// The two outputs of a command.
pub(super) struct Output {
    /// The form that was asked for.
    pub(super) format: Format,
    /// Whether the data goes to a terminal.
    pub(super) terminal: bool,
    /// Whether the data may have colours.
    colour: bool,
    data: Mutex<Box<dyn Write + Send>>,
    notes: Mutex<Box<dyn Write + Send>>,
}

/// Rows under a heading.
pub(super) struct Rows {
    pub(super) heading: &'static [&'static str],
    pub(super) rows: Vec<Vec<String>>,
}

impl Output {
    /// Standard output and standard error.
    pub(super) fn standard(format: Format) -> Self {
        let stdout = io::stdout();
        Self {
            format,
            terminal: stdout.is_terminal(),
            colour: AutoStream::choice(&stdout) != ColorChoice::Never,
            data: Mutex::new(Box::new(stdout)),
            notes: Mutex::new(Box::new(io::stderr())),
        }
    }

    /// Outputs of a test.
    #[cfg(test)]
    pub(super) fn captured(
        format: Format,
        data: impl Write + Send + 'static,
        notes: impl Write + Send + 'static,
    ) -> Self {
        Self {
            format,
            terminal: false,
            colour: false,
            data: Mutex::new(Box::new(data)),
            notes: Mutex::new(Box::new(notes)),
        }
    }

    /// Writes text to standard output as it is.
    pub(super) fn data(&self, text: &str) -> anyhow::Result<()> {
        let mut data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        data.write_all(text.as_bytes())
            .and_then(|()| data.flush())
            .context("cannot write to standard output")
    }

    /// Writes a JSON document to standard output, on one line or over several.
    pub(super) fn json<T: Serialize + ?Sized>(&self, value: &T) -> anyhow::Result<()> {
        let text = match self.format {
            Format::Jsonl => serde_json::to_string(value)?,
            _ => serde_json::to_string_pretty(value)?,
        };
        self.data(&format!("{text}\n"))
    }

    /// Writes items: a bare JSON array, a line each, the ids alone, or the rows as a table.
    pub(super) fn list<T: Serialize>(
        &self,
        items: &[T],
        id: impl Fn(&T) -> String,
        rows: impl FnOnce() -> Rows,
    ) -> anyhow::Result<()> {
        match self.format {
            Format::Json => self.json(items),
            Format::Jsonl => items.iter().try_for_each(|item| self.json(item)),
            Format::Id => items
                .iter()
                .try_for_each(|item| self.data(&format!("{}\n", id(item)))),
            Format::Table => self.table(&rows()),
        }
    }

    /// Writes a table: ruled on a terminal, plain columns elsewhere.
    pub(super) fn table(&self, rows: &Rows) -> anyhow::Result<()> {
        let mut table = Table::new();
        if self.terminal {
            table.load_style(presets::UTF8_FULL_CONDENSED);
            // Terminals of containers and build systems often say that they have no columns.
            if table.width().is_some_and(|columns| columns >= NARROWEST) {
                table.set_content_arrangement(ContentArrangement::Dynamic);
            }
        } else {
            table.load_style(presets::NOTHING).force_no_tty();
        }
        if self.colour {
            table.enforce_styling();
        }
        table.set_header(rows.heading.iter().copied());
        for row in &rows.rows {
            table.add_row(row.iter().map(|text| self.cell(text)));
        }
        if !self.terminal {
            for column in table.column_iter_mut() {
                column.set_padding((0, 2));
            }
        }
        self.data(&format!("{}\n", table.trim_fmt()))
    }

    /// Writes a line to standard error. A standard error that is closed is no reason to stop.
    pub(super) fn note(&self, text: &str) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = notes.write_all(format!("{text}\n").as_bytes());
        let _ = notes.flush();
    }

    /// Status words get their colour.
    fn cell(&self, text: &str) -> Cell {
        let cell = Cell::new(text);
        if !self.colour {
            return cell;
        }
        match text.parse::<Status>() {
            Ok(Status::Queued) => cell.fg(Color::Yellow),
            Ok(Status::Running) => cell.fg(Color::Blue),
            Ok(Status::Succeeded) => cell.fg(Color::Green),
            Ok(Status::Failed) => cell.fg(Color::Red),
            Ok(Status::Cancelled | Status::Expired) => cell.fg(Color::Grey),
            Err(_) => cell,
        }
    }
}
