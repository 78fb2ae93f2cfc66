//! The entry points: batches of jobs of any mixture of keys, transforms and lengths.

#[cfg(target_arch = "x86_64")]
use crate::algorithm::AesKey;
#[cfg(target_arch = "x86_64")]
use crate::avx2;
#[cfg(target_arch = "x86_64")]
use crate::avx512::{self, chacha_batch, etm_batch, gcm_batch, gmac};
use crate::job::{Job, OpenJob, SealJob, Verdict};
use crate::material::{Family, Material, Shape, Work};

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

/// Every position, in order.
const ALL_POSITIONS: [u8; MAX_BATCH] = {
    let mut positions = [0; MAX_BATCH];
    let mut at = 0;
    while at < MAX_BATCH {
        positions[at] = at as u8;
        at += 1;
    }
    positions
};

impl Selection {
    /// All of so many jobs.
    const fn all(count: usize) -> Self {
        Self {
            positions: ALL_POSITIONS,
            count,
        }
    }

    /// The jobs of one family.
    fn of(family: Family, families: &[Family]) -> Self {
        let mut selection = Self {
            positions: ALL_POSITIONS,
            count: 0,
        };
        for (at, of) in families.iter().enumerate() {
            if *of == family {
                selection.positions[selection.count] = at as u8;
                selection.count += 1;
            }
        }
        selection
    }

    /// The positions, in order.
    #[inline]
    pub(crate) fn positions(&self) -> &[u8] {
        &self.positions[..self.count]
    }

    /// The same positions sorted by a size, largest sizes (63 and more) in no order among themselves.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(crate) fn ordered_by(&self, size_of: impl Fn(usize) -> usize) -> Ordered {
        let mut ordered = Ordered {
            positions: self.positions,
            sizes: [0; MAX_BATCH],
            count: self.count,
        };
        let mut differences = 0;
        for (size, &at) in ordered.sizes.iter_mut().zip(self.positions()) {
            *size = size_of(usize::from(at)).min(63) as u8;
        }
        for size in &ordered.sizes[..self.count] {
            differences |= size ^ ordered.sizes[0];
        }
        if differences == 0 {
            return ordered;
        }
        let sizes = ordered.sizes;
        let mut ends = [0u8; 64];
        for &size in &sizes[..self.count] {
            ends[usize::from(size)] += 1;
        }
        let mut start = 0;
        for end in &mut ends {
            (start, *end) = (start + *end, start);
        }
        for (&at, &size) in self.positions().iter().zip(&sizes) {
            let place = &mut ends[usize::from(size)];
            ordered.positions[usize::from(*place)] = at;
            ordered.sizes[usize::from(*place)] = size;
            *place += 1;
        }
        ordered
    }
}

/// A selection sorted by a size.
#[cfg(target_arch = "x86_64")]
pub(crate) struct Ordered {
    positions: [u8; MAX_BATCH],
    sizes: [u8; MAX_BATCH],
    count: usize,
}

#[cfg(target_arch = "x86_64")]
impl Ordered {
    /// The positions, smallest size first.
    #[inline]
    pub(crate) fn positions(&self) -> &[u8] {
        &self.positions[..self.count]
    }

    /// The sizes of the positions, 63 standing for that and more.
    #[inline]
    pub(crate) fn sizes(&self) -> &[u8] {
        &self.sizes[..self.count]
    }
}

fn run<'a, J: Job<'a>>(jobs: &mut [J]) {
    for jobs in jobs.chunks_mut(MAX_BATCH) {
        let mut families = [Family::NONE; MAX_BATCH];
        let mut present = 0u64;
        // The key of the job before: packets of one SA follow each other.
        let mut before: Option<(&Material, Shape)> = None;
        for (job, family) in jobs.iter_mut().zip(&mut families) {
            let material = job.material();
            let shape = match before {
                Some((known, shape)) if core::ptr::eq(known, material) => shape,
                _ => material.shape(),
            };
            before = Some((material, shape));
            if shape.takes(job.packet_bytes()) {
                *family = shape.family;
            } else {
                job.set_verdict(Verdict::Malformed);
            }
            present |= family.bit();
        }
        for family in Family::all_in(present) {
            let selection = if present == family.bit() {
                Selection::all(jobs.len())
            } else {
                Selection::of(family, &families[..jobs.len()])
            };
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
                Work::GcmAvx2(AesKey::Bits128) => avx2::gcm_batch::run::<J, 11, 12>(jobs, selection),
                Work::GcmAvx2(AesKey::Bits192) => avx2::gcm_batch::run::<J, 13, 10>(jobs, selection),
                Work::GcmAvx2(AesKey::Bits256) => avx2::gcm_batch::run::<J, 15, 8>(jobs, selection),
                Work::ChaCha20Poly1305 => chacha_batch::run(jobs, selection),
                Work::Etm(cipher, hash) => etm_batch::run(jobs, selection, cipher, hash),
                Work::None | Work::Portable => return,
            }
            if matches!(work, Work::GcmAvx2(_)) {
                avx2::clear_registers();
            } else {
                avx512::clear_registers();
            }
        },
    }
}

fn run_portable<'a, J: Job<'a>>(job: &mut J) {
    #[cfg_attr(not(target_arch = "x86_64"), allow(irrefutable_let_patterns))]
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
