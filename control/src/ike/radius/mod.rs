//! EAP through RADIUS (RFC 2865, RFC 3579): each packet of a peer is a request to a server, tried in turn.

mod packet;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ike::{EapAnswer, Random, SystemRandom};
use southbound::KeyMaterial;
use tokio::net::UdpSocket;

use self::packet::{
    ACCESS_ACCEPT, ACCESS_CHALLENGE, ACCESS_REJECT, Answer, CALLED_STATION, CALLING_STATION, EAP_MESSAGE,
    FRAMED_IP_ADDRESS, FRAMED_IPV6_ADDRESS, NAS_IDENTIFIER, NAS_PORT_TYPE, REPLY_MESSAGE, Request,
    SERVICE_TYPE, STATE, USER_NAME,
};
use crate::config::RadiusServer;

/// NAS-Port-Type: virtual.
const VIRTUAL: u32 = 5;
/// Service-Type: framed.
const FRAMED: u32 = 2;
/// The MSK of EAP (RFC 3748 section 7.10); methods with shorter keys, as MS-CHAPv2, fill it up with zeroes.
const MSK_BYTES: usize = 64;
const LEAST_KEY_BYTES: usize = 32;

/// A packet of a peer, on its way to the servers.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) gateway: String,
    pub(super) local: IpAddr,
    pub(super) remote: IpAddr,
    pub(super) user: String,
    pub(super) packet: KeyMaterial,
    /// What the server wanted back, and which server that was.
    pub(super) state: Option<State>,
}

/// What a server wants back with the peer's next packet.
#[derive(Clone, Debug)]
pub(super) struct State {
    server: SocketAddr,
    value: Vec<u8>,
}

/// Asks the servers in turn; the answer for the engine, and what to remember for the peer's next packet.
pub(super) async fn ask(servers: &[RadiusServer], question: Question) -> (EapAnswer, Option<State>) {
    let mut reason = "no RADIUS server is configured".to_owned();
    for server in servers {
        // A conversation stays with the server that began it.
        if question
            .state
            .as_ref()
            .is_some_and(|state| state.server != server.address)
        {
            continue;
        }
        match exchange(server, &question).await {
            Ok(answer) => return understand(server, answer),
            Err(error) => reason = format!("RADIUS server {}: {error}", server.address),
        }
    }
    (EapAnswer::Failure { packet: None, reason }, None)
}

fn request(question: &Question) -> Request {
    let mut authenticator = [0; 16];
    SystemRandom::new().fill(&mut authenticator);
    let mut request = Request::new(authenticator);
    request.add(USER_NAME, question.user.as_bytes());
    request.add(NAS_IDENTIFIER, question.gateway.as_bytes());
    request.add(SERVICE_TYPE, &FRAMED.to_be_bytes());
    request.add(NAS_PORT_TYPE, &VIRTUAL.to_be_bytes());
    request.add(CALLED_STATION, question.local.to_string().as_bytes());
    request.add(CALLING_STATION, question.remote.to_string().as_bytes());
    for part in question.packet.expose().chunks(packet::MAX_VALUE_BYTES) {
        request.add(EAP_MESSAGE, part);
    }
    if let Some(state) = &question.state {
        request.add(STATE, &state.value);
    }
    request
}

async fn exchange(server: &RadiusServer, question: &Question) -> Result<Answer, String> {
    let any = match server.address {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let fault = |error: std::io::Error| error.to_string();
    let socket = UdpSocket::bind((any, 0)).await.map_err(fault)?;
    socket.connect(server.address).await.map_err(fault)?;
    let request = request(question);
    let bytes = request.emit(server.secret.expose());
    let mut buffer = vec![0; packet::MAX_PACKET_BYTES];
    let mut last = format!("no answer within {:?}", server.timeout * u32::from(server.tries));
    for _ in 0..server.tries {
        if let Err(error) = socket.send(&bytes).await {
            last = error.to_string();
        }
        let deadline = tokio::time::Instant::now() + server.timeout;
        loop {
            match tokio::time::timeout_at(deadline, socket.recv(&mut buffer)).await {
                Err(_) => break,
                Ok(Err(error)) => {
                    last = error.to_string();
                    // Nobody listens there: the next try may find somebody.
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    break;
                }
                Ok(Ok(length_bytes)) => {
                    match request.check(
                        buffer.get(..length_bytes).unwrap_or_default(),
                        server.secret.expose(),
                    ) {
                        Some(answer) => return Ok(answer),
                        // Forged, or made with another secret: the true answer may still come (RFC 2865 section 3).
                        None => {
                            last = "an answer did not verify: is the secret the same at both ends?".to_owned()
                        }
                    }
                }
            }
        }
    }
    Err(last)
}

fn understand(server: &RadiusServer, answer: Answer) -> (EapAnswer, Option<State>) {
    let eap: Vec<u8> = answer.values(EAP_MESSAGE).flatten().copied().collect();
    let packet = (!eap.is_empty()).then(|| eap.clone());
    let failure = |packet, reason: String| (EapAnswer::Failure { packet, reason }, None);
    match answer.code {
        ACCESS_CHALLENGE if eap.is_empty() => {
            failure(None, format!("RADIUS server {} sent no EAP", server.address))
        }
        ACCESS_CHALLENGE => {
            let state = answer.values(STATE).next().map(|value| State {
                server: server.address,
                value: value.to_vec(),
            });
            (EapAnswer::Continue(eap), state)
        }
        ACCESS_ACCEPT => {
            let Some(mut msk) = answer
                .session_key(server.secret.expose())
                .filter(|msk| msk.len() >= LEAST_KEY_BYTES)
            else {
                return failure(
                    None,
                    format!(
                        "RADIUS server {} sent no key (MS-MPPE-Recv-Key, MS-MPPE-Send-Key)",
                        server.address
                    ),
                );
            };
            while msk.len() < MSK_BYTES {
                msk.push(0);
            }
            let text = |value: &[u8]| String::from_utf8(value.to_vec()).ok();
            let v4 = answer
                .values(FRAMED_IP_ADDRESS)
                .filter_map(|value| <[u8; 4]>::try_from(value).ok());
            // Two values stand for "choose one" (RFC 2865 section 5.8).
            let v4 = v4.filter(|value| *value < [255, 255, 255, 254]).map(IpAddr::from);
            let v6 = answer
                .values(FRAMED_IPV6_ADDRESS)
                .filter_map(|value| <[u8; 16]>::try_from(value).ok());
            let success = EapAnswer::Success {
                packet,
                msk: KeyMaterial::new(msk.to_vec()),
                user: answer.values(USER_NAME).next().and_then(text),
                addresses: v4.chain(v6.map(IpAddr::from)).collect(),
            };
            (success, None)
        }
        ACCESS_REJECT => {
            let words = answer
                .values(REPLY_MESSAGE)
                .next()
                .map(|value| String::from_utf8_lossy(value).into_owned());
            let reason = match words {
                Some(words) => format!("RADIUS server {} refused: {words}", server.address),
                None => format!("RADIUS server {} refused", server.address),
            };
            failure(packet, reason)
        }
        code => failure(None, format!("RADIUS server {} sent code {code}", server.address)),
    }
}
