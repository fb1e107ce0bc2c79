//! Rows as CSV (RFC 4180), floats in the shortest form that reads back to the same value.

use std::io::{self, Write};

use features::schema::{LABEL, METADATA, Profile};
use features::{ClosedWindow, Row, Value};
use rayon::prelude::*;

/// Rows that one thread formats at a time.
const CHUNK: usize = 64;

/// Writes windows as CSV.
pub struct Csv<W> {
    output: W,
    profile: Profile,
}

impl<W: Write> Csv<W> {
    /// Writes the header.
    pub fn new(mut output: W, profile: Profile) -> io::Result<Self> {
        output.write_all(profile.header().as_bytes())?;
        output.write_all(b"\n")?;
        Ok(Self { output, profile })
    }

    pub fn write(&mut self, window: &ClosedWindow) -> io::Result<()> {
        let places = self.profile.places();
        let chunks = window.len().div_ceil(CHUNK);
        // A bounded number of chunks at a time: a window of a flood may hold a million rows.
        let at_once = rayon::current_num_threads() * 8;
        for group in (0..chunks).step_by(at_once) {
            let texts: Vec<Vec<u8>> = (group..(group + at_once).min(chunks))
                .into_par_iter()
                .map(|chunk| {
                    let mut text = Vec::with_capacity(CHUNK * 512);
                    for place in chunk * CHUNK..((chunk + 1) * CHUNK).min(window.len()) {
                        line(&mut text, &window.row(place), places);
                    }
                    text
                })
                .collect();
            for text in texts {
                self.output.write_all(&text)?;
            }
        }
        Ok(())
    }

    /// Hands on what was written so far.
    pub fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }

    pub fn finish(mut self) -> io::Result<()> {
        self.output.flush()
    }
}

fn line(text: &mut Vec<u8>, row: &Row, places: &[usize]) {
    let mut comma = false;
    for place in places {
        if comma {
            text.push(b',');
        }
        comma = true;
        match *place {
            feature if (METADATA..LABEL).contains(&feature) => cell(text, &row.features[feature - METADATA]),
            // The texts of the metadata need no quoting, and no allocation.
            1 => text.extend_from_slice(&row.flow_id),
            2 => print(text, row.five_tuple.source.address),
            3 => print(text, row.five_tuple.destination.address),
            other => cell(text, &row.cell(other)),
        }
    }
    text.push(b'\n');
}

fn print(text: &mut Vec<u8>, value: impl std::fmt::Display) {
    // Writing to a Vec cannot fail.
    let _ = write!(text, "{value}");
}

fn cell(text: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Empty => {}
        Value::Unsigned(number) => integer(text, *number),
        Value::Signed(number) => integer(text, *number),
        Value::Float(number) => float(text, *number),
        Value::Bool(truth) => text.push(if *truth { b'1' } else { b'0' }),
        Value::Name(name) => text.extend_from_slice(name.as_bytes()),
        Value::Text(string) => quoted(text, string),
    }
}

fn integer(text: &mut Vec<u8>, number: impl itoa::Integer) {
    text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Whole numbers stand without a point.
fn float(text: &mut Vec<u8>, number: f64) {
    /// Up to here every whole number is a float of its own.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT {
        #[allow(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
        integer(text, number as i64);
    } else {
        text.extend_from_slice(zmij::Buffer::new().format(number).as_bytes());
    }
}

fn quoted(text: &mut Vec<u8>, string: &str) {
    if !string.contains(['"', ',', '\n', '\r']) {
        text.extend_from_slice(string.as_bytes());
        return;
    }
    text.push(b'"');
    text.extend_from_slice(string.replace('"', "\"\"").as_bytes());
    text.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: Value) -> String {
        let mut text = Vec::new();
        cell(&mut text, &value);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn floats_print_in_their_shortest_exact_form() {
        for (number, want) in
            [(0.0, "0"), (5.0, "5"), (-3.0, "-3"), (0.1, "0.1"), (1.0 / 3.0, "0.3333333333333333")]
        {
            assert_eq!(text(number.into()), want);
        }
        for number in [1e300, 1e-7, 123_456_789.125, f64::MIN_POSITIVE] {
            assert_eq!(text(number.into()).parse(), Ok(number));
        }
    }

    #[test]
    fn text_is_quoted_where_it_must_be() {
        assert_eq!(text(Value::Text("a b".into())), "a b");
        assert_eq!(text(Value::Text("nginx(12.5),\"x\"".into())), "\"nginx(12.5),\"\"x\"\"\"");
    }
}
