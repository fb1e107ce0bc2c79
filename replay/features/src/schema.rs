//! The schema: one table of every column of a row. It drives header, order, documentation and fingerprint,
//! and says how a cell becomes a model's input.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

use crate::Value;

/// What a column tells about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// Identifies the row: window, flow, five-tuple.
    Metadata,
    Network,
    Latency,
    L7,
    System,
    /// The label that somebody gave to the row's time.
    Label,
}

impl Group {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Network => "network",
            Self::Latency => "latency",
            Self::L7 => "l7",
            Self::System => "system",
            Self::Label => "label",
        }
    }
}

/// Over what a value is taken. Rows of one window that share the scope share the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    Flow,
    /// The row's (dst_ip, dst_port, protocol).
    Endpoint,
    Pod,
    PodOrNode,
    Node,
}

impl Scope {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flow => "flow",
            Self::Endpoint => "endpoint",
            Self::Pod => "pod",
            Self::PodOrNode => "pod or node",
            Self::Node => "node",
        }
    }
}

/// The type of a cell that is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    U64,
    U32,
    U16,
    I16,
    F64,
    /// 0 or 1
    Bool,
    Str,
    /// One of the names that the column's unit lists.
    Enum,
}

impl Type {
    pub const fn name(self) -> &'static str {
        match self {
            Self::U64 => "u64",
            Self::U32 => "u32",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::F64 => "f64",
            Self::Bool => "bool",
            Self::Str => "str",
            Self::Enum => "enum",
        }
    }
}

/// How a cell becomes a model's input. An empty cell is NaN for every input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Identity (addresses, ports, names, times, ids), free text and the label itself.
    Never,
    Number,
    /// 0 or 1
    Bool,
    /// The place of the name in the list, counted from 1; [`Input::UNSEEN`] for any other name.
    Category(&'static [&'static str]),
}

impl Input {
    /// The code of a name that the list does not hold.
    pub const UNSEEN: f32 = 0.0;
}

/// `connection_state`
pub const CONNECTION_STATES: &[&str] = &["NEW", "ESTABLISHED", "CLOSING", "CLOSED"];
/// `http_method`: the methods of RFC 9110 and RFC 5789.
pub const HTTP_METHODS: &[&str] =
    &["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
/// `l7_protocol_detected`
pub const L7_PROTOCOLS: &[&str] = &["http", "grpc", "dns", "kafka", "tls"];
/// `verdict`
pub const VERDICTS: &[&str] =
    &["FORWARDED", "DROPPED", "ERROR", "AUDIT", "REDIRECTED", "TRACED", "TRANSLATED"];

/// One column of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    pub group: Group,
    pub scope: Scope,
    pub kind: Type,
    pub input: Input,
    /// The unit, or the names that an enum may take, divided by `|`.
    pub unit: &'static str,
    /// When the cell is empty, which means "not measured"; 0 means "measured zero".
    pub empty_when: &'static str,
    /// Whether the 72-column ancestor has it.
    pub in_profile_72: bool,
    pub definition: &'static str,
}

/// A cell that is not what its column holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: `{cell}` is not {expected}")]
pub struct CellError {
    pub column: &'static str,
    pub cell: String,
    pub expected: &'static str,
}

impl Column {
    /// The model's input that a cell of a CSV file stands for; NaN where the cell is empty.
    ///
    /// # Errors
    /// Where the text is no finite number of an [`Input::Number`] or neither 0 nor 1 of an [`Input::Bool`].
    ///
    /// # Panics
    /// Where the column is never an input.
    pub fn encode_text(&self, cell: &str) -> Result<f32, CellError> {
        if cell.is_empty() {
            return Ok(f32::NAN);
        }
        let error = |expected| CellError { column: self.name, cell: cell.to_owned(), expected };
        match self.input {
            Input::Number => match fast_float2::parse::<f64, _>(cell) {
                Ok(number) if number.is_finite() => Ok(narrow(number)),
                _ => Err(error("a finite number")),
            },
            Input::Bool => match cell {
                "0" => Ok(0.0),
                "1" => Ok(1.0),
                _ => Err(error("0 or 1")),
            },
            Input::Category(names) => Ok(code(names, cell)),
            Input::Never => panic!("{} is never a model's input", self.name),
        }
    }

    /// The model's input that a computed value stands for; equal to what [`Column::encode_text`] makes of
    /// the printed value.
    ///
    /// # Panics
    /// Where the column is never an input, or the value is of another type than the column.
    pub fn encode(&self, value: &Value) -> f32 {
        match (self.input, value) {
            (Input::Never, _) => panic!("{} is never a model's input", self.name),
            (_, Value::Empty) => f32::NAN,
            (Input::Number, Value::Unsigned(number)) => narrow(*number as f64),
            (Input::Number, Value::Signed(number)) => narrow(*number as f64),
            (Input::Number, Value::Float(number)) => narrow(*number),
            (Input::Bool, Value::Bool(truth)) => f32::from(u8::from(*truth)),
            (Input::Category(names), Value::Name(name)) => code(names, name),
            (Input::Category(names), Value::Text(name)) => code(names, name),
            (_, value) => panic!("{} holds {}, not {value:?}", self.name, self.kind.name()),
        }
    }
}

/// The nearest `f32`, and the largest finite one instead of an infinity.
fn narrow(number: f64) -> f32 {
    #[allow(clippy::cast_possible_truncation, reason = "models compute in f32")]
    let narrow = number as f32;
    narrow.clamp(f32::MIN, f32::MAX)
}

fn code(names: &[&str], name: &str) -> f32 {
    match names.iter().position(|known| *known == name) {
        #[allow(clippy::cast_precision_loss, reason = "a handful of names")]
        Some(place) => (place + 1) as f32,
        None => Input::UNSEEN,
    }
}

macro_rules! features {
    ($($variant:ident $name:literal $group:ident $scope:ident $kind:ident $input:ident $(($values:ident))?
       $unit:literal $empty_when:literal $in_profile_72:literal $definition:literal;)+) => {
        /// A feature, by its place in a row.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Feature { $($variant),+ }

        impl Feature {
            /// In the order of the columns.
            pub const ALL: [Self; FEATURES] = [$(Self::$variant),+];
        }

        /// Number of features.
        pub const FEATURES: usize = [$($name),+].len();

        const FEATURE_COLUMNS: [Column; FEATURES] = [$(Column {
            name: $name,
            group: Group::$group,
            scope: Scope::$scope,
            kind: Type::$kind,
            input: Input::$input $(($values))?,
            unit: $unit,
            empty_when: $empty_when,
            in_profile_72: $in_profile_72,
            definition: $definition,
        }),+];
    };
}

impl Feature {
    pub const fn column(self) -> &'static Column {
        &COLUMNS[METADATA + self as usize]
    }

    pub const fn name(self) -> &'static str {
        self.column().name
    }
}

const fn metadata(
    name: &'static str,
    kind: Type,
    unit: &'static str,
    in_profile_72: bool,
    definition: &'static str,
) -> Column {
    let (group, scope, input, empty_when) = (Group::Metadata, Scope::Flow, Input::Never, "never");
    Column { name, group, scope, kind, input, unit, empty_when, in_profile_72, definition }
}

/// Number of columns before the features.
pub const METADATA: usize = METADATA_COLUMNS.len();

const METADATA_COLUMNS: [Column; 8] = [
    metadata("timestamp", Type::F64, "s", true, "start of the window in Unix time"),
    metadata(
        "flow_id",
        Type::Str,
        "",
        true,
        "first 8 hex digits of the MD5 of `src_ip:src_port->dst_ip:dst_port:protocol`",
    ),
    metadata(
        "src_ip",
        Type::Str,
        "",
        true,
        "address of the initiator: the SYN's sender; else the side whose peer has the well-known or lower port; else the first seen",
    ),
    metadata("dst_ip", Type::Str, "", true, "address of its peer"),
    metadata("src_port", Type::U16, "", true, "port of the initiator; 0 for protocols without ports"),
    metadata("dst_port", Type::U16, "", true, "port of its peer; 0 for protocols without ports"),
    metadata("protocol", Type::U16, "IANA protocol number", true, "transport protocol"),
    metadata(
        "l7_protocol",
        Type::U16,
        "0 unknown, 1 HTTP, 2 HTTPS, 3 DNS, 4 gRPC, 5 Kafka",
        true,
        "application protocol: as detected, else by the well-known port",
    ),
];

const LABEL_COLUMN: Column = Column {
    name: "anomaly_label",
    group: Group::Label,
    scope: Scope::Node,
    kind: Type::U16,
    input: Input::Never,
    unit: "label",
    empty_when: "no label given",
    in_profile_72: true,
    definition: "the label in force for the longest part of the window: 0 normal, 1 to 11 a known fault, others the user's own",
};

/// Number of columns of a row.
pub const WIDTH: usize = METADATA + FEATURES + 1;
/// Place of the label in a row.
pub const LABEL: usize = WIDTH - 1;

/// Every column in the order of a row: metadata, features, label.
pub static COLUMNS: [Column; WIDTH] = {
    let mut columns = [LABEL_COLUMN; WIDTH];
    let mut place = 0;
    while place < METADATA {
        columns[place] = METADATA_COLUMNS[place];
        place += 1;
    }
    while place < LABEL {
        columns[place] = FEATURE_COLUMNS[place - METADATA];
        place += 1;
    }
    columns
};

/// The columns of the features alone.
pub fn features() -> &'static [Column] {
    &COLUMNS[METADATA..LABEL]
}

/// The place of a column in a row.
pub fn position(name: &str) -> Option<usize> {
    COLUMNS.iter().position(|column| column.name == name)
}

/// The features that may be a model's input, in the order of their columns.
pub fn inputs() -> impl Iterator<Item = &'static Column> {
    features().iter().filter(|column| column.input != Input::Never)
}

/// Which columns are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// All columns.
    #[default]
    Full,
    /// The ancestor's 72 columns (metadata and the features that it had), then `l7_protocol` and the label.
    Ancestor72,
}

impl Profile {
    /// Places of the written columns in a row, in the order in which they are written.
    pub fn places(self) -> &'static [usize] {
        static FULL: LazyLock<Vec<usize>> = LazyLock::new(|| (0..WIDTH).collect());
        static ANCESTOR: LazyLock<Vec<usize>> = LazyLock::new(|| {
            let l7_protocol = METADATA - 1;
            let kept = |place: &usize| COLUMNS[*place].in_profile_72;
            (0..l7_protocol).chain(METADATA..LABEL).filter(kept).chain([l7_protocol, LABEL]).collect()
        });
        match self {
            Self::Full => &FULL,
            Self::Ancestor72 => &ANCESTOR,
        }
    }

    /// The header line of a CSV file, without line end.
    pub fn header(self) -> String {
        let names: Vec<&str> = self.places().iter().map(|place| COLUMNS[*place].name).collect();
        names.join(",")
    }
}

/// SHA-256 over name, type and unit of every column in order, in hex. Two rows of equal fingerprint mean
/// the same.
pub fn fingerprint() -> &'static str {
    static FINGERPRINT: LazyLock<String> = LazyLock::new(|| {
        let mut hash = Sha256::new();
        for column in &COLUMNS {
            for part in [column.name, column.kind.name(), column.unit] {
                hash.update(part.as_bytes());
                hash.update([0]);
            }
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    });
    &FINGERPRINT
}

features! {
    PacketCount "packet_count" Network Flow U64 Number "packets" "never" true
        "wire packets in the window, both directions; a GSO/GRO super-packet counts as its gso_segs segments";
    ByteCount "byte_count" Network Flow U64 Number "bytes" "never" true
        "bytes in the window from the IP header on (layer 3 length), both directions; a super-packet adds one IP+transport header per extra segment";
    PacketsPerSecond "packets_per_second" Network Flow F64 Number "packets/s" "never" true
        "packet_count / window length";
    BytesPerSecond "bytes_per_second" Network Flow F64 Number "bytes/s" "never" true
        "byte_count / window length (bytes, not bits)";
    AvgPacketSize "avg_packet_size" Network Flow F64 Number "bytes" "never" true
        "byte_count / packet_count";
    RetransmissionCount "retransmission_count" Network Flow U64 Number "packets" "not TCP" true
        "segments that Wireshark's TCP analysis calls retransmission, fast retransmission or spurious retransmission; keep-alives excluded; 32-bit serial arithmetic";
    RetransmissionRate "retransmission_rate" Network Flow F64 Number "ratio 0-1" "not TCP" true
        "retransmission_count / packet_count";
    ConsecutiveRetrans "consecutive_retrans" Network Flow U64 Number "packets" "not TCP" true
        "longest run, in one direction, of retransmitted segments with no new data in that direction between them";
    OutOfOrderCount "out_of_order_count" Network Flow U64 Number "packets" "not TCP" true
        "segments that Wireshark's TCP analysis calls out-of-order: they fill a hole within max(3 ms, handshake RTT) of the segment that jumped ahead, and are not retransmissions";
    TcpResets "tcp_resets" Network Endpoint U64 Number "connections" "not TCP" true
        "connections to this row's (dst_ip, dst_port, protocol) that saw an RST in the window";
    ZeroWindowCount "zero_window_count" Network Flow U64 Number "packets" "not TCP" true
        "segments that advertise a receive window of 0; SYN and RST excluded";
    ZeroWindowDuration "zero_window_duration" Network Flow F64 Number "s" "not TCP" true
        "time within the window that a direction spent between its first zero-window segment and its next non-zero advertisement, summed over both directions; state carries over from window to window";
    SynCount "syn_count" Network Flow U64 Number "packets" "not TCP" true
        "segments with SYN and not ACK, repeats included";
    SynAckCount "syn_ack_count" Network Flow U64 Number "packets" "not TCP" true
        "segments with SYN and ACK";
    FinCount "fin_count" Network Flow U64 Number "packets" "not TCP" true
        "segments with FIN set";
    RstCount "rst_count" Network Flow U64 Number "packets" "not TCP" true
        "segments with RST set";
    PshCount "psh_count" Network Flow U64 Number "packets" "not TCP" true
        "segments with PSH set";
    AckCount "ack_count" Network Flow U64 Number "packets" "not TCP" true
        "segments with ACK set";
    UrgCount "urg_count" Network Flow U64 Number "packets" "not TCP" true
        "segments with URG set";
    EceCount "ece_count" Network Flow U64 Number "packets" "not TCP" true
        "segments with ECE set";
    CwrCount "cwr_count" Network Flow U64 Number "packets" "not TCP" true
        "segments with CWR set";
    SynToSynackRatio "syn_to_synack_ratio" Network Endpoint F64 Number "ratio" "not TCP" true
        "sum of syn_count / sum of syn_ack_count over all flows to this row's (dst_ip, dst_port, protocol) in the window; the plain SYN sum where no SYN-ACK was seen; 0 where no SYN was";
    HalfOpenConnections "half_open_connections" Network Endpoint U64 Number "connections" "not TCP" true
        "connections to the endpoint that at the window's end have a SYN of the last 60 s with neither SYN-ACK answered by an ACK nor RST";
    ConnectionState "connection_state" Network Flow Enum Category(CONNECTION_STATES) "NEW|ESTABLISHED|CLOSING|CLOSED" "never" true
        "at the window's end. TCP: NEW until the handshake's last ACK (or data in both directions where the handshake was not seen), CLOSING after the first FIN, CLOSED after both FINs are acknowledged or an RST. Others: NEW until a packet came back, then ESTABLISHED";
    MinPacketSize "min_packet_size" Network Flow U32 Number "bytes" "never" true
        "smallest layer 3 length of a wire packet";
    MaxPacketSize "max_packet_size" Network Flow U32 Number "bytes" "never" true
        "largest layer 3 length of a wire packet";
    PacketSizeVariance "packet_size_variance" Network Flow F64 Number "bytes^2" "never" true
        "population variance of the wire packets' layer 3 lengths";
    InterArrivalTimeMean "inter_arrival_time_mean" Network Flow F64 Number "ms" "< 2 packets" true
        "mean gap between successive packets of the flow, both directions together, gaps that end in this window";
    InterArrivalTimeStd "inter_arrival_time_std" Network Flow F64 Number "ms" "< 3 packets" true
        "sample standard deviation (n-1) of those gaps";
    FlowDuration "flow_duration" Network Flow F64 Number "s" "never" true
        "from the flow's first packet ever to its last packet in this window";
    BidirectionalPackets "bidirectional_packets" Network Flow U64 Number "packets" "never" true
        "forward_packets + backward_packets";
    BidirectionalBytes "bidirectional_bytes" Network Flow U64 Number "bytes" "never" true
        "forward_bytes + backward_bytes";
    ForwardPackets "forward_packets" Network Flow U64 Number "packets" "never" true
        "packets src->dst";
    BackwardPackets "backward_packets" Network Flow U64 Number "packets" "never" true
        "packets dst->src";
    ForwardBytes "forward_bytes" Network Flow U64 Number "bytes" "never" true
        "bytes src->dst";
    BackwardBytes "backward_bytes" Network Flow U64 Number "bytes" "never" true
        "bytes dst->src";
    IsBlockedFlow "is_blocked_flow" Network Flow Bool Bool "0|1" "no source of drops" true
        "1 where a packet of the flow was really dropped in the window: a Hubble DROPPED verdict, or a kernel drop with a policy or rate-limit reason";
    ErrorRate "error_rate" Network Flow F64 Number "ratio 0-1" "never" true
        "share of packets that are a retransmission, out-of-order, zero-window, RST or IP fragment";
    LatencyMeanMs "latency_mean_ms" Latency Flow F64 Number "ms" "no sample" false
        "mean response time at the capture point: TCP data segment to the ACK that covers it (Karn: never from a retransmitted segment); other protocols: request to the next packet back";
    LatencyStdMs "latency_std_ms" Latency Flow F64 Number "ms" "< 2 samples" false
        "sample standard deviation of the same samples";
    LatencyP50Ms "latency_p50_ms" Latency Flow F64 Number "ms" "no sample" false
        "nearest-rank 50th percentile of the same samples";
    LatencyP95Ms "latency_p95_ms" Latency Flow F64 Number "ms" "no sample" false
        "nearest-rank 95th percentile";
    LatencyP99Ms "latency_p99_ms" Latency Flow F64 Number "ms" "no sample" false
        "nearest-rank 99th percentile";
    InterArrivalJitter "inter_arrival_jitter" Latency Flow F64 Number "ms" "< 3 packets" false
        "mean of |gap(i) - gap(i-1)| over the window's gaps";
    JitterVariance "jitter_variance" Latency Flow F64 Number "ms^2" "< 4 packets" false
        "sample variance of |gap(i) - gap(i-1)|";
    TailLatencyRatio "tail_latency_ratio" Latency Flow F64 Number "ratio >= 1" "no sample" false
        "latency_p99_ms / latency_p50_ms";
    RttEstimateMs "rtt_estimate_ms" Latency Flow F64 Number "ms" "handshake not seen" false
        "the handshake's initial RTT: first SYN to the ACK that completes it, as Wireshark's tcp.analysis.initial_rtt; kept for the flow's life";
    RttVariance "rtt_variance" Latency Flow F64 Number "ms^2" "< 2 samples" false
        "sample variance of the kernel's smoothed RTT where the recording has it, else of the latency samples";
    FlowCompletionTime "flow_completion_time" Latency Flow F64 Number "s" "not completed in this window" false
        "first packet to the FIN or RST that completed the flow; only in the window in which it completed";
    GoodputMbps "goodput_mbps" Latency Flow F64 Number "Mbit/s" "never" false
        "unique payload bytes (retransmitted ones not counted again) x 8 / window length / 10^6";
    OverheadRatio "overhead_ratio" Latency Flow F64 Number "ratio 0-1" "never" false
        "1 - unique payload bytes / byte_count";
    HttpStatusCode "http_status_code" L7 Flow U16 Number "HTTP status" "no HTTP response" true
        "highest status code seen in the window";
    HttpMethod "http_method" L7 Flow Str Category(HTTP_METHODS) "" "no HTTP" true
        "method of the exchange that http_status_code came from (latest where several)";
    HttpUrl "http_url" L7 Flow Str Never "" "no HTTP" true
        "its path, query string removed, at most 256 bytes";
    HttpLatencyMs "http_latency_ms" L7 Flow F64 Number "ms" "no HTTP response" true
        "longest response time of an exchange in the window";
    GrpcStatusCode "grpc_status_code" L7 Flow U16 Number "gRPC status" "no gRPC status" true
        "highest gRPC status in the window";
    GrpcMethod "grpc_method" L7 Flow Str Never "" "no gRPC" true
        "/package.Service/Method of that call";
    DnsResponseCode "dns_response_code" L7 Flow U16 Number "DNS RCODE" "no DNS response" true
        "worst final outcome in the window, per client and name after resolv.conf search-list expansion (an NXDOMAIN of an expanded name that a later expansion answered does not count)";
    DnsQueryName "dns_query_name" L7 Flow Str Never "" "no DNS" true
        "name of that query, without the trailing dot";
    DnsNumAnswers "dns_num_answers" L7 Flow U16 Number "records" "no DNS response" true
        "answer records of that response";
    KafkaApiKey "kafka_api_key" L7 Flow I16 Number "Kafka API key" "no Kafka" true
        "protocol number of the API key";
    KafkaErrorCode "kafka_error_code" L7 Flow I16 Number "Kafka error code" "no Kafka response" true
        "worst (non-zero first) error code in the window";
    Namespace "namespace" L7 Flow Str Never "" "no Kubernetes source" true
        "namespace of the pod on the primary interface";
    PodName "pod_name" L7 Flow Str Never "" "no Kubernetes source" true
        "that pod's name";
    ServiceName "service_name" L7 Flow Str Never "" "no Kubernetes source" true
        "service that the destination belongs to";
    L7ProtocolDetected "l7_protocol_detected" L7 Flow Enum Category(L7_PROTOCOLS) "http|grpc|dns|kafka|tls" "not detected" true
        "protocol of the flow as seen by Hubble or by the built-in parser";
    Verdict "verdict" L7 Flow Enum Category(VERDICTS) "FORWARDED|DROPPED|ERROR|AUDIT|REDIRECTED|TRACED|TRANSLATED" "no Hubble" false
        "worst Hubble verdict in the window";
    DropReason "drop_reason" L7 Flow Str Never "" "nothing dropped" false
        "Hubble's drop_reason_desc or the kernel's skb drop reason";
    CpuUsagePercent "cpu_usage_percent" System Node F64 Number "percent 0-100" "first sample" true
        "100 x (1 - delta(idle+iowait) / delta(total)) of /proc/stat over the window";
    MemoryUsagePercent "memory_usage_percent" System PodOrNode F64 Number "percent 0-100" "no sample" true
        "the larger of: the pod's working set / limit where it has one, and the node's (MemTotal-MemAvailable)/MemTotal; at the window's end";
    MemoryAvailableMb "memory_available_mb" System Node F64 Number "MiB" "no sample" true
        "MemAvailable at the window's end";
    DiskReadBytes "disk_read_bytes" System Node U64 Number "bytes" "first sample" true
        "read bytes over the window, summed over physical disks (no loop, ram, zram, dm, md or partitions)";
    DiskWriteBytes "disk_write_bytes" System Node U64 Number "bytes" "first sample" true
        "write bytes over the window, summed over physical disks (no loop, ram, zram, dm, md or partitions)";
    DiskReadCount "disk_read_count" System Node U64 Number "operations" "first sample" true
        "read operations over the window, summed over physical disks (no loop, ram, zram, dm, md or partitions)";
    DiskWriteCount "disk_write_count" System Node U64 Number "operations" "first sample" true
        "write operations over the window, summed over physical disks (no loop, ram, zram, dm, md or partitions)";
    DiskReadTimeMs "disk_read_time_ms" System Node U64 Number "ms" "first sample" true
        "time spent on reads over the window, summed as /proc/diskstats counts it";
    DiskWriteTimeMs "disk_write_time_ms" System Node U64 Number "ms" "first sample" true
        "time spent on writes over the window, summed as /proc/diskstats counts it";
    DiskAvgLatencyUs "disk_avg_latency_us" System Node F64 Number "us" "first sample" true
        "(disk_read_time_ms + disk_write_time_ms) x 1000 / operations; 0 where there were none";
    DiskQueueDepth "disk_queue_depth" System Node F64 Number "requests" "first sample" false
        "largest over physical disks of delta(weighted I/O ms) / window ms (iostat's aqu-sz)";
    OomKills "oom_kills" System PodOrNode U64 Number "kills" "no sample" true
        "OOM kills in the window: the oom:mark_victim events, or the counter's delta where there is no probe";
    ProcessCpuTop3 "process_cpu_top3" System Node Str Never "" "no sample" true
        "name(percent of one core) of the three busiest processes, comma separated, largest first";
    CpuNrPeriods "cpu_nr_periods" System Pod U64 Number "periods" "never" false
        "delta of cgroup cpu.stat nr_periods over the pod's containers (v1 and v2); 0 where no limit is set";
    CpuNrThrottled "cpu_nr_throttled" System Pod U64 Number "periods" "never" false
        "delta of nr_throttled";
    CpuThrottledTimeMs "cpu_throttled_time_ms" System Pod F64 Number "ms" "never" false
        "delta of throttled_usec (v2) or throttled_time ns (v1)";
    CpuThrottleRatio "cpu_throttle_ratio" System Pod F64 Number "ratio 0-1" "never" false
        "cpu_nr_throttled / cpu_nr_periods; 0 where no periods";
    TcpListenOverflows "tcp_listen_overflows" System PodOrNode U64 Number "connections" "first sample" false
        "delta of TcpExt ListenOverflows in the pod's network namespace (the node's for host-network pods)";
    TcpListenDrops "tcp_listen_drops" System PodOrNode U64 Number "connections" "first sample" false
        "delta of TcpExt ListenDrops there";
    SwapUsagePercent "swap_usage_percent" System Node F64 Number "percent 0-100" "no sample" false
        "used / total swap at the window's end; 0 where there is none";
    ZombieProcesses "zombie_processes" System Node U64 Number "processes" "no sample" false
        "processes in state Z at the window's end";
    HighIoLatency "high_io_latency" System Node Bool Bool "0|1" "as disk_avg_latency_us" false
        "disk_avg_latency_us > 10000";
    CpuContention "cpu_contention" System Node Bool Bool "0|1" "as cpu_usage_percent" false
        "cpu_usage_percent > 80";
    CpuThrottled "cpu_throttled" System Pod Bool Bool "0|1" "never" false
        "cpu_throttle_ratio > 0.1";
    MemoryCritical "memory_critical" System PodOrNode Bool Bool "0|1" "as memory_usage_percent" false
        "memory_usage_percent > 90";
    DiskSaturated "disk_saturated" System Node Bool Bool "0|1" "as disk_queue_depth" false
        "disk_queue_depth > 10";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_table_is_the_specification() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/features.tsv");
        let Ok(text) = std::fs::read_to_string(&path) else {
            eprintln!("skipped: the_table_is_the_specification: {} is absent", path.display());
            return;
        };
        let lines: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split('\t').collect()).collect();
        assert_eq!(lines.len(), FEATURES);
        for (column, line) in features().iter().zip(lines) {
            let profile = if column.in_profile_72 { "yes" } else { "no" };
            let ours =
                [column.name, column.group.name(), column.scope.name(), column.kind.name(), column.unit];
            assert_eq!(ours, line[1..6]);
            assert_eq!([column.empty_when, profile, column.definition], line[6..9]);
        }
    }

    #[test]
    fn names_are_unique_and_places_agree() {
        let names: HashSet<&str> = COLUMNS.iter().map(|column| column.name).collect();
        assert_eq!(names.len(), WIDTH);
        for (place, feature) in Feature::ALL.iter().enumerate() {
            assert_eq!(position(feature.name()), Some(METADATA + place));
        }
        assert_eq!((WIDTH, FEATURES), (103, 94));
    }

    #[test]
    fn enums_list_what_the_unit_says() {
        for column in features().iter().filter(|column| column.kind == Type::Enum) {
            let Input::Category(names) = column.input else { panic!("{} has no codes", column.name) };
            assert_eq!(names.join("|"), column.unit);
        }
    }

    #[test]
    fn the_ancestor_has_72_columns_and_two_more() {
        let header = Profile::Ancestor72.header();
        assert_eq!(header.split(',').count(), 72 + 2);
        assert!(
            header.starts_with("timestamp,flow_id,src_ip,dst_ip,src_port,dst_port,protocol,packet_count,")
        );
        assert!(header.ends_with(",l7_protocol,anomaly_label"));
        assert_eq!(Profile::Full.header().split(',').count(), WIDTH);
    }

    #[test]
    fn cells_become_inputs() {
        let rate = Feature::PacketsPerSecond.column();
        assert_eq!(rate.encode_text("0.5"), Ok(0.5));
        assert!(rate.encode_text("").unwrap().is_nan());
        assert!(rate.encode(&Value::Empty).is_nan());
        for bad in ["NaN", "inf", "-inf", "1x", " 1"] {
            let error = rate.encode_text(bad).unwrap_err().to_string();
            assert!(error.contains("packets_per_second") && error.contains(bad), "{error}");
        }
        let state = Feature::ConnectionState.column();
        assert_eq!(state.encode_text("ESTABLISHED"), Ok(2.0));
        assert_eq!(state.encode_text("LISTENING"), Ok(Input::UNSEEN));
        assert_eq!(state.encode(&Value::Name("CLOSED")), 4.0);
        let blocked = Feature::IsBlockedFlow.column();
        assert_eq!(blocked.encode_text("1"), Ok(1.0));
        assert!(blocked.encode_text("2").is_err());
    }

    #[test]
    fn huge_numbers_stay_finite() {
        assert_eq!(Feature::GoodputMbps.column().encode_text("1e300"), Ok(f32::MAX));
    }
}
