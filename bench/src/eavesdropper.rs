//! What somebody between the gateways sees: a capture by tcpdump, and what is in it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use thiserror::Error;
use wire::IpProtocol;

use crate::namespace::Namespace;
use crate::process::{Process, wait_until};

/// How long tcpdump may take to open its socket.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Why there is no capture.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// Files or processes.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// tcpdump did not come up.
    #[error("tcpdump does not listen: {0}")]
    Silent(String),
    /// The file is no capture of this machine's byte order.
    #[error("{0}: not a pcap file")]
    NotPcap(PathBuf),
}

/// A capture that runs.
#[derive(Debug)]
pub struct Eavesdropper {
    process: Process,
    file: PathBuf,
}

impl Eavesdropper {
    /// Captures on `interface` into `file`, at most `snap_bytes` of each frame.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub fn listen(
        namespace: &Namespace,
        interface: &str,
        file: &Path,
        snap_bytes: u32,
    ) -> Result<Self, CaptureError> {
        let mut command = namespace.command("tcpdump");
        command
            .args([
                "-i",
                interface,
                "-s",
                &snap_bytes.to_string(),
                "-B",
                "65536",
                "-U",
                // Without it the last second's packets wait in a block of the kernel's and are lost at the end.
                "--immediate-mode",
                "-w",
            ])
            .arg(file);
        let process = Process::spawn(command, &log_of(file))?;
        if wait_until(START_LIMIT, || process.log().contains("listening on")) {
            Ok(Self {
                process,
                file: file.to_owned(),
            })
        } else {
            Err(CaptureError::Silent(process.log()))
        }
    }

    /// Ends the capture and reads it.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub fn finish(mut self) -> Result<Capture, CaptureError> {
        // What was sent just now is still on its way through the capture's buffer.
        std::thread::sleep(Duration::from_millis(200));
        self.process.signal(Signal::SIGINT);
        self.process.terminate()?;
        Capture::read(&self.file)
    }
}

impl Drop for Eavesdropper {
    fn drop(&mut self) {
        // The capture is the caller's, what tcpdump said is not.
        let _ = std::fs::remove_file(log_of(&self.file));
    }
}

fn log_of(file: &Path) -> PathBuf {
    file.with_extension("log")
}

/// The frames of a capture.
#[derive(Debug, Default)]
pub struct Capture {
    frames: Vec<Vec<u8>>,
}

/// What a frame is, as far as an eavesdropper can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// ESP, IP protocol 50.
    Esp,
    /// UDP port 500 or 4500: IKE, or ESP in UDP.
    IkeOrUdpEsp,
    /// A fragment of UDP that is not the first: its ports are in that one, which is counted by what it is.
    LaterFragment,
    /// ARP, neighbour discovery, multicast membership reports: the link's own business.
    Link,
    /// Anything else.
    Clear,
}

const PCAP_HEADER_BYTES: usize = 24;
const RECORD_HEADER_BYTES: usize = 16;

impl Capture {
    fn read(file: &Path) -> Result<Self, CaptureError> {
        let bytes = std::fs::read(file)?;
        let word = |at: usize| {
            bytes
                .get(at..at + 4)
                .map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
        };
        if word(0) != Some(0xa1b2_c3d4) {
            return Err(CaptureError::NotPcap(file.to_owned()));
        }
        let mut frames = Vec::new();
        let mut at = PCAP_HEADER_BYTES;
        while let Some(length_bytes) = word(at + 8) {
            let start = at + RECORD_HEADER_BYTES;
            let end = start + length_bytes as usize;
            // A record cut short by the end of the capture is the last one.
            let Some(frame) = bytes.get(start..end) else { break };
            frames.push(frame.to_vec());
            at = end;
        }
        Ok(Self { frames })
    }

    /// The frames, in order, as far as they were kept.
    pub fn frames(&self) -> impl Iterator<Item = &[u8]> {
        self.frames.iter().map(Vec::as_slice)
    }

    /// How many frames are of this kind.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        self.frames().filter(|frame| classify(frame) == kind).count()
    }

    /// The first headers of the frames in clear, in hexadecimal, for a message.
    #[must_use]
    pub fn show_clear(&self) -> String {
        let hex = |frame: &[u8]| {
            frame
                .iter()
                .take(64)
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        let clear: Vec<_> = self
            .frames()
            .filter(|frame| classify(frame) == Kind::Clear)
            .take(10)
            .map(hex)
            .collect();
        clear.join("\n")
    }

    /// Whether these bytes stand anywhere in any frame.
    #[must_use]
    pub fn contains(&self, needle: &[u8]) -> bool {
        self.frames()
            .any(|frame| frame.windows(needle.len()).any(|window| window == needle))
    }
}

/// Looks at the first headers only, as a capture filter would.
fn classify(frame: &[u8]) -> Kind {
    const ETHERNET_BYTES: usize = 14;
    const ICMPV6_LINK: std::ops::RangeInclusive<u8> = 130..=143;
    const IGMP: u8 = 2;
    let ether_type = match frame.get(12..14) {
        Some(bytes) => u16::from_be_bytes([bytes[0], bytes[1]]),
        None => return Kind::Clear,
    };
    let ip = &frame[ETHERNET_BYTES..];
    // Behind the flags of IPv4, before those of an IPv6 fragment header: 0 in whole packets and first fragments.
    let offset = |at: usize, mask: u16| {
        let bytes = ip.get(at..at + 2);
        bytes.map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]) & mask)
    };
    let (protocol, offset, payload) = match ether_type {
        0x0806 => return Kind::Link,
        0x0800 if ip.len() >= 20 => {
            let header_bytes = usize::from(ip[0] & 0x0f) * 4;
            (
                ip[9],
                offset(6, 0x1fff),
                ip.get(header_bytes..).unwrap_or_default(),
            )
        }
        // A multicast listener report starts with a hop-by-hop header and ICMPv6 behind it.
        0x86dd if ip.len() >= 48 && ip[6] == 0 => (ip[40], 0, &ip[48..]),
        0x86dd if ip.len() >= 48 && ip[6] == 44 => (ip[40], offset(42, 0xfff8), &ip[48..]),
        0x86dd if ip.len() >= 40 => (ip[6], 0, &ip[40..]),
        _ => return Kind::Clear,
    };
    let port = |at: usize| {
        payload
            .get(at..at + 2)
            .map(|port| u16::from_be_bytes([port[0], port[1]]))
    };
    let is_link = match ether_type {
        0x0800 => protocol == IGMP,
        _ => {
            protocol == IpProtocol::ICMPV6.0 && payload.first().is_some_and(|kind| ICMPV6_LINK.contains(kind))
        }
    };
    if protocol == IpProtocol::ESP.0 {
        Kind::Esp
    } else if protocol == IpProtocol::UDP.0 && offset != 0 {
        Kind::LaterFragment
    } else if protocol == IpProtocol::UDP.0
        && [port(0), port(2)]
            .iter()
            .any(|port| matches!(port, Some(500 | 4500)))
    {
        Kind::IkeOrUdpEsp
    } else if is_link {
        Kind::Link
    } else {
        Kind::Clear
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 34];
        frame[12] = 0x08;
        frame[14] = 0x45;
        frame[23] = protocol;
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn only_tunnel_and_link_traffic_is_not_clear() {
        assert_eq!(classify(&ipv4(50, &[0; 8])), Kind::Esp);
        assert_eq!(classify(&ipv4(17, &[0x11, 0x94, 0, 1])), Kind::IkeOrUdpEsp);
        assert_eq!(classify(&ipv4(17, &[0, 53, 0, 53])), Kind::Clear);
        assert_eq!(classify(&ipv4(1, &[8, 0])), Kind::Clear);
        assert_eq!(classify(&[0; 10]), Kind::Clear);
        let mut later = ipv4(17, &[0, 53, 0, 53]);
        later[21] = 1;
        assert_eq!(classify(&later), Kind::LaterFragment);
    }
}
