//! `replay schema`: the columns as a table, JSON or Markdown. The guide's page on features is made by it.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use features::schema::{COLUMNS, Column, Input, fingerprint};
use serde_json::json;

/// Arguments of `replay schema`.
#[derive(Clone, Copy, Debug, Args)]
pub struct SchemaArgs {
    /// How to print the columns
    #[arg(long, value_enum, default_value_t)]
    pub format: SchemaFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SchemaFormat {
    /// Aligned columns
    #[default]
    Table,
    Json,
    Markdown,
}

/// Prints the schema.
pub fn print(args: SchemaArgs, output: &mut impl Write) -> io::Result<()> {
    match args.format {
        SchemaFormat::Table => table(output),
        SchemaFormat::Json => json(output),
        SchemaFormat::Markdown => markdown(output),
    }
}

/// How a cell becomes a model's input, in words.
const fn input(column: &Column) -> &'static str {
    match column.input {
        Input::Never => "never",
        Input::Number => "number",
        Input::Bool => "0 or 1",
        Input::Category(_) => "category",
    }
}

fn table(output: &mut impl Write) -> io::Result<()> {
    let width = COLUMNS.iter().map(|column| column.name.len()).max().unwrap_or_default();
    let units = COLUMNS.iter().map(|column| column.unit.len().min(24)).max().unwrap_or_default();
    for (number, column) in (1..).zip(&COLUMNS) {
        let Column { name, unit, definition, .. } = column;
        let (group, kind) = (column.group.name(), column.kind.name());
        writeln!(output, "{number:>3}  {name:width$}  {group:8}  {kind:4}  {unit:units$}  {definition}")?;
    }
    writeln!(output, "\nfingerprint {}", fingerprint())
}

fn json(output: &mut impl Write) -> io::Result<()> {
    let columns: Vec<_> = COLUMNS
        .iter()
        .map(|column| {
            json!({
                "name": column.name,
                "group": column.group.name(),
                "scope": column.scope.name(),
                "type": column.kind.name(),
                "unit": column.unit,
                "empty_when": column.empty_when,
                "in_profile_72": column.in_profile_72,
                "model_input": input(column),
                "definition": column.definition,
            })
        })
        .collect();
    serde_json::to_writer_pretty(&mut *output, &json!({ "fingerprint": fingerprint(), "columns": columns }))?;
    writeln!(output)
}

fn markdown(output: &mut impl Write) -> io::Result<()> {
    writeln!(output, "# Features\n")?;
    writeln!(
        output,
        "Made by `replay schema --format markdown`. One row per flow and window; an empty cell is \"not\n\
         measured\", 0 is \"measured zero\". A value's scope says over what it is taken: rows of one window that\n\
         share the endpoint, pod or node share the value. Schema fingerprint: `{}`.\n",
        fingerprint()
    )?;
    writeln!(
        output,
        "| # | column | group | scope | type | unit or values | empty when | model input | definition |"
    )?;
    writeln!(output, "|---|---|---|---|---|---|---|---|---|")?;
    for (number, column) in (1..).zip(&COLUMNS) {
        let escape = |text: &str| text.replace('|', "\\|").replace('<', "\\<");
        writeln!(
            output,
            "| {number} | `{}` | {} | {} | {} | {} | {} | {} | {} |",
            column.name,
            column.group.name(),
            column.scope.name(),
            column.kind.name(),
            escape(column.unit),
            escape(column.empty_when),
            input(column),
            escape(column.definition),
        )?;
    }
    Ok(())
}
