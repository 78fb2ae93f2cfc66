//! Certificates of both gateways by an authority made for the test.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses a part"
)]

use ike::{
    Authority, Certificate, Connection, Credential, Credentials, EndpointConfig, LocalAuth, RemoteAuth,
    SigningKey,
};

use crate::network::{Network, connection};

/// A key and its certificate by the issuer, in DER.
pub fn issue(
    name: &str,
    issuer: Option<&rcgen::Issuer<'_, rcgen::KeyPair>>,
) -> (Vec<u8>, rcgen::CertificateParams, rcgen::KeyPair) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let der = match issuer {
        Some(issuer) => params.signed_by(&key, issuer).unwrap().der().to_vec(),
        None => {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.self_signed(&key).unwrap().der().to_vec()
        }
    };
    (der, params, key)
}

/// Credentials of both gateways by one authority; `names` are what their certificates bear.
pub fn certified(names: [&str; 2]) -> [Credentials; 2] {
    let (ca, params, key) = issue("Test CA", None);
    let issuer = rcgen::Issuer::new(params, key);
    names.map(|name| {
        let (der, _, key) = issue(name, Some(&issuer));
        let key = SigningKey::from_der(&key.serialize_der()).unwrap();
        let mut credentials = Credentials::new();
        credentials.add_credential(
            "own",
            Credential::new(Certificate::parse(&der).unwrap(), vec![], key).unwrap(),
        );
        credentials.add_authority(Authority::parse(&ca).unwrap());
        credentials
    })
}

pub fn by_certificate(connection: &mut Connection) {
    connection.local_auth = LocalAuth::Certificate {
        credential: "own".into(),
        rsa_scheme: Default::default(),
    };
    connection.remote_auth = RemoteAuth::Certificate;
}

pub fn with_credentials(
    seed: u64,
    credentials: [Credentials; 2],
    mut change: impl FnMut(usize, &mut Connection),
) -> Network {
    let mut net = Network::new(seed, credentials.map(|c| (EndpointConfig::default(), c)));
    for host in [1, 0] {
        let mut connection = connection(host);
        change(host, &mut connection);
        let now = net.now;
        net.hosts[host].endpoint.add_connection(now, connection);
    }
    net
}
