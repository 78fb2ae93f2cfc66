//! An endpoint over plain UDP sockets, for trying the engine against a real peer. It negotiates and prints; it carries
//! no traffic.
//!
//! `udp_endpoint LOCAL REMOTE [key=value ...]`, with the keys
//! `psk`, `cert`/`key`/`ca` (DER files), `id`, `peer-id`, `ike`, `esp`, `local-ts`, `remote-ts`, `start` (yes/no),
//! `seconds`, `rekey-ike`, `rekey-child` (seconds), `eap-user` (name:password), `eap-server` (name:password), `pool`,
//! `ppk` (id:secret), `port`, `nat-port`, `mobike` (yes/no), `fragment` (bytes), `transport` (yes/no),
//! `childless` (prefer), `do` (SECONDS:rekey-ike|rekey-child|terminate, comma separated), `vip` (yes/no),
//! `keylog` (file).

use std::collections::HashMap;
use std::error::Error;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ike::{
    Authority, Certificate, ChildConfig, Childless, Connection, Credential, Credentials, Endpoint,
    EndpointConfig, Event, Fragmentation, Identity, LocalAuth, Ppk, RekeyTime, RemoteAuth, RemoteId,
    SigningKey, StartAction, SystemRandom, TrafficSelector, TsSide,
};
use southbound::{IpPrefix, Mode, TunnelId, Update};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn selectors(text: Option<&String>) -> Outcome<Vec<TsSide>> {
    let Some(text) = text else {
        return Ok(vec![TsSide::Dynamic]);
    };
    text.split(',')
        .map(|part| {
            let prefix: IpPrefix = part.parse()?;
            Ok(TsSide::Fixed(TrafficSelector::addresses(
                prefix.network(),
                prefix.last(),
            )))
        })
        .collect()
}

fn configure(
    options: &HashMap<String, String>,
    local: IpAddr,
    remote: IpAddr,
) -> Outcome<(Connection, Credentials)> {
    let get = |key: &str| options.get(key);
    let mut credentials = Credentials::new();
    let mut connection = Connection::new("peer");
    connection.local_addresses = vec![local];
    connection.remote_addresses = vec![SocketAddr::new(remote, 500)];
    connection.local_id = get("id").map(|id| Identity::from_text(id));
    if let Some(id) = get("peer-id") {
        connection.remote_id = RemoteId::Exactly(Identity::from_text(id));
    }
    if let Some(psk) = get("psk") {
        credentials.add_psk(vec![], psk.as_bytes());
    }
    if let Some(ca) = get("ca") {
        credentials.add_authority(Authority::parse(&std::fs::read(ca)?)?);
        connection.remote_auth = RemoteAuth::Certificate;
    }
    if let (Some(certificate), Some(key)) = (get("cert"), get("key")) {
        let certificate = Certificate::parse(&std::fs::read(certificate)?)?;
        let key = SigningKey::from_der(&std::fs::read(key)?)?;
        credentials.add_credential("own", Credential::new(certificate, vec![], key)?);
        connection.local_auth = LocalAuth::Certificate {
            credential: "own".into(),
            rsa_scheme: Default::default(),
        };
    }
    for (key, server) in [("eap-user", false), ("eap-server", true)] {
        if let Some((user, password)) = get(key).and_then(|text| text.split_once(':')) {
            credentials.add_eap_user(user, password);
            if server {
                connection.remote_auth = RemoteAuth::EapMschapv2;
            } else {
                connection.local_auth = LocalAuth::EapMschapv2 {
                    user: user.to_owned(),
                };
            }
        }
    }
    if let Some((id, secret)) = get("ppk").and_then(|text| text.split_once(':')) {
        credentials.add_ppk(id.as_bytes().to_vec(), secret.as_bytes());
        connection.ppk = Some(Ppk {
            id: id.as_bytes().to_vec(),
            required: true,
        });
    }
    if let Some(pool) = get("pool") {
        connection.pools = pool.split(',').map(str::parse).collect::<Result<_, _>>()?;
    }
    if get("vip").is_some_and(|v| v == "yes") {
        connection.request_addresses = (true, false);
    }
    if let Some(ike) = get("ike") {
        connection.proposals = ike.split(',').map(str::parse).collect::<Result<_, _>>()?;
    }
    if let Some(seconds) = get("rekey-ike") {
        connection.rekey = RekeyTime::seconds(seconds.parse()?);
    }
    if let Some(bytes) = get("fragment") {
        connection.fragmentation = Fragmentation::Above {
            packet_bytes: bytes.parse()?,
        };
    }
    connection.mobike = get("mobike").is_none_or(|v| v == "yes");
    connection.force_udp_encapsulation = get("encap").is_some_and(|v| v == "yes");
    if get("childless").is_some() {
        connection.childless = Childless::Prefer;
    }
    if let Some(delay) = get("dpd") {
        connection.dpd_delay = Some(Duration::from_secs(delay.parse()?));
    }
    let mut child = ChildConfig::new(
        "net",
        Some(TunnelId(1)),
        selectors(get("local-ts"))?,
        selectors(get("remote-ts"))?,
    );
    if let Some(esp) = get("esp") {
        child.proposals = esp.split(',').map(str::parse).collect::<Result<_, _>>()?;
    }
    if let Some(seconds) = get("rekey-child") {
        child.rekey = RekeyTime::seconds(seconds.parse()?);
    }
    if get("transport").is_some_and(|v| v == "yes") {
        child.mode = Mode::Transport;
    }
    if get("start").is_none_or(|v| v == "yes") {
        child.start = StartAction::Start;
    } else {
        connection.remote_networks = vec![IpPrefix::host(remote)];
        connection.remote_addresses.clear();
    }
    connection.children = vec![child];
    Ok((connection, credentials))
}

fn clock() -> (Instant, u64) {
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    (Instant::now(), unix)
}

fn describe(event: &Event) -> String {
    match event {
        Event::Dataplane(Update::InstallSa(spec)) => format!(
            "install {:?} {:#010x} {} {:?} udp {:?} esn {}",
            spec.direction,
            spec.spi,
            spec.transform,
            spec.mode,
            spec.udp.map(|u| (u.local_port, u.remote_port)),
            spec.extended_sequence_numbers
        ),
        Event::Dataplane(Update::RemoveSa(sa)) => format!("remove {:?} {:#010x}", sa.direction, sa.spi),
        Event::Dataplane(Update::SelectOutbound { tunnel, sa }) => {
            format!("select {:#010x} for tunnel {}", sa.spi, tunnel.0)
        }
        other => format!("{other:?}"),
    }
}

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "udp_endpoint LOCAL REMOTE [key=value ...]";
    let local: IpAddr = arguments.next().ok_or(usage)?.parse()?;
    let remote: IpAddr = arguments.next().ok_or(usage)?.parse()?;
    let options: HashMap<String, String> = arguments
        .filter_map(|a| a.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())))
        .collect();
    let (connection, credentials) = configure(&options, local, remote)?;
    let mut keylog = match options.get("keylog") {
        Some(path) => Some(std::fs::File::create(path)?),
        None => None,
    };
    let config = EndpointConfig {
        key_log: keylog.is_some(),
        ..EndpointConfig::default()
    };
    let sockets = [
        UdpSocket::bind((local, config.port))?,
        UdpSocket::bind((local, config.nat_t_port))?,
    ];
    for socket in &sockets {
        socket.set_nonblocking(true)?;
    }
    let (start, unix) = clock();
    let mut endpoint = Endpoint::new(config, credentials, Box::new(SystemRandom::new()), start, unix);
    endpoint.add_connection(start, connection);
    let seconds: u64 = options.get("seconds").map_or(Ok(10), |s| s.parse())?;
    let mut commands: Vec<(Duration, String)> = Vec::new();
    for command in options
        .get("do")
        .map(String::as_str)
        .unwrap_or_default()
        .split(',')
    {
        if let Some((when, what)) = command.split_once(':') {
            commands.push((Duration::from_secs(when.parse()?), what.to_owned()));
        }
    }
    let mut buffer = vec![0; 65536];
    loop {
        let now = clock().0;
        let elapsed = now - start;
        if elapsed > Duration::from_secs(seconds) {
            break;
        }
        for (_, what) in commands.extract_if(.., |(when, _)| *when <= elapsed) {
            println!("{:8.3} command {what}", elapsed.as_secs_f64());
            match what.as_str() {
                "rekey-ike" => endpoint.rekey_ike(now, "peer"),
                "rekey-child" => endpoint.rekey_child(now, "peer", "net"),
                "terminate" => endpoint.terminate(now, "peer"),
                other => println!("unknown command {other}"),
            }
        }
        let mut idle = true;
        for socket in &sockets {
            if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                idle = false;
                endpoint.handle_datagram(
                    now,
                    socket.local_addr()?,
                    from,
                    buffer.get(..length).unwrap_or_default(),
                );
            }
        }
        if endpoint.poll_timeout().is_some_and(|when| when <= now) {
            endpoint.handle_timeout(now);
        }
        while let Some(event) = endpoint.poll_event() {
            if let (Event::KeyLog(line), Some(file)) = (&event, &mut keylog) {
                writeln!(file, "{line}")?;
                continue;
            }
            println!("{:8.3} {}", elapsed.as_secs_f64(), describe(&event));
        }
        while let Some(transmit) = endpoint.poll_transmit() {
            let socket = sockets
                .iter()
                .find(|s| s.local_addr().is_ok_and(|a| a.port() == transmit.local.port()));
            if let Some(socket) = socket {
                let _ = socket.send_to(&transmit.bytes, transmit.remote);
            }
        }
        if idle {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    println!("{:#?}\n{:?}", endpoint.ike_sas(), endpoint.counters());
    Ok(())
}
