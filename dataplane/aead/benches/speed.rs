//! Nanoseconds and TSC cycles per packet of this crate's engines beside the libraries, in one run.
//!
//! ```text
//! cargo bench -p esp-aead --bench speed -- [--quick] [--tune] [--json FILE] [--only TEXT] [--sizes 64,1420]
//! ```
//!
//! Where Debian's libipsec-mb-dev is installed, intel-ipsec-mb is measured in the same rounds.
//!
//! 256 packets of up to 2048 bytes in rotation are sealed and then opened in batches of 64; a sample is one
//! pass over them, a figure the median of all samples in a round, and what is printed the median (and
//! minimum) of the rounds. Every contender works on the same packets in turn within each round, so that a
//! disturbance of the machine meets all of them. Sizes are text bytes.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use esp_aead::{
    AesKey, Algorithm, Engine, Hmac, OpenJob, OpenKey, SealJob, SealKey, Transform, Verdict, open, seal,
};

const PACKETS: usize = 256;
const FRAME_BYTES: usize = 2048;
/// Where the ESP header begins in a frame: headroom, Ethernet, IPv4.
const ESP_OFFSET: usize = 290;
const BATCH: usize = 64;

/// Somebody who can seal and open the frames.
trait Contender {
    fn name(&self) -> String;
    fn key_bytes(&self) -> usize;
    fn seal(&mut self, frames: &mut [[u8; FRAME_BYTES]], text_bytes: usize);
    fn open(&mut self, frames: &mut [[u8; FRAME_BYTES]], text_bytes: usize);
}

fn keymat(index: usize, length: usize) -> Vec<u8> {
    (0..length)
        .map(|j| (index.wrapping_mul(2_654_435_761) >> (8 * (j % 4))) as u8 ^ (j as u8).wrapping_mul(29))
        .collect()
}

/// Keys in a fixed shuffled order.
fn shuffled<T>(count: usize, mut make: impl FnMut(usize) -> T) -> (Vec<T>, Vec<usize>) {
    let keys = (0..count).map(&mut make).collect();
    let mut order: Vec<usize> = (0..count).collect();
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    for i in (1..count).rev() {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        order.swap(i, (seed % (i as u64 + 1)) as usize);
    }
    (keys, order)
}

struct Ours {
    engine: Engine,
    algorithm: Algorithm,
    seal_keys: Vec<SealKey>,
    open_keys: Vec<OpenKey>,
    order: Vec<usize>,
    next_seal: usize,
    next_open: usize,
    sequence: u64,
}

impl Ours {
    fn new(engine: Engine, algorithm: Algorithm, keys: usize) -> Self {
        let transform = Transform::new(algorithm, true);
        let (seal_keys, order) = shuffled(keys, |i| {
            SealKey::with_engine(engine, transform, &keymat(i, algorithm.key_bytes())).unwrap()
        });
        let (open_keys, _) = shuffled(keys, |i| {
            OpenKey::with_engine(engine, transform, &keymat(i, algorithm.key_bytes())).unwrap()
        });
        Self {
            engine,
            algorithm,
            seal_keys,
            open_keys,
            order,
            next_seal: 0,
            next_open: 0,
            sequence: 1,
        }
    }
}

fn advance(next: &mut usize, order: &[usize]) -> usize {
    let at = order[*next];
    *next = if *next + 1 == order.len() { 0 } else { *next + 1 };
    at
}

impl Contender for Ours {
    fn name(&self) -> String {
        format!("esp-aead {}", self.engine.name())
    }

    fn key_bytes(&self) -> usize {
        self.seal_keys[0].memory_bytes()
    }

    fn seal(&mut self, frames: &mut [[u8; FRAME_BYTES]], text_bytes: usize) {
        let end = ESP_OFFSET + self.algorithm.overhead_bytes() + text_bytes;
        for frames in frames.chunks_mut(BATCH) {
            let mut jobs: [SealJob<'_>; BATCH] = take_batch(frames, |frame| {
                let key = &self.seal_keys[advance(&mut self.next_seal, &self.order)];
                self.sequence += 1;
                frame[ESP_OFFSET + 4..ESP_OFFSET + 8].copy_from_slice(&(self.sequence as u32).to_be_bytes());
                SealJob::new(key, &mut frame[ESP_OFFSET..end], self.sequence)
            });
            seal(&mut jobs);
            assert!(jobs.iter().all(|job| job.verdict == Verdict::Done));
        }
    }

    fn open(&mut self, frames: &mut [[u8; FRAME_BYTES]], text_bytes: usize) {
        let end = ESP_OFFSET + self.algorithm.overhead_bytes() + text_bytes;
        for frames in frames.chunks_mut(BATCH) {
            let mut jobs: [OpenJob<'_>; BATCH] = take_batch(frames, |frame| {
                let key = &self.open_keys[advance(&mut self.next_open, &self.order)];
                OpenJob::new(key, &mut frame[ESP_OFFSET..end], 1)
            });
            open(&mut jobs);
            assert!(jobs.iter().all(|job| job.verdict == Verdict::Done));
        }
    }
}

fn take_batch<'a, T>(
    frames: &'a mut [[u8; FRAME_BYTES]],
    mut f: impl FnMut(&'a mut [u8; FRAME_BYTES]) -> T,
) -> [T; BATCH] {
    let mut frames = frames.iter_mut();
    std::array::from_fn(|_| f(frames.next().unwrap()))
}

/// A library's one-packet-at-a-time AEAD: seal and open of (key, nonce, aad, text and tag).
struct Library<K> {
    name: &'static str,
    seal_keys: Vec<K>,
    open_keys: Vec<K>,
    order: Vec<usize>,
    next_seal: usize,
    next_open: usize,
    sequence: u64,
    key_bytes: usize,
    seal: fn(&K, [u8; 12], &[u8], &mut [u8]),
    open: fn(&K, [u8; 12], &[u8], &mut [u8]) -> bool,
}

impl<K> Contender for Library<K> {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn key_bytes(&self) -> usize {
        self.key_bytes
    }

    fn seal(&mut self, frames: &mut [[u8; FRAME_BYTES]], text_bytes: usize) {
        for frame in frames {
            self.sequence += 1;
            let packet = &mut frame[ESP_OFFSET..ESP_OFFSET + 32 + text_bytes];
            packet[8..16].copy_from_slice(&self.sequence.to_be_bytes());
            let mut nonce = [7; 12];
            nonce[4..].copy_from_slice(&self.sequence.to_be_bytes());
            let (head, rest) = packet.split_at_mut(16);
            let key = &self.seal_keys[advance(&mut self.next_seal, &self.order)];
            (self.seal)(key, nonce, &head[..8], rest);
        }
    }

    fn open(&mut self, frames: &mut [[u8; FRAME_BYTES]], text_bytes: usize) {
        for frame in frames {
            let packet = &mut frame[ESP_OFFSET..ESP_OFFSET + 32 + text_bytes];
            let mut nonce = [7; 12];
            nonce[4..].copy_from_slice(&packet[8..16]);
            let (head, rest) = packet.split_at_mut(16);
            let key = &self.open_keys[advance(&mut self.next_open, &self.order)];
            assert!((self.open)(key, nonce, &head[..8], rest));
        }
    }
}

fn ring_contender(algorithm: &'static ring::aead::Algorithm, keys: usize) -> Box<dyn Contender> {
    use ring::aead::{Aad, LessSafeKey, Nonce, UnboundKey};
    let make = |i| LessSafeKey::new(UnboundKey::new(algorithm, &keymat(i, algorithm.key_len())).unwrap());
    let (seal_keys, order) = shuffled(keys, make);
    let (open_keys, _) = shuffled(keys, make);
    Box::new(Library {
        name: "ring",
        seal_keys,
        open_keys,
        order,
        next_seal: 0,
        next_open: 0,
        sequence: 1,
        key_bytes: size_of::<LessSafeKey>(),
        seal: |key, nonce, aad, text_and_tag| {
            let (text, tag) = text_and_tag.split_at_mut(text_and_tag.len() - 16);
            let nonce = Nonce::assume_unique_for_key(nonce);
            tag.copy_from_slice(
                key.seal_in_place_separate_tag(nonce, Aad::from(aad), text)
                    .unwrap()
                    .as_ref(),
            );
        },
        open: |key, nonce, aad, text_and_tag| {
            key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), text_and_tag)
                .is_ok()
        },
    })
}

fn aws_contender(algorithm: &'static aws_lc_rs::aead::Algorithm, keys: usize) -> Box<dyn Contender> {
    use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce, UnboundKey};
    let make = |i| LessSafeKey::new(UnboundKey::new(algorithm, &keymat(i, algorithm.key_len())).unwrap());
    let (seal_keys, order) = shuffled(keys, make);
    let (open_keys, _) = shuffled(keys, make);
    Box::new(Library {
        name: "aws-lc-rs",
        seal_keys,
        open_keys,
        order,
        next_seal: 0,
        next_open: 0,
        sequence: 1,
        key_bytes: size_of::<LessSafeKey>(),
        seal: |key, nonce, aad, text_and_tag| {
            let (text, tag) = text_and_tag.split_at_mut(text_and_tag.len() - 16);
            let nonce = Nonce::assume_unique_for_key(nonce);
            tag.copy_from_slice(
                key.seal_in_place_separate_tag(nonce, Aad::from(aad), text)
                    .unwrap()
                    .as_ref(),
            );
        },
        open: |key, nonce, aad, text_and_tag| {
            key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), text_and_tag)
                .is_ok()
        },
    })
}

fn rustcrypto_contender<A>(key_length: usize, keys: usize) -> Box<dyn Contender>
where
    A: aes_gcm::KeyInit
        + aes_gcm::aead::AeadInOut<NonceSize = aes_gcm::aead::consts::U12, TagSize = aes_gcm::aead::consts::U16>
        + 'static,
{
    let make = |i| A::new_from_slice(&keymat(i, key_length)).unwrap();
    let (seal_keys, order) = shuffled(keys, make);
    let (open_keys, _) = shuffled(keys, make);
    Box::new(Library::<A> {
        name: "aes-gcm",
        seal_keys,
        open_keys,
        order,
        next_seal: 0,
        next_open: 0,
        sequence: 1,
        key_bytes: size_of::<A>(),
        seal: |key, nonce, aad, text_and_tag| {
            let (text, tag) = text_and_tag.split_at_mut(text_and_tag.len() - 16);
            tag.copy_from_slice(
                &key.encrypt_inout_detached(&nonce.into(), aad, text.into())
                    .unwrap(),
            );
        },
        open: |key, nonce, aad, text_and_tag| {
            let (text, tag) = text_and_tag.split_at_mut(text_and_tag.len() - 16);
            let tag: [u8; 16] = (&*tag).try_into().unwrap();
            key.decrypt_inout_detached(&nonce.into(), aad, text.into(), &tag.into())
                .is_ok()
        },
    })
}

/// intel-ipsec-mb in a process of its own (`ipsec_mb.c`), which works in turn with the other contenders.
struct IpsecMb {
    process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl IpsecMb {
    /// Builds and starts it; says so where the library is not installed.
    fn start() -> Option<Self> {
        let program = concat!(env!("CARGO_TARGET_TMPDIR"), "/ipsec_mb");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/ipsec_mb.c");
        let arguments = ["-O2", "-Wall", "-Wextra", "-o", program, source, "-lIPSec_MB"];
        if !Command::new("cc")
            .args(arguments)
            .status()
            .is_ok_and(|s| s.success())
        {
            println!("intel-ipsec-mb is not measured: it needs cc and Debian's libipsec-mb-dev\n");
            return None;
        }
        let mut process = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let (questions, answers) = (process.stdin.take()?, BufReader::new(process.stdout.take()?));
        Some(Self {
            process,
            questions,
            answers,
        })
    }

    /// Medians of sealing and opening in ns per packet, where the library has the algorithm.
    fn measure(&mut self, algorithm: &str, text_bytes: usize, round: Duration) -> Option<(f64, f64)> {
        writeln!(
            self.questions,
            "{algorithm} {text_bytes} {}",
            round.as_millis().max(1)
        )
        .ok()?;
        let mut line = String::new();
        self.answers.read_line(&mut line).ok()?;
        let (seal_ns, open_ns) = line.trim().split_once(' ')?;
        Some((seal_ns.parse().ok()?, open_ns.parse().ok()?))
    }
}

impl Drop for IpsecMb {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Options {
    rounds: usize,
    round: Duration,
    json: Option<String>,
    only: Option<String>,
    sizes: Vec<usize>,
    /// What stands for many samples.
    figure: fn(&mut [f64]) -> f64,
    keys: Vec<usize>,
    libraries: bool,
    passes: usize,
}

fn options() -> Options {
    let mut options = Options {
        rounds: 7,
        round: Duration::from_millis(25),
        json: None,
        only: None,
        sizes: vec![64, 128, 256, 512, 1024, 1420],
        figure: median,
        keys: vec![1, 10_000],
        libraries: true,
        passes: 1,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => (options.rounds, options.round) = (5, Duration::from_millis(4)),
            // For tuning on a busy machine: the best sample, this crate alone, one key.
            "--tune" => (options.figure, options.keys, options.libraries) = (minimum, vec![1], false),
            "--passes" => options.passes = arguments.next().and_then(|n| n.parse().ok()).expect("a number"),
            "--json" => options.json = arguments.next(),
            "--only" => options.only = arguments.next(),
            "--sizes" => {
                let list = arguments.next().unwrap_or_default();
                options.sizes = list
                    .split(',')
                    .map(|size| size.parse().expect("a size in bytes"))
                    .collect();
            }
            _ => {} // `--bench` and filters of cargo
        }
    }
    options
}

fn tsc() -> u64 {
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    // SAFETY: every x86-64 has the time stamp counter.
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        0
    }
}

/// Ticks of the time stamp counter per nanosecond.
fn tsc_per_ns() -> f64 {
    let (start, ticks) = (Instant::now(), tsc());
    while start.elapsed() < Duration::from_millis(50) {}
    (tsc() - ticks) as f64 / start.elapsed().as_nanos() as f64
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn minimum(values: &mut [f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

#[derive(Default, Clone)]
struct Figures {
    seal_ns: Vec<f64>,
    open_ns: Vec<f64>,
}

fn measure(
    contender: &mut dyn Contender,
    frames: &mut [[u8; FRAME_BYTES]],
    text_bytes: usize,
    options: &Options,
) -> (f64, f64) {
    let (mut seals, mut opens) = (Vec::new(), Vec::new());
    let start = Instant::now();
    while start.elapsed() < options.round || seals.len() < 3 {
        let begin = Instant::now();
        for _ in 0..options.passes {
            contender.seal(black_box(frames), text_bytes);
        }
        let middle = Instant::now();
        contender.open(black_box(frames), text_bytes);
        let end = Instant::now();
        seals.push((middle - begin).as_nanos() as f64 / (options.passes * PACKETS) as f64);
        opens.push((end - middle).as_nanos() as f64 / PACKETS as f64);
    }
    ((options.figure)(&mut seals), (options.figure)(&mut opens))
}

fn contenders(algorithm: Algorithm, keys: usize, libraries: bool) -> Vec<Box<dyn Contender>> {
    let mut all: Vec<Box<dyn Contender>> = Vec::new();
    for engine in Engine::ALL.into_iter().rev().filter(|engine| engine.is_usable()) {
        all.push(Box::new(Ours::new(engine, algorithm, keys)));
    }
    match algorithm {
        _ if !libraries => all.truncate(1),
        Algorithm::AesGcm16(AesKey::Bits128) => {
            all.push(ring_contender(&ring::aead::AES_128_GCM, keys));
            all.push(aws_contender(&aws_lc_rs::aead::AES_128_GCM, keys));
            all.push(rustcrypto_contender::<aes_gcm::Aes128Gcm>(16, keys));
        }
        Algorithm::AesGcm16(AesKey::Bits256) => {
            all.push(ring_contender(&ring::aead::AES_256_GCM, keys));
            all.push(aws_contender(&aws_lc_rs::aead::AES_256_GCM, keys));
            all.push(rustcrypto_contender::<aes_gcm::Aes256Gcm>(32, keys));
        }
        Algorithm::ChaCha20Poly1305 => {
            all.push(ring_contender(&ring::aead::CHACHA20_POLY1305, keys));
            all.push(aws_contender(&aws_lc_rs::aead::CHACHA20_POLY1305, keys));
        }
        _ => {}
    }
    all
}

fn main() {
    let options = options();
    let cases = [
        ("aes-128-gcm", Algorithm::AesGcm16(AesKey::Bits128)),
        ("aes-256-gcm", Algorithm::AesGcm16(AesKey::Bits256)),
        ("chacha20-poly1305", Algorithm::ChaCha20Poly1305),
        ("aes-128-gmac", Algorithm::AesGmac(AesKey::Bits128)),
        (
            "aes-128-cbc-hmac-sha1",
            Algorithm::AesCbc(AesKey::Bits128, Hmac::Sha1_96),
        ),
        (
            "aes-128-cbc-hmac-sha256",
            Algorithm::AesCbc(AesKey::Bits128, Hmac::Sha256_128),
        ),
        (
            "aes-256-cbc-hmac-sha512",
            Algorithm::AesCbc(AesKey::Bits256, Hmac::Sha512_256),
        ),
        (
            "aes-128-ctr-hmac-sha1",
            Algorithm::AesCtr(AesKey::Bits128, Hmac::Sha1_96),
        ),
        ("null-hmac-sha256", Algorithm::Null(Hmac::Sha256_128)),
    ];
    let per_ns = tsc_per_ns();
    println!(
        "TSC {:.1} MHz; ns (TSC cycles) per packet, median of {} rounds; sizes are text bytes\n",
        per_ns * 1e3,
        options.rounds
    );
    let mut frames: Vec<[u8; FRAME_BYTES]> = (0..PACKETS)
        .map(|i| std::array::from_fn(|j| (i * 31 + j * 7) as u8))
        .collect();
    let mut json = String::new();
    let mut ipsec_mb = if options.libraries { IpsecMb::start() } else { None };
    for (name, algorithm) in cases {
        if options.only.as_deref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        for &keys in &options.keys {
            let mut all = contenders(algorithm, keys, options.libraries);
            let mut figures = vec![vec![Figures::default(); options.sizes.len()]; all.len()];
            let mut of_ipsec_mb = vec![Figures::default(); options.sizes.len()];
            for _ in 0..options.rounds {
                for (s, size) in options.sizes.iter().enumerate() {
                    // Block ciphers take whole blocks.
                    let text_bytes = size.next_multiple_of(algorithm.alignment_bytes());
                    for (contender, figures) in all.iter_mut().zip(&mut figures) {
                        let (seal_ns, open_ns) =
                            measure(contender.as_mut(), &mut frames, text_bytes, &options);
                        figures[s].seal_ns.push(seal_ns);
                        figures[s].open_ns.push(open_ns);
                    }
                    // It is measured with one key.
                    if let Some(ipsec_mb) = ipsec_mb.as_mut().filter(|_| keys == 1)
                        && let Some((seal_ns, open_ns)) = ipsec_mb.measure(name, text_bytes, options.round)
                    {
                        of_ipsec_mb[s].seal_ns.push(seal_ns);
                        of_ipsec_mb[s].open_ns.push(open_ns);
                    }
                }
            }
            let mut rows: Vec<_> = all
                .iter()
                .zip(figures)
                .map(|(contender, figures)| (contender.name(), contender.key_bytes().to_string(), figures))
                .collect();
            if !of_ipsec_mb[0].seal_ns.is_empty() {
                rows.push(("intel-ipsec-mb".to_owned(), String::new(), of_ipsec_mb));
            }
            for direction in ["seal", "open"] {
                print!("| {name} {direction}, {keys} keys |");
                options.sizes.iter().for_each(|size| print!(" {size} |"));
                print!(" key bytes |\n|---|");
                options.sizes.iter().for_each(|_| print!("---|"));
                println!("---|");
                for (contender, key_bytes, figures) in &mut rows {
                    print!("| {contender} |");
                    for (size, figures) in options.sizes.iter().zip(figures) {
                        let values = if direction == "seal" {
                            &mut figures.seal_ns
                        } else {
                            &mut figures.open_ns
                        };
                        let ns = median(values);
                        print!(" {ns:.1} ({:.0}) |", ns * per_ns);
                        let _ = writeln!(
                            json,
                            "{{\"algorithm\":\"{name}\",\"direction\":\"{direction}\",\"keys\":{keys},\"contender\":\"{contender}\",\"size_bytes\":{size},\"ns\":{ns:.2},\"ns_min\":{:.2},\"cycles\":{:.1}}},",
                            values[0],
                            ns * per_ns,
                        );
                    }
                    println!(" {key_bytes} |");
                }
                println!();
            }
        }
    }
    if let Some(file) = options.json {
        let records = json.trim_end().trim_end_matches(',').to_owned();
        std::fs::write(file, format!("[\n{records}\n]\n")).expect("writable JSON file");
    }
}
