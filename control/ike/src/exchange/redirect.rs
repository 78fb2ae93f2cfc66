//! Redirection to another gateway (RFC 5685): in IKE_SA_INIT, in IKE_AUTH, and of an established SA.

use std::net::IpAddr;

use crate::error::{Error, Result};
use crate::ike_sa::{Context, Effect, IkeSa, Task};
use crate::message::ExchangeType;
use crate::payload::Payload;
use crate::payload::notify::{NotifyPayload, NotifyType};
use crate::reader::Reader;

use super::Exchange;
use super::parts::{Parts, status};

/// A gateway's identity (RFC 5685 section 10.2): type, length, address.
fn identity(gateway: IpAddr) -> Vec<u8> {
    match gateway {
        IpAddr::V4(v4) => [&[1, 4][..], &v4.octets()].concat(),
        IpAddr::V6(v6) => [&[2, 16][..], &v6.octets()].concat(),
    }
}

/// REDIRECT to `to`; the nonce proves in IKE_SA_INIT that the request was seen.
pub(crate) fn redirect(to: IpAddr, nonce: &[u8]) -> Payload {
    status(NotifyType::REDIRECT, [&identity(to), nonce].concat())
}

/// REDIRECTED_FROM: who sent us here.
pub(crate) fn redirected_from(gateway: IpAddr) -> Payload {
    status(NotifyType::REDIRECTED_FROM, identity(gateway))
}

/// The address in a REDIRECT whose nonce is this one; where an SA protects it there is none.
pub(crate) fn target(notify: &NotifyPayload, nonce: &[u8]) -> Result<IpAddr> {
    let mut reader = Reader::new(&notify.data);
    let kind = reader.u8("redirect identity")?;
    let length = usize::from(reader.u8("redirect identity")?);
    let identity = reader.take(length, "redirect identity")?;
    if reader.finish() != nonce {
        return Err(Error::Malformed("redirect nonce"));
    }
    let address = match kind {
        1 => <[u8; 4]>::try_from(identity).ok().map(IpAddr::from),
        2 => <[u8; 16]>::try_from(identity).ok().map(IpAddr::from),
        _ => None,
    };
    address.ok_or(Error::Malformed("redirect identity"))
}

impl IkeSa {
    /// The peer, which proved itself, sends us on in its answer to IKE_AUTH (RFC 5685 section 6).
    pub(crate) fn redirected_in_auth(&mut self, ctx: &mut Context<'_>, parts: &Parts) -> Result<()> {
        let Some(notify) = parts.notify(NotifyType::REDIRECT) else {
            return Ok(());
        };
        let to = target(notify, &[])?;
        ctx.effects.push(Effect::Redirected {
            connection: self.connection.name.clone(),
            to,
        });
        Err(Error::Local(format!("redirected to {to}")))
    }

    /// The gateway sends us on while the SA is up (RFC 5685 section 5): we go there, and close this one.
    pub(crate) fn redirected_by_gateway(&mut self, ctx: &mut Context<'_>, parts: &Parts) -> Result<()> {
        let Some(notify) = parts.notify(NotifyType::REDIRECT).filter(|_| self.initiator) else {
            return Ok(());
        };
        let to = target(notify, &[])?;
        ctx.effects.push(Effect::Redirected {
            connection: self.connection.name.clone(),
            to,
        });
        let reason = format!("redirected to {to}");
        self.enqueue(ctx.now, Task::DeleteIke { reason });
        Ok(())
    }

    pub(crate) fn start_redirect(&mut self, ctx: &mut Context<'_>, to: IpAddr) -> Result<()> {
        self.request(
            ctx,
            ExchangeType::INFORMATIONAL,
            &[redirect(to, &[])],
            Exchange::Liveness,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_round_trip_and_lies_are_refused() {
        for to in ["192.0.2.7", "2001:db8::7"] {
            let to: IpAddr = to.parse().unwrap();
            let Payload::Notify(notify) = redirect(to, b"nonce") else {
                panic!("no notification")
            };
            assert_eq!(target(&notify, b"nonce"), Ok(to));
            assert!(target(&notify, b"other").is_err());
            for end in 0..notify.data.len() {
                let cut = NotifyPayload {
                    data: notify.data[..end].to_vec(),
                    ..notify.clone()
                };
                assert!(target(&cut, b"nonce").is_err());
            }
        }
    }
}
