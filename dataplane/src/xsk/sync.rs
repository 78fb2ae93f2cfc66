//! The atomics and cells the rings are made of: the machine's, or loom's when a test explores interleavings.

#[cfg(not(loom))]
pub(super) use std::sync::atomic::{AtomicU32, Ordering};

#[cfg(loom)]
pub(super) use loom::{
    cell::UnsafeCell,
    sync::atomic::{AtomicU32, Ordering},
};

/// A cell shared by the two sides of a ring; who may touch it follows from the ring's indices.
#[cfg(not(loom))]
#[repr(transparent)]
pub(super) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    #[inline(always)]
    pub(super) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    #[inline(always)]
    pub(super) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}
