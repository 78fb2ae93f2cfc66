//! One record a case, and the table of them.

use std::fmt::Write;

use serde::Serialize;

/// What was measured of one case.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// The work.
    pub case: String,
    /// The transform.
    pub algorithm: Option<String>,
    /// The inner IPv4 packet.
    pub size_bytes: usize,
    /// SAs in rotation.
    pub sas: u32,
    /// TSC cycles a packet over the whole pipeline, median of batches.
    pub cycles_per_packet: f64,
    /// The least of them.
    pub cycles_per_packet_min: f64,
    /// TSC cycles a packet of the bare seal on buffers of the same length, in the same run.
    pub aead_cycles_per_packet: Option<f64>,
    /// Packets measured.
    pub packets: u64,
}

/// A Markdown table of the records.
#[must_use]
pub fn markdown(records: &[Record]) -> String {
    let mut text = String::from(
        "| case | algorithm | bytes | SAs | cycles/packet | least | bare seal | pipeline speed / bare seal |\n|---|---|---|---|---|---|---|---|\n",
    );
    for record in records {
        let algorithm = record.algorithm.as_deref().unwrap_or("-");
        let (bare, ratio) = match record.aead_cycles_per_packet {
            Some(bare) => (
                format!("{bare:.0}"),
                format!("{:.0}%", 100.0 * bare / record.cycles_per_packet),
            ),
            None => ("-".to_owned(), "-".to_owned()),
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| {} | {algorithm} | {} | {} | {:.0} | {:.0} | {bare} | {ratio} |",
            record.case,
            record.size_bytes,
            record.sas,
            record.cycles_per_packet,
            record.cycles_per_packet_min
        );
    }
    text
}
