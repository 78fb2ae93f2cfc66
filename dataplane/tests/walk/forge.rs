//! ESP packets with any text, as a peer that has the key but no manners would send them.

use dataplane::sa::algorithm;
use esp_aead::{SealJob, SealKey, Verdict};
use southbound::SaSpec;

use super::packets::Ip;

/// ESP from the SPI to the ICV, with `text` as what is encrypted: payload, padding, pad length, next header.
pub fn esp(sa: &SaSpec, sequence: u64, text: &[u8]) -> Vec<u8> {
    let algorithm = algorithm(sa.transform);
    let transform = esp_aead::Transform::new(algorithm, sa.extended_sequence_numbers);
    let key = SealKey::new(transform, sa.key.expose()).unwrap();
    let mut packet = sa.spi.to_be_bytes().to_vec();
    packet.extend((sequence as u32).to_be_bytes());
    packet.extend(vec![0; algorithm.iv_bytes()]);
    packet.extend(text);
    packet.extend(vec![0; algorithm.icv_bytes()]);
    let mut jobs = [SealJob::new(&key, &mut packet, sequence)];
    esp_aead::seal(&mut jobs);
    assert_eq!(jobs[0].verdict, Verdict::Done, "{} bytes of text", text.len());
    packet
}

/// The text of a well-formed packet with `payload`.
pub fn text(payload: &[u8], next_header: u8) -> Vec<u8> {
    text_padded(payload, &[], next_header)
}

/// The same with TFC padding behind the payload.
pub fn text_padded(payload: &[u8], tail: &[u8], next_header: u8) -> Vec<u8> {
    let mut text = [payload, tail].concat();
    let mut padding = 0u8;
    while (text.len() + 2) % 16 != 0 {
        padding += 1;
        text.push(padding);
    }
    text.extend([padding, next_header]);
    text
}

/// The whole outer packet, bare ESP.
pub fn packet(sa: &SaSpec, sequence: u64, text: &[u8]) -> Vec<u8> {
    Ip::new(
        &sa.local.to_string(),
        &sa.remote.to_string(),
        50,
        esp(sa, sequence, text),
    )
    .bytes()
}
