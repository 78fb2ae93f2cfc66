//! Publication from one writer to many readers, with retirement by epoch (crossbeam-epoch).
//!
//! ```text
//!  writer:  build -> store (release) ... swap out -> defer -- every guard of then is gone --> drop
//!  reader:  pin  -> load (acquire) -> use while pinned -> repin at the next batch
//! ```
//!
//! All unsafe code of the tables is in this file: what a reader gets lives at least as long as its
//! [`Guard`], because whatever is taken out of a [`Slot`] or an [`Arena`] is dropped only after every guard
//! that existed at that moment is gone.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam_queue::SegQueue;

/// Proof that this thread holds the current epoch.
pub struct Guard {
    // Always of the default collector: a guard of another one would protect nothing here.
    inner: crossbeam_epoch::Guard,
}

impl Guard {
    /// Pins this thread.
    #[must_use]
    pub fn pin() -> Self {
        Self {
            inner: crossbeam_epoch::pin(),
        }
    }

    /// Lets go of what was seen so far and sees what is newest. Frees nothing: collection is the
    /// writer's work.
    pub fn repin(&mut self) {
        self.inner.repin();
    }

    /// Frees what no guard can reach any more; for the writer.
    pub fn collect(&mut self) {
        self.inner.flush();
        self.inner.repin();
    }

    /// Runs `action` once every guard that exists now is gone.
    pub fn defer<F: FnOnce() + Send + 'static>(&self, action: F) {
        self.inner.defer(action);
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Guard")
    }
}

/// An optional shared object that the writer replaces and readers look at.
pub struct Slot<T: Send + Sync + 'static> {
    pointer: AtomicPtr<T>,
    owns: PhantomData<Option<Arc<T>>>,
}

impl<T: Send + Sync + 'static> Slot<T> {
    /// Nothing.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            pointer: AtomicPtr::new(std::ptr::null_mut()),
            owns: PhantomData,
        }
    }

    /// Holding `value`.
    #[must_use]
    pub fn new(value: T) -> Self {
        let slot = Self::empty();
        slot.pointer
            .store(Arc::into_raw(Arc::new(value)).cast_mut(), Ordering::Release);
        slot
    }

    /// What is held now.
    #[inline]
    #[must_use]
    pub fn load<'g>(&'g self, _guard: &'g Guard) -> Option<&'g T> {
        let pointer = self.pointer.load(Ordering::Acquire);
        // SAFETY: the pointer is null or came from `Arc::into_raw` in `replace` or `new`, and the slot owned
        // it at the load. `replace` gives its reference up only by `defer`, which waits for `_guard`;
        // `drop` needs the slot exclusively, which the borrow of `self` prevents.
        unsafe { pointer.as_ref() }
    }

    /// Puts `value` in the place of what is held, which is dropped when no reader has it any more.
    pub fn replace(&self, value: Option<Arc<T>>, guard: &Guard) {
        let new = value.map_or(std::ptr::null_mut(), |value| Arc::into_raw(value).cast_mut());
        let old = self.pointer.swap(new, Ordering::AcqRel);
        if !old.is_null() {
            // SAFETY: `old` came from `Arc::into_raw`, and the swap made this the only place that gives the
            // slot's reference up.
            let old = unsafe { Arc::from_raw(old) };
            guard.inner.defer(move || drop(old));
        }
    }
}

impl<T: Send + Sync + 'static> Drop for Slot<T> {
    fn drop(&mut self) {
        let pointer = *self.pointer.get_mut();
        if !pointer.is_null() {
            // SAFETY: as in `replace`; nobody borrows the slot, so nobody holds what `load` gave.
            drop(unsafe { Arc::from_raw(pointer) });
        }
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Slot<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Slot")
    }
}

/// A shared object that is always there and that the writer replaces.
pub struct Always<T: Send + Sync + 'static> {
    slot: Slot<T>,
}

impl<T: Send + Sync + 'static> Always<T> {
    /// Holding `value`.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self {
            slot: Slot::new(value),
        }
    }

    /// What is held now.
    #[inline]
    #[must_use]
    pub fn load<'g>(&'g self, guard: &'g Guard) -> &'g T {
        let value = self.slot.load(guard);
        // SAFETY: `new` put a value in, and `replace` takes none out without another in its place.
        unsafe { value.unwrap_unchecked() }
    }

    /// Puts `value` in the place of what is held.
    pub fn replace(&self, value: T, guard: &Guard) {
        self.slot.replace(Some(Arc::new(value)), guard);
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Always<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Always")
    }
}

/// No more room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// An array that grows by chunks and never moves an element; up to `CHUNKS` times `CHUNK` elements.
pub struct Growing<T, const CHUNK: usize> {
    chunks: Box<[OnceLock<Box<[T; CHUNK]>>]>,
}

impl<T, const CHUNK: usize> Growing<T, CHUNK> {
    const SHIFT: u32 = {
        assert!(CHUNK.is_power_of_two());
        CHUNK.trailing_zeros()
    };

    /// Room for `limit` elements, none of them made.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            chunks: (0..limit.div_ceil(CHUNK)).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Most elements.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// The element, where its chunk was made.
    #[inline]
    #[must_use]
    pub fn get(&self, index: u32) -> Option<&T> {
        let chunk = self.chunks.get((index >> Self::SHIFT) as usize)?.get()?;
        Some(&chunk[index as usize & (CHUNK - 1)])
    }

    /// The element; its chunk is made where it is not there.
    ///
    /// # Errors
    /// [`Full`] beyond the limit.
    pub fn get_or_grow(&self, index: u32, make: impl Fn() -> T) -> Result<&T, Full> {
        let chunk = self.chunks.get((index >> Self::SHIFT) as usize).ok_or(Full)?;
        let chunk = chunk.get_or_init(|| {
            let elements: Vec<T> = (0..CHUNK).map(|_| make()).collect();
            match elements.into_boxed_slice().try_into() {
                Ok(chunk) => chunk,
                Err(_) => unreachable!("the iterator makes CHUNK elements"),
            }
        });
        Ok(&chunk[index as usize & (CHUNK - 1)])
    }

    /// Bytes of the chunks made so far.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let made = self.chunks.iter().filter(|chunk| chunk.get().is_some()).count();
        made * CHUNK * size_of::<T>() + self.chunks.len() * size_of::<OnceLock<Box<[T; CHUNK]>>>()
    }
}

/// Numbers that are given out, come back, and are given out again only when no reader can remember them.
#[derive(Debug)]
pub struct Numbers {
    next: AtomicU32,
    free: Arc<SegQueue<u32>>,
}

impl Numbers {
    /// From `first` on.
    #[must_use]
    pub fn from(first: u32) -> Self {
        Self {
            next: AtomicU32::new(first),
            free: Arc::default(),
        }
    }

    /// A number that nobody has, below `limit`.
    ///
    /// # Errors
    /// [`Full`] where all are out.
    pub fn take(&self, limit: u32) -> Result<u32, Full> {
        if let Some(number) = self.free.pop() {
            return Ok(number);
        }
        self.next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                (next < limit).then_some(next + 1)
            })
            .map_err(|_| Full)
    }

    /// How many are out, those included that readers may still remember.
    #[must_use]
    pub fn out(&self) -> usize {
        (self.next.load(Ordering::Relaxed) as usize).saturating_sub(self.free.len())
    }

    /// Gives `number` back once every guard of now is gone.
    pub fn give_back(&self, number: u32, guard: &Guard) {
        let free = Arc::clone(&self.free);
        guard.defer(move || free.push(number));
    }
}

/// A huge page, of which the kernel is asked to make the memory of cells: with a million objects the walk through the
/// page tables would cost as much as the cache misses.
const PAGE_BYTES: usize = 1 << 21;

/// Flags of as many objects stand together.
const FLAGS: usize = 4096;

/// Room for as many cells as a huge page holds.
struct Page<T> {
    start: NonNull<T>,
}

// SAFETY: a page is memory for values and holds none itself; who shares them is the arena's business.
unsafe impl<T> Send for Page<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Page<T> {}

impl<T> Page<T> {
    const CELLS: usize = {
        assert!(size_of::<T>() != 0 && size_of::<T>() <= PAGE_BYTES && align_of::<T>() <= PAGE_BYTES);
        PAGE_BYTES / size_of::<T>()
    };
    const LAYOUT: Layout = match Layout::from_size_align(PAGE_BYTES, PAGE_BYTES) {
        Ok(layout) => layout,
        Err(_) => panic!("the alignment is a power of two"),
    };

    fn new() -> Self {
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc(Self::LAYOUT) };
        let Some(start) = NonNull::new(start) else {
            handle_alloc_error(Self::LAYOUT)
        };
        // A kernel without huge pages refuses, and nothing else changes.
        // SAFETY: exactly the memory of this allocation.
        #[cfg(not(miri))]
        let _ = unsafe {
            nix::sys::mman::madvise(
                start.cast(),
                PAGE_BYTES,
                nix::sys::mman::MmapAdvise::MADV_HUGEPAGE,
            )
        };
        Self { start: start.cast() }
    }

    /// Where the value of a cell is, or goes.
    #[inline(always)]
    fn cell(&self, index: usize) -> *mut T {
        debug_assert!(index < Self::CELLS);
        self.start.as_ptr().wrapping_add(index)
    }
}

impl<T> Drop for Page<T> {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and nobody has it any more.
        unsafe { dealloc(self.start.as_ptr().cast(), Self::LAYOUT) };
    }
}

struct Cells<T> {
    pages: Box<[OnceLock<Page<T>>]>,
    live: Growing<AtomicU8, FLAGS>,
    limit: u32,
    free: SegQueue<u32>,
    next: AtomicU32,
}

// SAFETY: a cell is written only by whoever took its number from `next` or `free` and before `live` says so; after
// that it is only shared until it is retired.
unsafe impl<T: Send + Sync> Sync for Cells<T> {}

impl<T> Cells<T> {
    fn new(limit: usize) -> Self {
        Self {
            pages: (0..limit.div_ceil(Page::<T>::CELLS))
                .map(|_| OnceLock::new())
                .collect(),
            live: Growing::new(limit),
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            free: SegQueue::new(),
            next: AtomicU32::new(0),
        }
    }

    /// Where the value of a number is, or goes; none where its page was never made.
    #[inline(always)]
    fn cell(&self, index: u32) -> Option<*mut T> {
        let index = index as usize;
        let page = self.pages.get(index / Page::<T>::CELLS)?.get()?;
        Some(page.cell(index % Page::<T>::CELLS))
    }
}

impl<T> Drop for Cells<T> {
    fn drop(&mut self) {
        for index in 0..*self.next.get_mut() {
            let live = self
                .live
                .get(index)
                .is_some_and(|live| live.load(Ordering::Acquire) != 0);
            if let (true, Some(cell)) = (live, self.cell(index)) {
                // SAFETY: live cells hold a value, and nobody shares what is being dropped.
                unsafe { cell.drop_in_place() };
            }
        }
    }
}

/// Objects in place, found by number: no pointer to follow, no allocation header, no reference count.
pub struct Arena<T: Send + Sync + 'static> {
    cells: Arc<Cells<T>>,
}

impl<T: Send + Sync + 'static> Arena<T> {
    /// Room for `limit` objects; memory is taken as they come.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            cells: Arc::new(Cells::new(limit)),
        }
    }

    /// The object of this number, if there is one.
    #[inline]
    #[must_use]
    pub fn get<'g>(&'g self, index: u32, _guard: &'g Guard) -> Option<&'g T> {
        if self.cells.live.get(index)?.load(Ordering::Acquire) == 0 {
            return None;
        }
        // SAFETY: `live` is set after the value was written and cleared before it is retired, and retiring
        // waits for `_guard`.
        Some(unsafe { &*self.cells.cell(index)? })
    }

    /// Starts to load the object's first `lines` cache lines.
    #[inline]
    pub fn prefetch(&self, index: u32, lines: usize) {
        if let Some(live) = self.cells.live.get(index) {
            prefetch(live);
        }
        if let Some(cell) = self.cells.cell(index) {
            prefetch_lines(cell.cast_const().cast(), lines);
        }
    }

    /// Puts `value` somewhere; nobody finds it before its number is told.
    ///
    /// # Errors
    /// [`Full`].
    pub fn insert(&self, value: T) -> Result<u32, Full> {
        let inner = &self.cells;
        let index = match inner.free.pop() {
            Some(index) => index,
            None => inner
                .next
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                    (next < inner.limit).then_some(next + 1)
                })
                .map_err(|_| Full)?,
        };
        let page = inner
            .pages
            .get(index as usize / Page::<T>::CELLS)
            .ok_or(Full)?
            .get_or_init(Page::new);
        let cell = page.cell(index as usize % Page::<T>::CELLS);
        let live = inner.live.get_or_grow(index, || AtomicU8::new(0))?;
        // SAFETY: the number came from `next` or `free`, so nobody else has it and the cell holds no value.
        unsafe { cell.write(value) };
        live.store(1, Ordering::Release);
        Ok(index)
    }

    /// Takes the object out; it is dropped, and its number reused, when no reader has it any more. Returns
    /// whether it was there.
    pub fn retire(&self, index: u32, guard: &Guard) -> bool {
        let Some(live) = self.cells.live.get(index) else {
            return false;
        };
        if live.swap(0, Ordering::AcqRel) == 0 {
            return false;
        }
        let inner = Arc::clone(&self.cells);
        guard.defer(move || {
            if let Some(cell) = inner.cell(index) {
                // SAFETY: the swap above made this the only one to drop the value, and the guards that could
                // have seen it are gone.
                unsafe { cell.drop_in_place() };
            }
            inner.free.push(index);
        });
        true
    }

    /// The same once every guard of now is gone: whoever knows the number by then still finds the object.
    pub fn retire_later(&self, index: u32, guard: &Guard) {
        let arena = Self {
            cells: Arc::clone(&self.cells),
        };
        guard.defer(move || {
            arena.retire(index, &Guard::pin());
        });
    }

    /// Bytes taken so far.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let pages = &self.cells.pages;
        let made = pages.iter().filter(|page| page.get().is_some()).count();
        made * PAGE_BYTES + size_of_val(&**pages) + self.cells.live.memory_bytes()
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Arena<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Arena")
    }
}

/// `count` zeros, whose memory is the kernel's zero page until one is written.
#[must_use]
pub fn zeroed_words(count: usize) -> Box<[AtomicU64]> {
    // SAFETY: an atomic of which all bits are zero is a zero.
    unsafe { Box::<[AtomicU64]>::new_zeroed_slice(count).assume_init() }
}

/// Starts to load `value`: as many cache lines as it needs where it begins with one.
#[inline]
pub fn prefetch<T>(value: &T) {
    prefetch_lines(std::ptr::from_ref(value).cast(), size_of::<T>().div_ceil(64));
}

/// Starts to load as many cache lines of `value` from its first byte on.
#[inline]
pub fn prefetch_front<T>(value: &T, lines: usize) {
    prefetch_lines(std::ptr::from_ref(value).cast(), lines);
}

#[inline]
fn prefetch_lines(start: *const u8, lines: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..lines {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch of any address is a hint that cannot fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(line * 64).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (start, lines);
}
