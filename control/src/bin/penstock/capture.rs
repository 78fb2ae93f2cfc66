//! `penstock capture`: packets as they come and as they leave, in a pcapng file.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::Args;
use control::admin::ExitCode;
use serde_json::Value;

use crate::Session;
use crate::output;
use crate::trace::{Filter, follow};

/// Frames that begin with the Ethernet header.
const LINKTYPE_ETHERNET: u16 = 1;
/// Packets that begin with the IP header.
const LINKTYPE_RAW: u16 = 101;

/// Write packets to a pcapng file: each as it came and as it left, so that the clear and the encrypted side of one
/// packet stand together under one number
#[derive(Args)]
#[command(
    after_help = "Examples:\n  penstock capture --out site-b.pcapng --host 10.2.0.0/24 --count 1000\n  \
                        penstock capture --out /var/tmp/last.pcapng --ring 4 --size 100000000\n  \
                        penstock capture | wireshark -k -i -"
)]
pub(crate) struct Capture {
    #[command(flatten)]
    filter: Filter,
    /// The file; standard output where none is named
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// End after so many packets
    #[arg(long, default_value_t = 100_000, value_name = "PACKETS", value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Bytes kept of each packet
    #[arg(long, default_value_t = 2048, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(64..=2048))]
    snap: u16,
    /// End when the file has so many bytes
    #[arg(long, default_value_t = 1 << 30, value_name = "BYTES")]
    size: u64,
    /// Where a file has its bytes, go on in the next of so many, FILE.0, FILE.1 and so on, over the oldest
    #[arg(long, value_name = "FILES", requires = "out", value_parser = clap::value_parser!(u32).range(2..=1000))]
    ring: Option<u32>,
}

impl Capture {
    pub(crate) fn run(&self, session: &Session) -> ExitCode {
        let mut files_begun = 0;
        let mut file = match self.begin_file(&mut files_begun) {
            Ok(file) => file,
            Err(error) => {
                eprintln!("penstock: {error}");
                return ExitCode::Usage;
            }
        };
        let mut fault = None;
        let request = self.filter.request(self.count, self.snap);
        let end = follow(session, &request, |record| {
            let written = file.packet(record).and_then(|()| {
                if self.ring.is_some() && file.written_bytes >= self.size {
                    file = self.begin_file(&mut files_begun)?;
                }
                Ok(())
            });
            match written {
                Ok(()) => {}
                // Whoever read from the pipe has seen enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return false,
                Err(error) => {
                    fault = Some(error);
                    return false;
                }
            }
            file.written_bytes < self.size
        });
        if let Some(error) = fault.or(file.out.flush().err()) {
            eprintln!("penstock: {error}");
            return ExitCode::Refused;
        }
        output::finish(end)
    }

    /// The file to write to, the next one of a ring.
    fn begin_file(&self, files_begun: &mut u32) -> io::Result<Pcapng<Box<dyn Write>>> {
        let out: Box<dyn Write> = match &self.out {
            None => Box::new(io::stdout().lock()),
            Some(path) => {
                let mut path = path.clone().into_os_string();
                if let Some(files) = self.ring {
                    path.push(format!(".{}", *files_begun % files));
                }
                let path = PathBuf::from(path);
                let named = |error| io::Error::other(format!("{}: {error}", path.display()));
                Box::new(BufWriter::new(File::create(&path).map_err(named)?))
            }
        };
        *files_begun = files_begun.wrapping_add(1);
        let mut file = Pcapng::new(out);
        file.begin()?;
        Ok(file)
    }
}

/// A pcapng file (draft-ietf-opsawg-pcapng): one section, an interface a place where packets were seen.
struct Pcapng<W> {
    out: W,
    written_bytes: u64,
    interfaces: HashMap<(String, u16), u32>,
}

impl<W: Write> Pcapng<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            written_bytes: 0,
            interfaces: HashMap::new(),
        }
    }

    /// A block: type, length, body, length again.
    fn block(&mut self, kind: u32, body: &[u8]) -> io::Result<()> {
        let length = (body.len() + 12) as u32;
        let block = [
            &kind.to_le_bytes()[..],
            &length.to_le_bytes(),
            body,
            &length.to_le_bytes(),
        ]
        .concat();
        self.written_bytes += block.len() as u64;
        self.out.write_all(&block)
    }

    fn begin(&mut self) -> io::Result<()> {
        let mut body = Vec::new();
        body.extend(0x1a2b_3c4d_u32.to_le_bytes());
        body.extend(1u16.to_le_bytes());
        body.extend(0u16.to_le_bytes());
        body.extend(u64::MAX.to_le_bytes());
        option(
            &mut body,
            4,
            concat!("penstock ", env!("CARGO_PKG_VERSION")).as_bytes(),
        );
        end_of_options(&mut body);
        self.block(0x0a0d_0d0a, &body)
    }

    fn interface(&mut self, name: &str, link_type: u16) -> io::Result<u32> {
        let key = (name.to_owned(), link_type);
        if let Some(number) = self.interfaces.get(&key) {
            return Ok(*number);
        }
        let number = self.interfaces.len() as u32;
        let mut body = Vec::new();
        body.extend(link_type.to_le_bytes());
        body.extend(0u16.to_le_bytes());
        body.extend(0u32.to_le_bytes());
        option(&mut body, 2, name.as_bytes());
        // if_tsresol: nanoseconds.
        option(&mut body, 9, &[9]);
        end_of_options(&mut body);
        self.block(1, &body)?;
        self.interfaces.insert(key, number);
        Ok(number)
    }

    /// Both ends of a packet's way.
    fn packet(&mut self, record: &Value) -> io::Result<()> {
        let verdict = match (record["exit"].as_str(), record["reason"].as_str()) {
            (Some(exit), _) => format!("left by {exit}"),
            (None, Some(reason)) => format!("dropped: {reason}"),
            (None, None) => "waits or absorbed".to_owned(),
        };
        let mut tunnels = String::new();
        for (word, field) in [("out of", "out_of"), ("into", "into")] {
            if let Some(name) = record[field].as_str() {
                tunnels.push_str(&format!(", {word} tunnel {name}"));
            }
        }
        let number = &record["number"];
        for (side, flags, comment) in [
            ("entry", 1u32, format!("packet {number}, {verdict}{tunnels}")),
            ("exit", 2, format!("packet {number}, as it left{tunnels}")),
        ] {
            let Some(place) = record[side].as_str() else {
                continue;
            };
            let link_type = if record[format!("{side}_link")] == "ethernet" {
                LINKTYPE_ETHERNET
            } else {
                LINKTYPE_RAW
            };
            let interface = self.interface(place, link_type)?;
            let bytes = unhex(record[format!("{side}_data")].as_str().unwrap_or_default());
            let at_ns = record["at_ns"].as_u64().unwrap_or_default();
            let length = record[format!("{side}_bytes")].as_u64().unwrap_or_default() as u32;
            let mut body = Vec::new();
            body.extend(interface.to_le_bytes());
            body.extend(((at_ns >> 32) as u32).to_le_bytes());
            body.extend((at_ns as u32).to_le_bytes());
            body.extend((bytes.len() as u32).to_le_bytes());
            body.extend(length.to_le_bytes());
            padded(&mut body, &bytes);
            option(&mut body, 1, comment.as_bytes());
            option(&mut body, 2, &flags.to_le_bytes());
            end_of_options(&mut body);
            self.block(6, &body)?;
        }
        self.out.flush()
    }
}

fn padded(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend_from_slice(bytes);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    padded(body, value);
}

fn end_of_options(body: &mut Vec<u8>) {
    body.extend([0; 4]);
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks_exact(2)
        .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn blocks_are_whole_and_padded() {
        let mut file = Pcapng::new(Vec::new());
        file.begin().unwrap();
        let record = json!({
            "number": 1, "at_ns": 5_000_000_001_u64, "entry": "lan", "entry_link": "ethernet", "entry_bytes": 100,
            "entry_data": "0102030405", "exit": "wan", "exit_link": "ethernet", "exit_bytes": 160, "exit_data": "aabb",
            "reason": null, "into": "site-b",
        });
        file.packet(&record).unwrap();
        file.packet(&record).unwrap();
        let mut rest = file.out.as_slice();
        let mut kinds = Vec::new();
        while !rest.is_empty() {
            let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
            let length = word(4) as usize;
            assert_eq!(length % 4, 0);
            assert_eq!(word(length - 4) as usize, length);
            kinds.push(word(0));
            rest = &rest[length..];
        }
        assert_eq!(kinds, [0x0a0d_0d0a, 1, 6, 1, 6, 6, 6]);
        assert_eq!(file.written_bytes as usize, file.out.len());
    }
}
