//! [`Sleeper`]: how a worker without packets passes the time, and [`Waker`], by which others end its sleep.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    sync::Arc,
};

use nix::{
    errno::Errno,
    libc,
    sys::eventfd::{EfdFlags, EventFd},
};

/// Turns without work before the first sleep: a few microseconds each, so that a stream of packets never pays for one.
const TURNS_BEFORE_SLEEP: u32 = 256;

/// What ended a sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// A descriptor is readable: packets wait.
    Traffic,
    /// A [`Waker`] was used.
    Command,
    /// The time is over, or a signal came.
    Timeout,
}

/// Ends a worker's sleep from another thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    /// Ends the sleep, or the next one at once.
    pub fn wake(&self) {
        // A full counter is a wake that is due already.
        let _ = self.0.write(1);
    }
}

/// A worker's idling: spinning always, or for a while and then sleeping in poll.
#[derive(Debug)]
pub struct Sleeper {
    event: Arc<EventFd>,
    spins: bool,
    idle_turns: u32,
    /// Kept from sleep to sleep, so that none allocates.
    polled: Vec<libc::pollfd>,
}

impl Sleeper {
    /// `spins`: never sleep. `descriptors` is how many at most are waited for without allocating.
    pub fn new(spins: bool, descriptors: usize) -> io::Result<(Self, Waker)> {
        let event = Arc::new(EventFd::from_flags(
            EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC,
        )?);
        let waker = Waker(event.clone());
        Ok((
            Self {
                event,
                spins,
                idle_turns: 0,
                polled: Vec::with_capacity(descriptors + 1),
            },
            waker,
        ))
    }

    /// To be called once a turn, with whether it had work. True when it is time to sleep.
    #[inline]
    pub fn should_sleep(&mut self, worked: bool) -> bool {
        if worked {
            self.idle_turns = 0;
            return false;
        }
        self.idle_turns = self.idle_turns.saturating_add(1);
        if self.spins || self.idle_turns < TURNS_BEFORE_SLEEP {
            std::hint::spin_loop();
            return false;
        }
        true
    }

    /// Sleeps until one of the descriptors is readable, a waker is used, or the time is over.
    ///
    /// It waits for received packets only: a socket has nearly always room to send, so waiting for that would not sleep.
    /// Frames in flight come back by `complete` at the next turn, so keep the time short while there are any.
    pub fn sleep<'fd>(
        &mut self,
        descriptors: impl IntoIterator<Item = BorrowedFd<'fd>>,
        timeout_ms: u16,
    ) -> Woken {
        let entry = |fd: BorrowedFd<'_>| libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        self.polled.clear();
        self.polled.push(entry(self.event.as_fd()));
        self.polled.extend(descriptors.into_iter().map(entry));
        // SAFETY: the array is valid for its length; the descriptors are open, for they are borrowed during the call.
        let result = unsafe {
            libc::poll(
                self.polled.as_mut_ptr(),
                self.polled.len() as libc::nfds_t,
                i32::from(timeout_ms),
            )
        };
        if !matches!(Errno::result(result), Ok(1..)) {
            return Woken::Timeout;
        }
        if self.polled[0].revents != 0 {
            // What the counter says does not matter, only that it is zero again.
            let _ = self.event.read();
            return Woken::Command;
        }
        self.idle_turns = 0;
        Woken::Traffic
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::xsk::{QueueId, RingSizes, Umem, UmemConfig, memory};

    #[test]
    fn sleeps_only_after_many_turns_without_work_and_never_when_spinning() {
        let (mut adaptive, _waker) = Sleeper::new(false, 0).unwrap();
        let first = (0..).find(|_| adaptive.should_sleep(false)).unwrap();
        assert_eq!(first + 1, TURNS_BEFORE_SLEEP);
        assert!(adaptive.should_sleep(false));
        assert!(!adaptive.should_sleep(true) && !adaptive.should_sleep(false));
        let (mut spinning, _waker) = Sleeper::new(true, 0).unwrap();
        assert!((0..2 * TURNS_BEFORE_SLEEP).all(|_| !spinning.should_sleep(false)));
    }

    #[test]
    fn a_waker_ends_this_sleep_or_the_next_and_only_one() {
        let (mut sleeper, waker) = Sleeper::new(false, 0).unwrap();
        waker.wake();
        waker.wake();
        assert_eq!(sleeper.sleep([], 5000), Woken::Command);
        assert_eq!(sleeper.sleep([], 1), Woken::Timeout);
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            waker.wake();
        });
        let start = Instant::now();
        assert_eq!(sleeper.sleep([], 5000), Woken::Command);
        assert!(start.elapsed() < Duration::from_secs(4));
        thread.join().unwrap();
    }

    #[test]
    fn a_packet_ends_the_sleep_until_it_is_received() {
        let umem = Umem::new(&UmemConfig {
            frame_count: 16,
            ..UmemConfig::default()
        })
        .unwrap();
        let mut pool = umem.pool().unwrap();
        pool.set_reserve(0);
        let id = QueueId { port: 1, queue: 0 };
        let (mut queue, mut wire) = memory::pair(&umem, id, &RingSizes::default()).unwrap();
        let (mut sleeper, _waker) = Sleeper::new(false, 1).unwrap();
        queue.refill(&mut pool);
        assert_eq!(sleeper.sleep([queue.as_fd()], 1), Woken::Timeout);
        wire.deliver(b"packet").unwrap();
        assert_eq!(sleeper.sleep([queue.as_fd()], 5000), Woken::Traffic);
        assert_eq!(queue.receive(64, |frame| pool.put(frame)), 1);
        assert_eq!(queue.receive(64, |frame| pool.put(frame)), 0);
        assert_eq!(sleeper.sleep([queue.as_fd()], 1), Woken::Timeout);
    }
}
