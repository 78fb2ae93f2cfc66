//! `penstock pki`: a small certificate authority for gateways and remote users.

use std::error::Error;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use control::admin::ExitCode;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};

use crate::secret_file;

/// The purpose that some peers ask of gateways' certificates (RFC 4945 section 5.1.3.12).
const IPSEC_IKE: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 3, 17];

/// Certificates for gateways and remote users, from an authority of your own
#[derive(Args)]
#[command(
    after_help = "Examples:\n  penstock pki ca --name 'Example VPN' --dir pki\n  \
                  penstock pki gateway --dir pki --name gw1.example.com --address 198.51.100.1\n  \
                  penstock pki client --dir pki --name alice@example.com"
)]
pub(crate) struct Pki {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The authority: DIR/ca.crt and DIR/ca.key, which belongs on no gateway
    Ca {
        /// Its common name
        #[arg(long)]
        name: String,
        /// Where its files go
        #[arg(long)]
        dir: PathBuf,
        /// How long it is valid
        #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u16).range(1..=10950))]
        days: u16,
    },
    /// A gateway: DIR/NAME.crt and DIR/NAME.key
    Gateway {
        /// The authority's folder, where the files go too
        #[arg(long)]
        dir: PathBuf,
        /// Its domain name, which peers know it by
        #[arg(long)]
        name: String,
        /// More domain names
        #[arg(long, value_name = "NAME")]
        dns: Vec<String>,
        /// Addresses that peers know it by
        #[arg(long)]
        address: Vec<IpAddr>,
        /// How long it is valid
        #[arg(long, default_value_t = 398, value_parser = clap::value_parser!(u16).range(1..=3650))]
        days: u16,
    },
    /// A remote user: DIR/NAME.crt and DIR/NAME.key
    Client {
        /// The authority's folder, where the files go too
        #[arg(long)]
        dir: PathBuf,
        /// A mail address or domain name
        #[arg(long)]
        name: String,
        /// How long it is valid
        #[arg(long, default_value_t = 398, value_parser = clap::value_parser!(u16).range(1..=3650))]
        days: u16,
    },
}

impl Pki {
    pub(crate) fn run(&self) -> ExitCode {
        let made = match &self.what {
            What::Ca { name, dir, days } => authority(name, dir, *days),
            What::Gateway {
                dir,
                name,
                dns,
                address,
                days,
            } => gateway(dir, name, dns, address, *days),
            What::Client { dir, name, days } => client(dir, name, *days),
        };
        match made {
            Ok(paths) => {
                for path in paths {
                    println!("{}", path.display());
                }
                ExitCode::Done
            }
            Err(error) => {
                eprintln!("penstock: {error}");
                ExitCode::Usage
            }
        }
    }
}

type Made = Result<[PathBuf; 2], Box<dyn Error>>;

fn authority(name: &str, folder: &Path, days: u16) -> Made {
    fs::create_dir_all(folder)?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?;
    let mut parameters = parameters(name, days)?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = parameters.self_signed(&key)?;
    save(folder, "ca", &certificate.pem(), &key)
}

fn gateway(folder: &Path, name: &str, more: &[String], addresses: &[IpAddr], days: u16) -> Made {
    let mut parameters = parameters(name, days)?;
    for name in std::iter::once(name).chain(more.iter().map(String::as_str)) {
        parameters
            .subject_alt_names
            .push(SanType::DnsName(name.try_into()?));
    }
    let addresses = addresses.iter().map(|address| SanType::IpAddress(*address));
    parameters.subject_alt_names.extend(addresses);
    parameters.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::Other(IPSEC_IKE.to_vec()),
    ];
    issue(folder, name, parameters)
}

fn client(folder: &Path, name: &str, days: u16) -> Made {
    let mut parameters = parameters(name, days)?;
    parameters.subject_alt_names.push(if name.contains('@') {
        SanType::Rfc822Name(name.try_into()?)
    } else {
        SanType::DnsName(name.try_into()?)
    });
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    issue(folder, name, parameters)
}

fn parameters(name: &str, days: u16) -> Result<CertificateParams, Box<dyn Error>> {
    if name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.') {
        return Err(format!("{name:?}: expected a name without '/'").into());
    }
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.distinguished_name.push(DnType::CommonName, name);
    // A peer whose clock is slow takes it too.
    parameters.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
    parameters.not_after = parameters.not_before + Duration::days(days.into());
    // Positive, and at most twenty bytes (RFC 5280 section 4.1.2.2).
    let mut serial = secret_file::random(16)?;
    serial[0] = serial[0] & 0x7f | 0x40;
    parameters.serial_number = Some(SerialNumber::from(serial));
    Ok(parameters)
}

fn issue(folder: &Path, name: &str, mut parameters: CertificateParams) -> Made {
    let read = |file: &str| {
        let path = folder.join(file);
        fs::read_to_string(&path).map_err(|error| {
            format!(
                "{}: {error}: make the authority first: penstock pki ca",
                path.display()
            )
        })
    };
    let issuer = Issuer::from_ca_cert_pem(&read("ca.crt")?, KeyPair::from_pem(&read("ca.key")?)?)?;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = parameters.signed_by(&key, &issuer)?;
    save(folder, name, &certificate.pem(), &key)
}

/// The key first: a certificate without its key is of no use.
fn save(folder: &Path, name: &str, certificate: &str, key: &KeyPair) -> Made {
    let paths = [
        folder.join(format!("{name}.crt")),
        folder.join(format!("{name}.key")),
    ];
    if paths[0].exists() {
        return Err(format!("{} is there already", paths[0].display()).into());
    }
    secret_file::create(&paths[1], &key.serialize_pem())?;
    secret_file::create_public(&paths[0], certificate)?;
    Ok(paths)
}
