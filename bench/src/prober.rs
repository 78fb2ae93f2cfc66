//! Numbered datagrams between two hosts, by which every loss is known: none is taken for lost while it may still come.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netns::Namespace;

/// Between two datagrams.
const INTERVAL: Duration = Duration::from_millis(10);
/// How often a thread that waits for datagrams looks whether it is to end.
const PATIENCE: Duration = Duration::from_millis(50);
/// A reply may be this late, on a machine that is busy with other things.
const LATEST_REPLY: Duration = Duration::from_secs(10);
/// No reply at all for this long, after the last datagram: what is missing is lost.
const SILENCE: Duration = Duration::from_secs(3);

/// What became of the datagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// How many were sent.
    pub sent: u32,
    /// The numbers of those that were never answered, in order.
    pub lost: Vec<u32>,
}

/// Set also where what goes on meanwhile panics: the threads would be waited for without end.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends a numbered datagram each 10 ms from a host to `target`, an address of another, which sends each back; for as
/// long as `meanwhile` takes, and then waits for the last answers.
///
/// # Errors
/// Sockets that cannot be opened; not what happens to datagrams.
pub fn probe(
    from: &Namespace,
    to: &Namespace,
    target: IpAddr,
    meanwhile: impl FnOnce(),
) -> io::Result<Probed> {
    let echo = to.open(|| UdpSocket::bind(SocketAddr::new(target, 0)))?;
    let there = echo.local_addr()?;
    let any: IpAddr = if target.is_ipv4() {
        [0; 4].into()
    } else {
        [0; 16].into()
    };
    // Not connected: an ICMP error on the way is then no error of the socket.
    let socket = from.open(|| UdpSocket::bind(SocketAddr::new(any, 0)))?;
    for end in [&echo, &socket] {
        end.set_read_timeout(Some(PATIENCE))?;
    }
    let (is_over, has_sent_all, sent) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU32::new(0));
    Ok(thread::scope(|threads| {
        threads.spawn(|| {
            let mut datagram = [0; 4];
            while !is_over.load(Ordering::Relaxed) {
                if let Ok((4, sender)) = echo.recv_from(&mut datagram) {
                    // What is not sent is not answered, which shows.
                    let _ = echo.send_to(&datagram, sender);
                }
            }
        });
        threads.spawn(|| {
            for number in 0u32.. {
                if has_sent_all.load(Ordering::Relaxed) {
                    break;
                }
                let _ = socket.send_to(&number.to_be_bytes(), there);
                sent.store(number + 1, Ordering::Relaxed);
                thread::sleep(INTERVAL);
            }
        });
        let answers = threads.spawn(|| {
            let mut answered: Vec<bool> = Vec::new();
            let (mut last_answer, mut sent_all_at) = (Instant::now(), None);
            loop {
                let mut datagram = [0; 4];
                if let Ok((4, _)) = socket.recv_from(&mut datagram) {
                    let number = u32::from_be_bytes(datagram) as usize;
                    answered.resize(answered.len().max(number + 1), false);
                    answered[number] = true;
                    last_answer = Instant::now();
                }
                if !has_sent_all.load(Ordering::Relaxed) {
                    continue;
                }
                let since = *sent_all_at.get_or_insert_with(Instant::now);
                let all = sent.load(Ordering::Relaxed) as usize;
                let is_whole = answered.len() == all && answered.iter().all(|answered| *answered);
                let is_silent = since.elapsed() > SILENCE && last_answer.elapsed() > SILENCE;
                // The sender may be between its look and its last datagram.
                let is_settled = since.elapsed() > 2 * INTERVAL;
                if is_settled && (is_whole || is_silent || since.elapsed() > LATEST_REPLY) {
                    is_over.store(true, Ordering::Relaxed);
                    return answered;
                }
            }
        });
        let end = SetAtEnd(&has_sent_all);
        meanwhile();
        drop(end);
        let answered = answers.join().unwrap_or_default();
        let sent = sent.load(Ordering::Relaxed);
        let lost = (0..sent)
            .filter(|number| !answered.get(*number as usize).is_some_and(|answered| *answered))
            .collect();
        Probed { sent, lost }
    }))
}
