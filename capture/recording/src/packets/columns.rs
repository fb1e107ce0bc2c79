//! The columns as they stand in the message, and the variable-length integers in them.

/// The message `Packets` of recording.proto with its packed columns left as bytes: on the wire both are one
/// length-delimited field, and so a column is walked once, straight into packets, and never unpacked into a
/// vector of its own.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Columns {
    #[prost(uint32, tag = "1")]
    pub count: u32,
    #[prost(sint64, tag = "2")]
    pub base_time: i64,
    #[prost(uint32, tag = "3")]
    pub time_unit: u32,
    #[prost(bytes = "vec", tag = "4")]
    pub ipv4: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    pub ipv6: Vec<u8>,
    #[prost(uint32, tag = "6")]
    pub lanes: u32,
    #[prost(bytes = "vec", tag = "7")]
    pub lane_reverse: Vec<u8>,
    #[prost(bytes = "vec", tag = "8")]
    pub lane_source: Vec<u8>,
    #[prost(bytes = "vec", tag = "9")]
    pub lane_destination: Vec<u8>,
    #[prost(bytes = "vec", tag = "10")]
    pub lane_source_port: Vec<u8>,
    #[prost(bytes = "vec", tag = "11")]
    pub lane_destination_port: Vec<u8>,
    #[prost(bytes = "vec", tag = "12")]
    pub lane_protocol: Vec<u8>,
    #[prost(bytes = "vec", tag = "13")]
    pub lane_interface: Vec<u8>,
    #[prost(bytes = "vec", tag = "14")]
    pub lane_direction: Vec<u8>,
    #[prost(bytes = "vec", tag = "15")]
    pub lane_ttl: Vec<u8>,
    #[prost(bytes = "vec", tag = "37")]
    pub lane_tap: Vec<u8>,
    #[prost(uint32, tag = "16")]
    pub shapes: u32,
    #[prost(bytes = "vec", tag = "17")]
    pub shape_header_length: Vec<u8>,
    #[prost(bytes = "vec", tag = "18")]
    pub shape_fragment: Vec<u8>,
    #[prost(bytes = "vec", tag = "19")]
    pub shape_gso_size: Vec<u8>,
    #[prost(bytes = "vec", tag = "20")]
    pub shape_tcp_flags: Vec<u8>,
    #[prost(bytes = "vec", tag = "21")]
    pub shape_window_scale: Vec<u8>,
    #[prost(bytes = "vec", tag = "22")]
    pub shape_timestamps: Vec<u8>,
    #[prost(bytes = "vec", tag = "23")]
    pub arrival_run: Vec<u8>,
    #[prost(bytes = "vec", tag = "24")]
    pub arrival: Vec<u8>,
    #[prost(bytes = "vec", tag = "25")]
    pub lane: Vec<u8>,
    #[prost(bytes = "vec", tag = "26")]
    pub shape: Vec<u8>,
    #[prost(bytes = "vec", tag = "27")]
    pub payload_length: Vec<u8>,
    #[prost(bytes = "vec", tag = "28")]
    pub gso_segments: Vec<u8>,
    #[prost(bytes = "vec", tag = "29")]
    pub window: Vec<u8>,
    #[prost(bytes = "vec", tag = "30")]
    pub acknowledgement: Vec<u8>,
    #[prost(bytes = "vec", tag = "31")]
    pub timestamp_echo: Vec<u8>,
    #[prost(bytes = "vec", tag = "32")]
    pub timestamp_value: Vec<u8>,
    #[prost(bytes = "vec", tag = "33")]
    pub sequence: Vec<u8>,
    #[prost(bytes = "vec", tag = "34")]
    pub time_high: Vec<u8>,
    #[prost(bytes = "vec", tag = "35")]
    pub time_middle: Vec<u8>,
    #[prost(bytes = "vec", tag = "36")]
    pub time_low: Vec<u8>,
}

impl Columns {
    /// Drops the zeros at the end of every column: a column of zeros takes no space at all. The last byte of a
    /// variable-length integer is 0 only where the integer is.
    pub fn trim(&mut self) {
        for column in [
            &mut self.lane_reverse,
            &mut self.lane_source,
            &mut self.lane_destination,
            &mut self.lane_source_port,
            &mut self.lane_destination_port,
            &mut self.lane_protocol,
            &mut self.lane_interface,
            &mut self.lane_direction,
            &mut self.lane_ttl,
            &mut self.lane_tap,
            &mut self.shape_header_length,
            &mut self.shape_fragment,
            &mut self.shape_gso_size,
            &mut self.shape_tcp_flags,
            &mut self.shape_window_scale,
            &mut self.shape_timestamps,
            &mut self.lane,
            &mut self.shape,
            &mut self.payload_length,
            &mut self.gso_segments,
            &mut self.sequence,
            &mut self.acknowledgement,
            &mut self.window,
            &mut self.timestamp_value,
            &mut self.timestamp_echo,
            &mut self.time_high,
            &mut self.time_middle,
            &mut self.time_low,
        ] {
            let used = column.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            column.truncate(used);
        }
    }
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
