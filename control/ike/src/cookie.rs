//! Stateless cookies against forged IKE_SA_INIT requests (RFC 7296 section 2.6).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;

use crate::crypto::random::{Draw, Random};

/// Bounds of a cookie in the protocol.
pub(crate) const COOKIE_BYTES: std::ops::RangeInclusive<usize> = 1..=64;
const ROTATE_AFTER: Duration = Duration::from_secs(60);

/// Makes and checks cookies. Secrets rotate with time alone, and the previous one still counts, so that a peer has at
/// least a minute to answer however great the load.
#[derive(Debug)]
pub(crate) struct Cookies {
    current: Secret,
    previous: Option<Secret>,
}

struct Secret {
    version: u8,
    key: hmac::Key,
    since: Instant,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({}, [redacted])", self.version)
    }
}

impl Secret {
    fn new(version: u8, now: Instant, random: &mut dyn Random) -> Self {
        Self {
            version,
            key: hmac::Key::new(hmac::HMAC_SHA256, &random.bytes::<32>()),
            since: now,
        }
    }

    fn cookie(&self, nonce: &[u8], address: IpAddr, spi: u64) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.key);
        match address {
            IpAddr::V4(v4) => context.update(&v4.octets()),
            IpAddr::V6(v6) => context.update(&v6.octets()),
        }
        context.update(&spi.to_be_bytes());
        context.update(nonce);
        let mut cookie = vec![self.version];
        cookie.extend_from_slice(context.sign().as_ref());
        cookie
    }
}

impl Cookies {
    pub(crate) fn new(now: Instant, random: &mut dyn Random) -> Self {
        Self {
            current: Secret::new(0, now, random),
            previous: None,
        }
    }

    /// The cookie to demand of this request.
    pub(crate) fn make(
        &mut self,
        now: Instant,
        nonce: &[u8],
        address: IpAddr,
        spi: u64,
        random: &mut dyn Random,
    ) -> Vec<u8> {
        if now.saturating_duration_since(self.current.since) >= ROTATE_AFTER {
            let next = Secret::new(self.current.version.wrapping_add(1), now, random);
            self.previous = Some(std::mem::replace(&mut self.current, next));
        }
        self.current.cookie(nonce, address, spi)
    }

    /// Whether a returned cookie is one that was demanded of this very request.
    pub(crate) fn check(&self, cookie: &[u8], nonce: &[u8], address: IpAddr, spi: u64) -> bool {
        if !COOKIE_BYTES.contains(&cookie.len()) {
            return false;
        }
        [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .any(|secret| {
                cookie.first() == Some(&secret.version)
                    && aws_lc_rs::constant_time::verify_slices_are_equal(
                        &secret.cookie(nonce, address, spi),
                        cookie,
                    )
                    .is_ok()
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::random::SystemRandom;

    #[test]
    fn fault_17_and_20_cookies_bind_and_survive_one_rotation() {
        let random: &mut dyn Random = &mut SystemRandom::new();
        let start = Instant::now();
        let (here, there) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let mut cookies = Cookies::new(start, random);
        let cookie = cookies.make(start, b"nonce", here, 7, random);
        assert!(COOKIE_BYTES.contains(&cookie.len()));
        assert!(cookies.check(&cookie, b"nonce", here, 7));
        assert!(!cookies.check(&cookie, b"nonce", there, 7));
        assert!(!cookies.check(&cookie, b"nonc3", here, 7));
        assert!(!cookies.check(&cookie, b"nonce", here, 8));
        assert!(!cookies.check(&[], b"nonce", here, 7));
        assert!(!cookies.check(&[0; 65], b"nonce", here, 7));
        cookies.make(start + ROTATE_AFTER, b"other", here, 9, random);
        for _ in 0..1000 {
            cookies.make(start + ROTATE_AFTER, b"load", here, 9, random);
        }
        assert!(
            cookies.check(&cookie, b"nonce", here, 7),
            "the previous secret still counts"
        );
        cookies.make(start + 2 * ROTATE_AFTER, b"other", here, 9, random);
        assert!(!cookies.check(&cookie, b"nonce", here, 7));
    }
}
