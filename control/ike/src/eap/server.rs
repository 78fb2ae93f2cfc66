//! The authenticator: asks for the identity, then runs MS-CHAPv2 against the local users, or EAP-TLS, or passes packets
//! to an authentication server and back.

use southbound::KeyMaterial;

use crate::config::{Connection, LocalAuth, RemoteAuth};
use crate::credential::Credentials;
use crate::crypto::random::{Draw, Random};
use crate::error::{Error, Result};
use crate::event::EapAnswer;
use crate::payload::eap::{EapPacket, code, method};
use crate::payload::id::Identity;
use crate::reader::Reader;

use super::mschapv2::{Exchange, master_session_key, opcode, without_domain};
use super::tls::{Taken, TlsSession};

/// What the authenticator says to a packet.
pub(crate) enum Verdict {
    /// Another round.
    Continue(EapPacket),
    /// EAP-Success, and the key that AUTH has to prove.
    Success(EapPacket, KeyMaterial),
    /// EAP-Failure, and why.
    Failure(EapPacket, String),
    /// For the authentication server to answer.
    Relay(EapPacket),
}

/// How to authenticate the peer once it said who it is.
#[derive(Debug)]
enum Method {
    Mschapv2,
    /// By EAP-TLS with our credential of this name.
    Tls(String),
    Relay,
}

/// EAP-TLS under way.
#[derive(Debug)]
struct TlsProgress {
    session: TlsSession,
    /// Why it failed, while the alert for the peer is still on its way.
    failed: Option<String>,
}

#[derive(Debug)]
enum State {
    Identity,
    Challenged {
        challenge: [u8; 16],
    },
    /// The peer proved itself; it has yet to confirm our proof.
    Proved {
        msk: KeyMaterial,
    },
    /// The peer failed; it has yet to confirm that.
    Refused {
        reason: String,
    },
    Tls(Box<TlsProgress>),
    Relayed,
    Done,
}

/// One authentication.
#[derive(Debug)]
pub(crate) struct EapServer {
    state: State,
    identifier: u8,
    method: Method,
    user: String,
    /// Who the peer's certificate says it is.
    certified: Option<Identity>,
}

/// A user name is at most as long as RADIUS carries (RFC 2865 section 5.1).
const MAX_NAME_BYTES: usize = 253;

impl EapServer {
    /// A new authentication and its first packet.
    pub(crate) fn new(connection: &Connection, random: &mut dyn Random) -> Result<(Self, EapPacket)> {
        let method = match (&connection.remote_auth, &connection.local_auth) {
            (RemoteAuth::EapRelay, _) => Method::Relay,
            (RemoteAuth::EapTls, LocalAuth::Certificate { credential, .. }) => {
                Method::Tls(credential.clone())
            }
            (RemoteAuth::EapTls, _) => {
                return Err(Error::Local("EAP-TLS needs a certificate of this side".into()));
            }
            _ => Method::Mschapv2,
        };
        let identifier = random.bytes::<1>()[0];
        let server = Self {
            state: State::Identity,
            identifier,
            method,
            user: String::new(),
            certified: None,
        };
        let packet = EapPacket {
            code: code::REQUEST,
            identifier,
            method: Some(method::IDENTITY),
            data: Vec::new(),
        };
        Ok((server, packet))
    }

    /// As an authentication server that a gateway asks: the gateway asked for the identity under this number.
    #[cfg(test)]
    pub(crate) fn asked_by_gateway(&mut self, identifier: u8) {
        self.identifier = identifier;
    }

    /// Who was authenticated.
    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    /// The same as an identity: the certificate's where there is one.
    pub(crate) fn identity(&self) -> Identity {
        let named = || Identity::from_text(&self.user);
        self.certified.clone().unwrap_or_else(named)
    }

    fn request(&mut self, method: u8, data: Vec<u8>) -> EapPacket {
        self.identifier = self.identifier.wrapping_add(1);
        EapPacket {
            code: code::REQUEST,
            identifier: self.identifier,
            method: Some(method),
            data,
        }
    }

    fn end(&self, code: u8) -> EapPacket {
        EapPacket {
            code,
            identifier: self.identifier,
            method: None,
            data: Vec::new(),
        }
    }

    /// Why the peer failed, while it has yet to confirm that.
    pub(crate) fn refusal(&self) -> Option<&str> {
        match &self.state {
            State::Refused { reason } => Some(reason),
            State::Tls(progress) => progress.failed.as_deref(),
            _ => None,
        }
    }

    fn failure(&self, reason: &str) -> Verdict {
        Verdict::Failure(self.end(code::FAILURE), reason.to_owned())
    }

    /// Takes the peer's next packet.
    pub(crate) fn receive(
        &mut self,
        packet: &EapPacket,
        credentials: &Credentials,
        unix_seconds: u64,
        random: &mut dyn Random,
    ) -> Result<Verdict> {
        if packet.code != code::RESPONSE || packet.identifier != self.identifier {
            return Err(Error::AuthenticationFailed("EAP packet out of order".into()));
        }
        match (std::mem::replace(&mut self.state, State::Done), packet.method) {
            (State::Identity, Some(method::IDENTITY)) => {
                self.begin(packet, credentials, unix_seconds, random)
            }
            (State::Relayed, _) => {
                self.state = State::Relayed;
                Ok(Verdict::Relay(packet.clone()))
            }
            (State::Tls(progress), Some(method::TLS)) => self.continue_tls(*progress, packet),
            (State::Challenged { .. }, Some(method::NAK)) => {
                Ok(self.failure("the peer knows no EAP-MSCHAPv2"))
            }
            (State::Tls(_), Some(method::NAK)) => Ok(self.failure("the peer knows no EAP-TLS")),
            (State::Challenged { challenge }, Some(method::MSCHAPV2)) => {
                self.check_response(packet, challenge, credentials)
            }
            (State::Proved { msk }, Some(method::MSCHAPV2))
                if packet.data.first() == Some(&opcode::SUCCESS) =>
            {
                Ok(Verdict::Success(self.end(code::SUCCESS), msk))
            }
            (State::Refused { reason }, Some(method::MSCHAPV2)) => Ok(self.failure(&reason)),
            _ => Ok(self.failure("EAP packet out of order")),
        }
    }

    /// The peer said who it is: the method starts.
    fn begin(
        &mut self,
        packet: &EapPacket,
        credentials: &Credentials,
        unix_seconds: u64,
        random: &mut dyn Random,
    ) -> Result<Verdict> {
        let name = packet.data.get(..MAX_NAME_BYTES).unwrap_or(&packet.data);
        self.user = String::from_utf8_lossy(name)
            .chars()
            .filter(|c| !c.is_control())
            .collect();
        match &self.method {
            Method::Relay => {
                self.state = State::Relayed;
                Ok(Verdict::Relay(packet.clone()))
            }
            Method::Tls(credential) => {
                let session = TlsSession::server(credential, credentials, unix_seconds)?;
                self.state = State::Tls(Box::new(TlsProgress {
                    session,
                    failed: None,
                }));
                Ok(Verdict::Continue(self.request(method::TLS, TlsSession::start())))
            }
            Method::Mschapv2 => {
                let challenge = random.bytes::<16>();
                self.state = State::Challenged { challenge };
                let name = b"penstock";
                let mut value = vec![16];
                value.extend_from_slice(&challenge);
                value.extend_from_slice(name);
                let identifier = self.identifier.wrapping_add(1);
                let data = message(opcode::CHALLENGE, identifier, &value);
                Ok(Verdict::Continue(self.request(method::MSCHAPV2, data)))
            }
        }
    }

    fn continue_tls(&mut self, mut progress: TlsProgress, packet: &EapPacket) -> Result<Verdict> {
        let session = &mut progress.session;
        let mut say = None;
        match session.take(&packet.data) {
            Ok(Taken::Partial) => say = Some(vec![0]),
            Ok(Taken::Acknowledgement) => {}
            Ok(Taken::Flight) => session.commit()?,
            Err(error) => progress.failed = Some(error.to_string()),
        }
        let session = &mut progress.session;
        if let Some(data) = say.or_else(|| session.next_fragment()) {
            self.state = State::Tls(Box::new(progress));
            return Ok(Verdict::Continue(self.request(method::TLS, data)));
        }
        if let Some(reason) = progress.failed {
            return Ok(self.failure(&reason));
        }
        if !progress.session.is_committed() {
            return Ok(self.failure("EAP-TLS packet out of order"));
        }
        self.certified = Some(progress.session.peer()?.default_identity());
        Ok(Verdict::Success(self.end(code::SUCCESS), progress.session.msk()?))
    }

    /// Takes the authentication server's answer to what was relayed.
    pub(crate) fn relayed(&mut self, answer: EapAnswer) -> Result<Verdict> {
        let unreadable = || Error::AuthenticationFailed("EAP packet of the authentication server".into());
        let read = |bytes: &[u8], wanted: u8| {
            let packet = EapPacket::from_bytes(bytes).ok();
            packet.filter(|packet| packet.code == wanted)
        };
        match answer {
            EapAnswer::Continue(bytes) => {
                let packet = read(&bytes, code::REQUEST).ok_or_else(unreadable)?;
                self.identifier = packet.identifier;
                Ok(Verdict::Continue(packet))
            }
            EapAnswer::Success {
                packet, msk, user, ..
            } => {
                let said = packet.and_then(|bytes| read(&bytes, code::SUCCESS));
                self.user = user.unwrap_or_else(|| std::mem::take(&mut self.user));
                Ok(Verdict::Success(
                    said.unwrap_or_else(|| self.end(code::SUCCESS)),
                    msk,
                ))
            }
            EapAnswer::Failure { packet, reason } => {
                let said = packet.and_then(|bytes| read(&bytes, code::FAILURE));
                Ok(Verdict::Failure(
                    said.unwrap_or_else(|| self.end(code::FAILURE)),
                    reason,
                ))
            }
        }
    }

    fn check_response(
        &mut self,
        packet: &EapPacket,
        authenticator_challenge: [u8; 16],
        credentials: &Credentials,
    ) -> Result<Verdict> {
        let mut reader = Reader::new(&packet.data);
        if reader.u8("MS-CHAPv2 code")? != opcode::RESPONSE {
            return Ok(self.failure("MS-CHAPv2 packet out of order"));
        }
        let identifier = reader.u8("MS-CHAPv2 identifier")?;
        reader.u16("MS-CHAPv2 length")?;
        if reader.u8("MS-CHAPv2 value size")? != 49 {
            return Err(Error::Malformed("MS-CHAPv2 value size"));
        }
        let peer_challenge = reader.array::<16>("MS-CHAPv2 peer challenge")?;
        reader.array::<8>("MS-CHAPv2 reserved")?;
        let nt_response = reader.array::<24>("MS-CHAPv2 response")?;
        reader.u8("MS-CHAPv2 flags")?;
        let user =
            String::from_utf8(reader.finish().to_vec()).map_err(|_| Error::Malformed("MS-CHAPv2 name"))?;
        if user.chars().any(char::is_control) {
            return Err(Error::Malformed("MS-CHAPv2 name"));
        }
        let password = credentials
            .eap_password(&user)
            .or_else(|| credentials.eap_password(without_domain(&user)));
        let exchange = Exchange {
            authenticator_challenge,
            peer_challenge,
            user: user.clone(),
        };
        // An unknown user costs the same computation and gets the same answer as a wrong password.
        let nobody = KeyMaterial::new(Vec::new());
        let expected = exchange.nt_response(password.unwrap_or(&nobody));
        let equal = aws_lc_rs::constant_time::verify_slices_are_equal(&expected, &nt_response).is_ok();
        let Some(password) = password.filter(|_| equal) else {
            self.state = State::Refused {
                reason: format!("EAP: wrong user name or password for {user:?}"),
            };
            let text = format!("E=691 R=0 C={} V=3 M=Authentication failed", "0".repeat(32));
            let data = message(opcode::FAILURE, identifier, text.as_bytes());
            return Ok(Verdict::Continue(self.request(method::MSCHAPV2, data)));
        };
        let text = format!("{} M=OK", exchange.authenticator_response(password, &nt_response));
        self.state = State::Proved {
            msk: master_session_key(password, &nt_response),
        };
        self.user = user;
        let data = message(opcode::SUCCESS, identifier, text.as_bytes());
        Ok(Verdict::Continue(self.request(method::MSCHAPV2, data)))
    }
}

/// An MS-CHAPv2 packet: code, identifier, length, value.
pub(crate) fn message(code: u8, identifier: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![code, identifier];
    out.extend_from_slice(&u16::try_from(value.len() + 4).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(value);
    out
}
