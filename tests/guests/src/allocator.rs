//! An allocator that never comes back from one size, so that a test can see a loop in `cabi_realloc`.
#![expect(unsafe_code, reason = "an allocator has no other form")]

use std::alloc::{GlobalAlloc, Layout, System};

struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// No other part of the tests asks for this size.
const ENDLESS: usize = 424_242;

/// Nor for this one, which it does not survive to free: the host frees an answer after it has taken it.
const FATAL: usize = 242_424;

// SAFETY: everything that comes back is the system allocator's.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        while std::hint::black_box(layout.size()) == ENDLESS {}
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if std::hint::black_box(layout.size()) == FATAL {
            std::process::abort();
        }
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}
