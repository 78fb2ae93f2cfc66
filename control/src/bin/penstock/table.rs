//! Aligned tables.

use std::io::{self, Write};

use serde_json::Value;

use crate::output::printable;

/// Longest cell in characters; names may be long.
const MAX_CELL: usize = 80;

/// A column: its heading, and the field that it shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) heading: &'static str,
    pub(crate) field: &'static str,
    /// Numbers stand at the right.
    pub(crate) is_number: bool,
}

/// A column of text.
pub(crate) const fn text(heading: &'static str, field: &'static str) -> Column {
    Column {
        heading,
        field,
        is_number: false,
    }
}

/// A column of numbers.
pub(crate) const fn number(heading: &'static str, field: &'static str) -> Column {
    Column {
        heading,
        field,
        is_number: true,
    }
}

/// Rows under headings.
pub(crate) struct Table<'a> {
    columns: &'a [Column],
    rows: Vec<Vec<String>>,
}

impl<'a> Table<'a> {
    pub(crate) fn new(columns: &'a [Column], records: &[Value]) -> Self {
        Self {
            columns,
            rows: records
                .iter()
                .map(|record| columns.iter().map(|column| cell(&record[column.field])).collect())
                .collect(),
        }
    }

    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let headings: Vec<String> = self
            .columns
            .iter()
            .map(|column| column.heading.to_owned())
            .collect();
        let mut widths: Vec<usize> = headings.iter().map(String::len).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, width), column) in row.iter().zip(&widths).zip(self.columns) {
                let padding = " ".repeat(width - cell.chars().count());
                if column.is_number {
                    line.push_str(&padding);
                    line.push_str(cell);
                } else {
                    line.push_str(cell);
                    line.push_str(&padding);
                }
                line.push_str("  ");
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// The fields of one record, a line each.
pub(crate) fn write_fields(record: &Value, out: &mut impl Write) -> io::Result<()> {
    let Some(fields) = record.as_object() else {
        return Ok(());
    };
    let width = fields.keys().map(String::len).max().unwrap_or_default();
    for (field, value) in fields {
        writeln!(out, "{:width$}  {}", field.replace('_', " "), cell(value))?;
    }
    Ok(())
}

fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => printable(text).replace('\n', " "),
        Value::Array(values) if values.is_empty() => "-".to_owned(),
        Value::Array(values) => match values.split_first() {
            // Queues are many and mostly alike.
            Some((first, rest)) if rest.len() > 1 && rest.iter().all(|value| value == first) => {
                format!("{} x{}", cell(first), values.len())
            }
            _ => values.iter().map(cell).collect::<Vec<_>>().join(", "),
        },
        other => other.to_string(),
    };
    if text.chars().count() > MAX_CELL {
        text.chars().take(MAX_CELL - 1).chain(['…']).collect()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_aligned_and_numbers_stand_at_the_right() {
        let columns = [text("NAME", "name"), number("PACKETS", "packets")];
        let records = [
            json!({"name": "a", "packets": 5}),
            json!({"name": "longer", "packets": 12_345_678}),
            json!({"name": null}),
        ];
        let mut out = Vec::new();
        Table::new(&columns, &records).write(&mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "NAME     PACKETS\na              5\nlonger  12345678\n-              -\n"
        );
    }

    #[test]
    fn fault_89_names_cannot_steer_the_terminal() {
        assert_eq!(cell(&json!("a\u{1b}[31mb\nc")), "a\u{fffd}[31mb c");
        assert_eq!(cell(&json!("x".repeat(500))).chars().count(), MAX_CELL);
    }
}
