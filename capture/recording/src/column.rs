//! A column of a batch: variable-length integers, seven bits a byte, lowest first; and what can be wrong with it.

/// Why a message is no batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("not protobuf: {0}")]
    Protobuf(prost::DecodeError),
    #[error("{count} events in one batch, more than {most}")]
    TooMany { count: u32, most: usize },
    #[error("column `{0}` has a value out of its range")]
    Value(&'static str),
    #[error("column `{0}` does not end where its events end")]
    Length(&'static str),
}

/// Appends a variable-length integer: seven bits a byte, lowest first.
pub(crate) fn put(column: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        column.push(value as u8 | 0x80);
        value >>= 7;
    }
    column.push(value as u8);
}

/// Appends a signed one; small magnitudes stay small.
pub(crate) fn put_signed(column: &mut Vec<u8>, value: i64) {
    put(column, zigzag(value));
}

pub(crate) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub(crate) const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Walks one column; past its end every value is 0.
pub(crate) struct Walk<'a> {
    rest: &'a [u8],
    /// A value ran over the column's end or over 64 bits.
    bad: bool,
}

impl<'a> Walk<'a> {
    pub fn new(column: &'a [u8]) -> Self {
        Self { rest: column, bad: false }
    }

    #[inline]
    pub fn next(&mut self) -> u64 {
        match self.rest {
            [] => 0,
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                u64::from(*byte)
            }
            [low, high, rest @ ..] if *high < 0x80 => {
                self.rest = rest;
                u64::from(*low & 0x7f) | u64::from(*high) << 7
            }
            _ => self.next_long(),
        }
    }

    fn next_long(&mut self) -> u64 {
        let mut value = 0u64;
        for (index, &byte) in self.rest.iter().enumerate().take(10) {
            if index == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.rest = &self.rest[index + 1..];
                return value;
            }
        }
        self.bad = true;
        self.rest = &[];
        0
    }

    #[inline]
    pub fn next_signed(&mut self) -> i64 {
        unzigzag(self.next())
    }

    /// Whether the column was read to its end and all of it was well formed.
    pub fn is_exhausted(&self) -> bool {
        self.rest.is_empty() && !self.bad
    }
}

pub(crate) fn narrow<T: TryFrom<u64>>(value: u64, column: &'static str) -> Result<T, Malformed> {
    T::try_from(value).map_err(|_| Malformed::Value(column))
}

pub(crate) fn all_exhausted<const N: usize>(walks: [(&'static str, Walk<'_>); N]) -> Result<(), Malformed> {
    match walks.iter().find(|(_, walk)| !walk.is_exhausted()) {
        Some((column, _)) => Err(Malformed::Length(column)),
        None => Ok(()),
    }
}

/// Drops the zeros at the end of a column: the reader puts them back. The last byte of a variable-length integer is 0
/// only where the integer is.
pub(crate) fn trim(column: &mut Vec<u8>) {
    let used = column.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    column.truncate(used);
}

/// Appends a step of time to three columns: bits 16 and up to the first, 8 to 15 to the second, 0 to 7 to the third,
/// because the lowest are noise and the others are not.
pub(crate) fn put_step([high, middle, low]: [&mut Vec<u8>; 3], step: i64) {
    let step = zigzag(step);
    put(high, step >> 16);
    middle.push((step >> 8) as u8);
    low.push(step as u8);
}

/// Walks the three columns of steps.
pub(crate) struct Steps<'a> {
    high: Walk<'a>,
    middle: std::slice::Iter<'a, u8>,
    low: std::slice::Iter<'a, u8>,
}

impl<'a> Steps<'a> {
    pub fn new(high: &'a [u8], middle: &'a [u8], low: &'a [u8]) -> Self {
        Self { high: Walk::new(high), middle: middle.iter(), low: low.iter() }
    }

    #[inline]
    pub fn next(&mut self) -> i64 {
        let low = u64::from(self.low.next().copied().unwrap_or(0));
        let middle = u64::from(self.middle.next().copied().unwrap_or(0));
        unzigzag(self.high.next() << 16 | middle << 8 | low)
    }

    pub fn finish(self) -> Result<(), Malformed> {
        if self.low.len() + self.middle.len() > 0 {
            return Err(Malformed::Length("time_low"));
        }
        all_exhausted([("time_high", self.high)])
    }
}
