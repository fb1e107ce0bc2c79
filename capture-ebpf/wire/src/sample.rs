//! Which flows a sample keeps: one in N, by a hash that is the same for both directions and on every node.

use crate::Address;

/// splitmix64's last step: every bit of the result depends on every bit of the value.
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// One end of a flow.
const fn end(address: Address, port: u16) -> u64 {
    // A constant apart, so that an address of zeros is not one that is missing.
    mix(address[0] ^ mix(address[1] ^ port as u64 ^ 0x9e37_79b9_7f4a_7c15))
}

/// The hash of a flow, whichever way its packet goes. Ports are 0 where there are none.
pub const fn flow_hash(
    source: Address,
    source_port: u16,
    destination: Address,
    destination_port: u16,
    protocol: u8,
) -> u32 {
    let ends = end(source, source_port).wrapping_add(end(destination, destination_port));
    (mix(ends ^ protocol as u64) >> 32) as u32
}

/// Whether a sample of one flow in `sample` keeps the flow of this hash: those whose hash is in the first of as many
/// equal parts. The flows of 1/100 are among those of 1/10.
pub const fn sample_keeps(sample: u32, hash: u32) -> bool {
    (sample as u64 * hash as u64) >> 32 == 0
}
