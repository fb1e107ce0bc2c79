//! Rows as an Arrow IPC stream.

use std::io::Write;

use anyhow::Result;
use arrow_ipc::writer::StreamWriter;
use features::ClosedWindow;

use super::table::{About, Table};

/// Writes an Arrow IPC stream.
pub struct Arrow<W: Write> {
    table: Table,
    writer: StreamWriter<W>,
}

impl<W: Write> Arrow<W> {
    pub fn new(output: W, about: About) -> Result<Self> {
        let table = Table::new(about);
        let writer = StreamWriter::try_new(output, &table.schema())?;
        Ok(Self { table, writer })
    }

    pub fn write(&mut self, window: &ClosedWindow) -> Result<()> {
        for row in window.rows() {
            if let Some(batch) = self.table.push(&row)? {
                self.writer.write(&batch)?;
            }
        }
        Ok(())
    }

    /// Hands on what was written so far, as a batch of its own.
    pub fn flush(&mut self) -> Result<()> {
        if let Some(batch) = self.table.take()? {
            self.writer.write(&batch)?;
        }
        Ok(self.writer.flush()?)
    }

    pub fn finish(mut self) -> Result<()> {
        self.flush()?;
        self.writer.finish()?;
        Ok(self.writer.flush()?)
    }
}
