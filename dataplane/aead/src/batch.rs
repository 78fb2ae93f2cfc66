//! The entry points: batches of jobs of any mixture of keys, transforms and lengths.

#[cfg(target_arch = "x86_64")]
use crate::algorithm::AesKey;
#[cfg(target_arch = "x86_64")]
use crate::avx512::{chacha_batch, etm_batch, gcm_batch, gmac};
use crate::job::{Job, OpenJob, SealJob, Verdict};
use crate::material::{Family, Material, Work};

/// Protects every job's packet and sets its verdict.
///
/// A job of impossible length is [`Verdict::Malformed`] and does not disturb the others. Nothing is
/// allocated.
pub fn seal(jobs: &mut [SealJob<'_>]) {
    run(jobs);
}

/// Verifies and decrypts every job's packet and sets its verdict.
///
/// A job whose ICV does not match is [`Verdict::AuthenticationFailed`], holds no plaintext, and does not
/// disturb the others. The comparison takes the same time wherever ICVs differ.
pub fn open(jobs: &mut [OpenJob<'_>]) {
    run(jobs);
}

/// The most jobs an engine looks at together.
pub(crate) const MAX_BATCH: usize = 64;

/// Positions of some jobs of a batch.
pub(crate) struct Selection {
    positions: [u8; MAX_BATCH],
    count: usize,
}

impl Selection {
    const EMPTY: Self = Self {
        positions: [0; MAX_BATCH],
        count: 0,
    };

    #[inline]
    fn push(&mut self, at: usize) {
        self.positions[self.count] = at as u8;
        self.count += 1;
    }

    /// The positions, in order.
    #[inline]
    pub(crate) fn positions(&self) -> &[u8] {
        &self.positions[..self.count]
    }

    /// The same positions sorted by a size, largest sizes (64 and more) in no order among themselves.
    #[inline]
    pub(crate) fn ordered_by(&self, size_of: impl Fn(usize) -> usize) -> Self {
        let bucket = |at: u8| size_of(usize::from(at)).min(63);
        let mut ordered = Self {
            positions: self.positions,
            count: self.count,
        };
        let positions = self.positions();
        if positions
            .windows(2)
            .all(|pair| bucket(pair[0]) == bucket(pair[1]))
        {
            return ordered;
        }
        let mut ends = [0u8; 64];
        for &at in positions {
            ends[bucket(at)] += 1;
        }
        let mut start = 0;
        for end in &mut ends {
            (start, *end) = (start + *end, start);
        }
        for &at in positions {
            let slot = &mut ends[bucket(at)];
            ordered.positions[usize::from(*slot)] = at;
            *slot += 1;
        }
        ordered
    }
}

fn run<'a, J: Job<'a>>(jobs: &mut [J]) {
    for jobs in jobs.chunks_mut(MAX_BATCH) {
        let mut families = [Family::NONE; MAX_BATCH];
        let mut present = 0u64;
        for (job, family) in jobs.iter_mut().zip(&mut families) {
            let material = job.material();
            *family = if material.algorithm().text_bytes(job.packet_bytes()).is_some() {
                material.family()
            } else {
                job.set_verdict(Verdict::Malformed);
                Family::NONE
            };
            present |= family.bit();
        }
        for family in Family::all_in(present) {
            let mut selection = Selection::EMPTY;
            for (at, _) in families[..jobs.len()]
                .iter()
                .enumerate()
                .filter(|(_, of)| **of == family)
            {
                selection.push(at);
            }
            run_family(jobs, family, &selection);
        }
    }
}

fn run_family<'a, J: Job<'a>>(jobs: &mut [J], family: Family, selection: &Selection) {
    match family.work() {
        Work::None => {}
        Work::Portable => {
            for &at in selection.positions() {
                run_portable(&mut jobs[usize::from(at)]);
            }
        }
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        // SAFETY: material of these families exists only where the engine is usable.
        work => unsafe {
            match work {
                Work::Gcm(AesKey::Bits128) => gcm_batch::run::<J, 11, 12, 3>(jobs, selection),
                Work::Gcm(AesKey::Bits192) => gcm_batch::run::<J, 13, 10, 2>(jobs, selection),
                Work::Gcm(AesKey::Bits256) => gcm_batch::run::<J, 15, 8, 2>(jobs, selection),
                Work::Gmac(AesKey::Bits128) => gmac::run::<J, 11, 12>(jobs, selection),
                Work::Gmac(AesKey::Bits192) => gmac::run::<J, 13, 10>(jobs, selection),
                Work::Gmac(AesKey::Bits256) => gmac::run::<J, 15, 8>(jobs, selection),
                Work::ChaCha20Poly1305 => chacha_batch::run(jobs, selection),
                Work::Etm(cipher, hash) => etm_batch::run(jobs, selection, cipher, hash),
                Work::None | Work::Portable => {}
            }
        },
    }
}

fn run_portable<'a, J: Job<'a>>(job: &mut J) {
    let Material::Portable(key) = job.material() else {
        return;
    };
    let sequence = job.sequence();
    let verdict = if J::SEAL {
        if key.seal(job.packet(), sequence) {
            Verdict::Done
        } else {
            Verdict::Malformed
        }
    } else if key.open(job.packet(), sequence) {
        Verdict::Done
    } else {
        Verdict::AuthenticationFailed
    };
    job.set_verdict(verdict);
}
