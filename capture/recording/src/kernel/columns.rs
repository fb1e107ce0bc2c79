//! The columns as they stand in the message.

use crate::column::trim;
use crate::message::proto;

/// The message `Kernel.Batch` of recording.proto with its packed columns left as bytes, as those of packets are.
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
    pub flows: u32,
    #[prost(bytes = "vec", tag = "7")]
    pub flow_reverse: Vec<u8>,
    #[prost(bytes = "vec", tag = "8")]
    pub flow_source: Vec<u8>,
    #[prost(bytes = "vec", tag = "9")]
    pub flow_destination: Vec<u8>,
    #[prost(bytes = "vec", tag = "10")]
    pub flow_source_port: Vec<u8>,
    #[prost(bytes = "vec", tag = "11")]
    pub flow_destination_port: Vec<u8>,
    #[prost(bytes = "vec", tag = "12")]
    pub flow_protocol: Vec<u8>,
    #[prost(message, repeated, tag = "13")]
    pub kinds: Vec<proto::Kernel>,
    #[prost(bytes = "vec", tag = "14")]
    pub arrival_run: Vec<u8>,
    #[prost(bytes = "vec", tag = "15")]
    pub arrival: Vec<u8>,
    #[prost(bytes = "vec", tag = "16")]
    pub kind: Vec<u8>,
    #[prost(bytes = "vec", tag = "17")]
    pub flow: Vec<u8>,
    #[prost(bytes = "vec", tag = "18")]
    pub repeats: Vec<u8>,
    #[prost(bytes = "vec", tag = "19")]
    pub rtt: Vec<u8>,
    #[prost(bytes = "vec", tag = "20")]
    pub packets_before: Vec<u8>,
    #[prost(bytes = "vec", tag = "21")]
    pub others_before: Vec<u8>,
    #[prost(bytes = "vec", tag = "22")]
    pub time_high: Vec<u8>,
    #[prost(bytes = "vec", tag = "23")]
    pub time_middle: Vec<u8>,
    #[prost(bytes = "vec", tag = "24")]
    pub time_low: Vec<u8>,
}

impl Columns {
    /// Drops the zeros at the end of every column.
    pub fn trim(&mut self) {
        for column in [
            &mut self.flow_reverse,
            &mut self.flow_source,
            &mut self.flow_destination,
            &mut self.flow_source_port,
            &mut self.flow_destination_port,
            &mut self.flow_protocol,
            &mut self.kind,
            &mut self.flow,
            &mut self.repeats,
            &mut self.rtt,
            &mut self.packets_before,
            &mut self.others_before,
            &mut self.time_high,
            &mut self.time_middle,
            &mut self.time_low,
        ] {
            trim(column);
        }
    }
}
