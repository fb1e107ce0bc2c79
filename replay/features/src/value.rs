//! The value of one cell.

use std::fmt;
use std::sync::Arc;

/// A cell of a row. Prints as it stands in a CSV file, before quoting.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// Not measured; prints as nothing.
    #[default]
    Empty,
    Unsigned(u64),
    Signed(i64),
    /// Finite; prints in the shortest form that reads back to the same value.
    Float(f64),
    /// Prints as 0 or 1.
    Bool(bool),
    /// One of a fixed set of names.
    Name(&'static str),
    Text(Arc<str>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => Ok(()),
            Self::Unsigned(number) => number.fmt(f),
            Self::Signed(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
            Self::Bool(truth) => u8::from(*truth).fmt(f),
            Self::Name(name) => f.write_str(name),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Unsigned(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Unsigned(number.into())
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Unsigned(number.into())
    }
}

impl From<i16> for Value {
    fn from(number: i16) -> Self {
        Self::Signed(number.into())
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl From<&'static str> for Value {
    fn from(name: &'static str) -> Self {
        Self::Name(name)
    }
}

impl From<Arc<str>> for Value {
    fn from(text: Arc<str>) -> Self {
        Self::Text(text)
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Empty, Into::into)
    }
}
