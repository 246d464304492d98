use std::{mem, ptr};

/// Memory of C's allocator, with one byte more than its capacity.
pub(super) struct Buffer {
    bytes: *mut u8,
    capacity: usize,
    length: usize,
}

impl Buffer {
    /// An empty buffer; `None` if the system has no memory for it.
    pub(super) fn new(capacity: usize) -> Option<Self> {
        // SAFETY: any size may be asked for, and null is checked below.
        let bytes: *mut u8 = unsafe { libc::malloc(capacity.checked_add(1)?) }.cast();
        (!bytes.is_null()).then_some(Self { bytes, capacity, length: 0 })
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The place behind the bytes that are there, and how many more fit.
    pub(super) fn room(&mut self) -> (*mut u8, usize) {
        // SAFETY: `length` is within the capacity.
        (unsafe { self.bytes.add(self.length) }, self.capacity - self.length)
    }

    /// Says that so many more bytes have been written to [`Buffer::room`].
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.length = (self.length + bytes).min(self.capacity);
    }

    /// Changes the capacity, which stays above what is there; false if the system has no memory for it.
    pub(super) fn resize(&mut self, capacity: usize) -> bool {
        let capacity = capacity.max(self.length);
        let Some(size) = capacity.checked_add(1) else { return false };
        // SAFETY: the memory is from `malloc`, and if there is no other it stays as it is.
        let bytes: *mut u8 = unsafe { libc::realloc(self.bytes.cast(), size) }.cast();
        if bytes.is_null() {
            return false;
        }
        (self.bytes, self.capacity) = (bytes, capacity);
        true
    }

    /// The bytes with a zero byte behind them, to be freed by `free`, and how many they are.
    pub(super) fn into_raw(mut self) -> (*mut u8, usize) {
        if self.capacity > self.length {
            // If it fails, the memory is only larger than it must be.
            self.resize(self.length);
        }
        let (bytes, length) = (mem::replace(&mut self.bytes, ptr::null_mut()), self.length);
        // SAFETY: there is one byte more than the capacity.
        unsafe { *bytes.add(length) = 0 };
        (bytes, length)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the memory is from `malloc`, or null after `into_raw`.
        unsafe { libc::free(self.bytes.cast()) };
    }
}
