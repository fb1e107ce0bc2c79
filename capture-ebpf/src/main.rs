//! The kernel programs of capture, one file per source. They observe: no packet is changed or dropped.
#![no_std]
#![no_main]
// Of the barrier in `headers`; no other compiler feature is used.
#![feature(asm_experimental_arch)]

mod headers;
mod kernel;
mod payload;
mod ring;
mod sample;
mod tc;

/// The kernel reads the licence from here; helpers for GPL-compatible programs ask for it.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier accepts no program that can get here.
    loop {}
}
