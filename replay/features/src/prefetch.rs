//! Memory that will be needed soon, brought into the cache while something else is done.

/// Bytes of a cache line of the processors that matter.
const LINE: usize = 64;

/// Begins to bring every cache line of a value into the cache, and does not wait for it. A hint: what a processor
/// without one does is right, and slower.
#[inline(always)]
pub fn bring<T>(value: &T) {
    let start = std::ptr::from_ref(value).cast::<i8>();
    for offset in (0..size_of::<T>()).step_by(LINE) {
        line(start.wrapping_add(offset));
    }
    // A value may begin in the middle of a line.
    line(start.wrapping_add(size_of::<T>() - 1));
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[expect(
    unsafe_code,
    reason = "no safe function gives this hint yet; it reads and writes nothing, at any address"
)]
fn line(address: *const i8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch is no access: it cannot fault, and the program cannot observe it.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address) }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn line(_: *const i8) {}
