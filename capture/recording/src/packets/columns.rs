//! The columns as they stand in the message.

use crate::column::trim;

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
    /// Drops the zeros at the end of every column: a column of zeros takes no space at all.
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
            trim(column);
        }
    }
}
