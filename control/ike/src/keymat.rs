//! Derivation of keys: SKEYSEED and the seven SK keys, Child SA keys, and what RFC 8784 mixes in
//! (RFC 7296 sections 2.14, 2.17 and 2.18, RFC 9370, RFC 8784).

use southbound::KeyMaterial;

use crate::crypto::cipher::Protector;
use crate::crypto::prf::Prf;
use crate::error::Result;
use crate::proposal::IkeSuite;

/// The keys of an IKE SA.
#[derive(Debug, Clone)]
pub(crate) struct IkeKeys {
    pub(crate) prf: Prf,
    pub(crate) sk_d: KeyMaterial,
    pub(crate) sk_ai: KeyMaterial,
    pub(crate) sk_ar: KeyMaterial,
    pub(crate) sk_ei: KeyMaterial,
    pub(crate) sk_er: KeyMaterial,
    pub(crate) sk_pi: KeyMaterial,
    pub(crate) sk_pr: KeyMaterial,
}

/// The public inputs of a derivation: nonces and SPIs of the exchange that made the IKE SA.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seed {
    pub(crate) nonce_i: Vec<u8>,
    pub(crate) nonce_r: Vec<u8>,
    pub(crate) spi_i: u64,
    pub(crate) spi_r: u64,
}

/// SKEYSEED of a first exchange: prf(Ni | Nr, g^ir).
pub(crate) fn first_seed(prf: Prf, seed: &Seed, shared: &KeyMaterial) -> KeyMaterial {
    let nonces = [prf.seed_nonce(&seed.nonce_i), prf.seed_nonce(&seed.nonce_r)].concat();
    prf.compute(&nonces, &[shared.expose()])
}

/// SKEYSEED after an additional key exchange: prf(SK_d, SK(n) | Ni | Nr) (RFC 9370 section 2.2.2).
pub(crate) fn additional_seed(
    prf: Prf,
    sk_d: &KeyMaterial,
    seed: &Seed,
    shared: &KeyMaterial,
) -> KeyMaterial {
    prf.compute(sk_d.expose(), &[shared.expose(), &seed.nonce_i, &seed.nonce_r])
}

/// SKEYSEED of a rekeyed IKE SA: prf(SK_d (old), SK(0) | Ni | Nr | SK(1) | …), by the old SA's function
/// (RFC 7296 section 2.18, RFC 9370 section 2.2.4).
pub(crate) fn rekey_seed(old: &IkeKeys, seed: &Seed, shared: &[KeyMaterial]) -> KeyMaterial {
    let mut parts: Vec<&[u8]> = Vec::with_capacity(shared.len() + 2);
    parts.extend(shared.first().map(KeyMaterial::expose));
    parts.extend([seed.nonce_i.as_slice(), seed.nonce_r.as_slice()]);
    parts.extend(shared.iter().skip(1).map(KeyMaterial::expose));
    old.prf.compute(old.sk_d.expose(), &parts)
}

impl IkeKeys {
    /// {SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr} = prf+(SKEYSEED, Ni | Nr | SPIi | SPIr).
    pub(crate) fn derive(suite: &IkeSuite, skeyseed: &KeyMaterial, seed: &Seed) -> Self {
        let prf = suite.prf;
        let integrity_bytes = suite.integrity.map_or(0, |i| i.key_bytes());
        let cipher_bytes = suite.cipher.key_bytes();
        let prf_bytes = prf.output_bytes();
        let total = 3 * prf_bytes + 2 * integrity_bytes + 2 * cipher_bytes;
        let stream = prf.plus(
            skeyseed.expose(),
            &[
                &seed.nonce_i,
                &seed.nonce_r,
                &seed.spi_i.to_be_bytes(),
                &seed.spi_r.to_be_bytes(),
            ],
            total,
        );
        let mut rest = stream.expose();
        let mut cut = |length: usize| {
            let (head, tail) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            rest = tail;
            KeyMaterial::new(head.to_vec())
        };
        Self {
            prf,
            sk_d: cut(prf_bytes),
            sk_ai: cut(integrity_bytes),
            sk_ar: cut(integrity_bytes),
            sk_ei: cut(cipher_bytes),
            sk_er: cut(cipher_bytes),
            sk_pi: cut(prf_bytes),
            sk_pr: cut(prf_bytes),
        }
    }

    /// Mixes a post-quantum preshared key into SK_d, SK_pi and SK_pr (RFC 8784 section 3).
    pub(crate) fn mix_ppk(&mut self, ppk: &KeyMaterial) {
        for key in [&mut self.sk_d, &mut self.sk_pi, &mut self.sk_pr] {
            *key = self
                .prf
                .plus(ppk.expose(), &[key.expose()], self.prf.output_bytes());
        }
    }

    /// KEYMAT = prf+(SK_d, [SK(0) |] Ni | Nr [| SK(1) …]) (RFC 7296 section 2.17, RFC 9370 section 2.2.4): the keys of
    /// the initiator-to-responder SA, then those of the other.
    pub(crate) fn child(
        &self,
        nonce_i: &[u8],
        nonce_r: &[u8],
        shared: &[KeyMaterial],
        key_bytes: usize,
    ) -> (KeyMaterial, KeyMaterial) {
        let mut parts: Vec<&[u8]> = Vec::with_capacity(shared.len() + 2);
        parts.extend(shared.first().map(KeyMaterial::expose));
        parts.extend([nonce_i, nonce_r]);
        parts.extend(shared.iter().skip(1).map(KeyMaterial::expose));
        let stream = self.prf.plus(self.sk_d.expose(), &parts, 2 * key_bytes);
        let (forth, back) = stream.expose().split_at_checked(key_bytes).unwrap_or_default();
        (KeyMaterial::new(forth.to_vec()), KeyMaterial::new(back.to_vec()))
    }

    /// What the original initiator sends with, and what the original responder sends with.
    pub(crate) fn protectors(&self, suite: &IkeSuite) -> Result<(Protector, Protector)> {
        Ok((
            Protector::new(suite.cipher, suite.integrity, &self.sk_ei, &self.sk_ai)?,
            Protector::new(suite.cipher, suite.integrity, &self.sk_er, &self.sk_ar)?,
        ))
    }
}

#[cfg(test)]
#[path = "keymat_vectors.rs"]
mod vectors;
