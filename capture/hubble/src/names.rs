//! Names of Hubble's enumerations, and the numbers that stand for them on the wire.

/// A number's name, or the other way round.
pub(crate) type Table = &'static [(i32, &'static str)];

pub(crate) const VERDICT: Table = &[
    (1, "FORWARDED"),
    (2, "DROPPED"),
    (3, "ERROR"),
    (4, "AUDIT"),
    (5, "REDIRECTED"),
    (6, "TRACED"),
    (7, "TRANSLATED"),
];

pub(crate) const FLOW_TYPE: Table = &[(1, "L3_L4"), (2, "L7"), (3, "SOCK")];

pub(crate) const L7_TYPE: Table = &[(1, "REQUEST"), (2, "RESPONSE"), (3, "SAMPLE")];

pub(crate) const LOST_SOURCE: Table =
    &[(1, "PERF_EVENT_RING_BUFFER"), (2, "OBSERVER_EVENTS_QUEUE"), (3, "HUBBLE_RING_BUFFER")];

pub(crate) const NODE_STATE: Table =
    &[(1, "NODE_CONNECTED"), (2, "NODE_UNAVAILABLE"), (3, "NODE_GONE"), (4, "NODE_ERROR")];

/// The reasons that operators meet. The set is open: others are told by their number.
pub(crate) const DROP_REASON: Table = &[
    (130, "INVALID_SOURCE_MAC"),
    (131, "INVALID_DESTINATION_MAC"),
    (132, "INVALID_SOURCE_IP"),
    (133, "POLICY_DENIED"),
    (134, "INVALID_PACKET_DROPPED"),
    (135, "CT_TRUNCATED_OR_INVALID_HEADER"),
    (136, "CT_MISSING_TCP_ACK_FLAG"),
    (137, "CT_UNKNOWN_L4_PROTOCOL"),
    (139, "UNSUPPORTED_L3_PROTOCOL"),
    (140, "MISSED_TAIL_CALL"),
    (142, "UNKNOWN_L4_PROTOCOL"),
    (150, "UNKNOWN_L3_TARGET_ADDRESS"),
    (151, "STALE_OR_UNROUTABLE_IP"),
    (152, "NO_MATCHING_LOCAL_CONTAINER_FOUND"),
    (155, "CT_MAP_INSERTION_FAILED"),
    (157, "IP_FRAGMENTATION_NOT_SUPPORTED"),
    (158, "SERVICE_BACKEND_NOT_FOUND"),
    (160, "NO_TUNNEL_OR_ENCAPSULATION_ENDPOINT"),
    (164, "LOCAL_HOST_IS_UNREACHABLE"),
    (166, "UNSUPPORTED_L2_PROTOCOL"),
    (167, "NO_MAPPING_FOR_NAT_MASQUERADE"),
    (169, "FIB_LOOKUP_FAILED"),
    (171, "INVALID_IDENTITY"),
    (172, "UNKNOWN_SENDER"),
    (175, "FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND"),
    (177, "DENIED_BY_LB_SRC_RANGE_CHECK"),
    (181, "POLICY_DENY"),
    (182, "VLAN_FILTERED"),
    (189, "AUTH_REQUIRED"),
    (195, "UNENCRYPTED_TRAFFIC"),
    (196, "TTL_EXCEEDED"),
];

/// As Hubble's proxies write them.
pub(crate) const KAFKA_API: Table = &[
    (0, "produce"),
    (1, "fetch"),
    (2, "offsets"),
    (3, "metadata"),
    (4, "leaderandisr"),
    (5, "stopreplica"),
    (6, "updatemetadata"),
    (7, "controlledshutdown"),
    (8, "offsetcommit"),
    (9, "offsetfetch"),
    (10, "findcoordinator"),
    (11, "joingroup"),
    (12, "heartbeat"),
    (13, "leavegroup"),
    (14, "syncgroup"),
    (15, "describegroups"),
    (16, "listgroups"),
    (17, "saslhandshake"),
    (18, "apiversions"),
    (19, "createtopics"),
    (20, "deletetopics"),
    (33, "alterconfigs"),
];

pub(crate) fn name_of(table: Table, number: i32) -> Option<&'static str> {
    table.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

pub(crate) fn number_of(table: Table, name: &str) -> Option<i32> {
    table.iter().find(|(_, known)| *known == name).map(|(number, _)| *number)
}
