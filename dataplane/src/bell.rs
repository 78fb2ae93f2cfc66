//! [`Bell`]: how workers tell the main thread, which sleeps, that something waits for it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Rung by any thread, heard by one. However often it is rung between two hearings, it costs one system call.
#[derive(Clone, Debug)]
pub struct Bell(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    event: EventFd,
    is_rung: AtomicBool,
}

impl Bell {
    /// A bell that nobody has rung.
    ///
    /// # Errors
    /// The kernel's, for the descriptor.
    pub fn new() -> io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Self(Arc::new(Inner {
            event,
            is_rung: AtomicBool::new(false),
        })))
    }

    /// To be called after what it is rung for was put where the hearer looks.
    pub fn ring(&self) {
        if !self.0.is_rung.swap(true, Ordering::AcqRel) {
            // A counter that is full wakes the hearer as well.
            let _ = self.0.event.write(1);
        }
    }

    /// To be called before looking: what is put there later rings again.
    pub fn hear(&self) {
        // Nothing to read where it was not rung.
        let _ = self.0.event.read();
        self.0.is_rung.swap(false, Ordering::AcqRel);
    }
}

impl AsFd for Bell {
    /// Readable while it is rung and not heard.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn is_readable(bell: &Bell, limit_ms: u16) -> bool {
        let mut waited = [PollFd::new(bell.as_fd(), PollFlags::POLLIN)];
        poll(&mut waited, PollTimeout::from(limit_ms)) == Ok(1)
    }

    #[test]
    fn it_is_readable_from_the_first_ring_to_the_hearing() {
        let bell = Bell::new().unwrap();
        assert!(!is_readable(&bell, 0));
        bell.ring();
        bell.ring();
        assert!(is_readable(&bell, 0));
        bell.hear();
        assert!(!is_readable(&bell, 0));
        bell.ring();
        assert!(is_readable(&bell, 0));
    }

    #[test]
    fn nothing_that_was_rung_for_is_missed() {
        const THINGS: u32 = 20_000;
        let bell = Bell::new().unwrap();
        let (put, taken) = crossbeam_channel::unbounded();
        let ringer = bell.clone();
        let thread = std::thread::spawn(move || {
            for thing in 0..THINGS {
                put.send(thing).unwrap();
                ringer.ring();
            }
        });
        let mut seen = 0;
        while seen < THINGS {
            assert!(
                is_readable(&bell, 10_000),
                "{seen} seen, and no ring for the next"
            );
            bell.hear();
            seen += taken.try_iter().count() as u32;
        }
        thread.join().unwrap();
    }
}
