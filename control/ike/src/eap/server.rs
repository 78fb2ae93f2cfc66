//! The authenticator: asks for the identity, then runs MS-CHAPv2 against the local users.

use southbound::KeyMaterial;

use crate::credential::Credentials;
use crate::crypto::random::{Draw, Random};
use crate::error::{Error, Result};
use crate::payload::eap::{EapPacket, code, method};
use crate::reader::Reader;

use super::mschapv2::{Exchange, master_session_key, opcode, without_domain};

/// What the authenticator says to a packet.
pub(crate) enum Verdict {
    /// Another round.
    Continue(EapPacket),
    /// EAP-Success, and the key that AUTH has to prove.
    Success(EapPacket, KeyMaterial),
    /// EAP-Failure, and why.
    Failure(EapPacket, String),
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
    Done,
}

/// One authentication.
#[derive(Debug)]
pub(crate) struct EapServer {
    state: State,
    identifier: u8,
    user: String,
}

impl EapServer {
    /// A new authentication and its first packet.
    pub(crate) fn new(random: &mut dyn Random) -> (Self, EapPacket) {
        let identifier = random.bytes::<1>()[0];
        let server = Self {
            state: State::Identity,
            identifier,
            user: String::new(),
        };
        let packet = EapPacket {
            code: code::REQUEST,
            identifier,
            method: Some(method::IDENTITY),
            data: Vec::new(),
        };
        (server, packet)
    }

    /// Who was authenticated.
    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    fn request(&mut self, data: Vec<u8>) -> EapPacket {
        self.identifier = self.identifier.wrapping_add(1);
        EapPacket {
            code: code::REQUEST,
            identifier: self.identifier,
            method: Some(method::MSCHAPV2),
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

    fn failure(&self, reason: &str) -> Verdict {
        Verdict::Failure(self.end(code::FAILURE), reason.to_owned())
    }

    /// Takes the peer's next packet.
    pub(crate) fn receive(
        &mut self,
        packet: &EapPacket,
        credentials: &Credentials,
        random: &mut dyn Random,
    ) -> Result<Verdict> {
        if packet.code != code::RESPONSE || packet.identifier != self.identifier {
            return Err(Error::AuthenticationFailed("EAP packet out of order".into()));
        }
        match (std::mem::replace(&mut self.state, State::Done), packet.method) {
            (State::Identity, Some(method::IDENTITY)) => {
                let challenge = random.bytes::<16>();
                self.state = State::Challenged { challenge };
                let name = b"penstock";
                let mut value = vec![16];
                value.extend_from_slice(&challenge);
                value.extend_from_slice(name);
                let identifier = self.identifier.wrapping_add(1);
                Ok(Verdict::Continue(self.request(message(
                    opcode::CHALLENGE,
                    identifier,
                    &value,
                ))))
            }
            (_, Some(method::NAK)) => Ok(self.failure("the peer knows no EAP-MSCHAPv2")),
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
            return Ok(Verdict::Continue(self.request(data)));
        };
        let text = format!("{} M=OK", exchange.authenticator_response(password, &nt_response));
        self.state = State::Proved {
            msk: master_session_key(password, &nt_response),
        };
        self.user = user;
        let data = message(opcode::SUCCESS, identifier, text.as_bytes());
        Ok(Verdict::Continue(self.request(data)))
    }
}

/// An MS-CHAPv2 packet: code, identifier, length, value.
pub(crate) fn message(code: u8, identifier: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![code, identifier];
    out.extend_from_slice(&u16::try_from(value.len() + 4).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(value);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::random::SystemRandom;
    use crate::eap::client::EapClient;

    fn run(password: &str) -> (Result<()>, Option<KeyMaterial>, Option<KeyMaterial>) {
        let random: &mut dyn Random = &mut SystemRandom::new();
        let mut credentials = Credentials::new();
        credentials.add_eap_user("alice", "wonderland");
        let (mut server, mut packet) = EapServer::new(random);
        let mut client =
            EapClient::new("alice", Some(KeyMaterial::new(password.as_bytes().to_vec()))).unwrap();
        for _ in 0..10 {
            let answer = match client.receive(&packet, random) {
                Ok(Some(answer)) => answer,
                Ok(None) => panic!("success before the server said so"),
                Err(error) => return (Err(error), None, None),
            };
            match server.receive(&answer, &credentials, random).unwrap() {
                Verdict::Continue(next) => packet = next,
                Verdict::Success(success, msk) => {
                    assert!(client.receive(&success, random).unwrap().is_none());
                    return (Ok(()), Some(msk), client.msk().ok());
                }
                Verdict::Failure(failure, reason) => {
                    assert!(client.receive(&failure, random).is_err());
                    return (Err(Error::AuthenticationFailed(reason)), None, None);
                }
            }
        }
        panic!("no end");
    }

    #[test]
    fn right_and_wrong_passwords() {
        let (outcome, server, client) = run("wonderland");
        assert_eq!(outcome, Ok(()));
        assert_eq!(server.unwrap(), client.unwrap());
        assert!(run("looking-glass").0.is_err());
    }

    #[test]
    fn fault_31_early_success_and_packets_out_of_order() {
        let random: &mut dyn Random = &mut SystemRandom::new();
        let mut client = EapClient::new("alice", Some(KeyMaterial::new(b"x".to_vec()))).unwrap();
        let success = EapPacket {
            code: code::SUCCESS,
            identifier: 1,
            method: None,
            data: vec![],
        };
        assert!(
            client.receive(&success, random).is_err(),
            "EAP-Success before the method is done"
        );
        assert!(client.msk().is_err());
        let (mut server, first) = EapServer::new(random);
        let confirm = EapPacket {
            code: code::RESPONSE,
            identifier: first.identifier,
            method: Some(method::MSCHAPV2),
            data: vec![opcode::SUCCESS],
        };
        let verdict = server.receive(&confirm, &Credentials::new(), random).unwrap();
        assert!(matches!(verdict, Verdict::Failure(..)));
    }

    #[test]
    fn fault_31_truncated_responses() {
        let random: &mut dyn Random = &mut SystemRandom::new();
        for length in 0..54 {
            let (mut server, first) = EapServer::new(random);
            let identity = EapPacket {
                code: code::RESPONSE,
                identifier: first.identifier,
                method: Some(method::IDENTITY),
                data: b"alice".to_vec(),
            };
            let Ok(Verdict::Continue(challenge)) = server.receive(&identity, &Credentials::new(), random)
            else {
                panic!("no challenge")
            };
            let mut data = vec![opcode::RESPONSE, 0, 0, 54, 49];
            data.resize(54, 0);
            data.truncate(length);
            let response = EapPacket {
                code: code::RESPONSE,
                identifier: challenge.identifier,
                method: Some(method::MSCHAPV2),
                data,
            };
            let outcome = server.receive(&response, &Credentials::new(), random);
            assert!(
                !matches!(outcome, Ok(Verdict::Success(..) | Verdict::Continue(_))),
                "{length}"
            );
        }
    }
}
