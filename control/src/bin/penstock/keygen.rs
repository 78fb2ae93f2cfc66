//! `penstock keygen`: random keys.

use std::path::PathBuf;

use clap::Args;
use control::admin::ExitCode;
use southbound::Transform;

use crate::secret_file;

/// Make a random key, as key files hold it
#[derive(Args)]
#[command(
    after_help = "Examples:\n  penstock keygen --out /etc/penstock/to-site-b.key\n  \
                        penstock keygen --algorithm aes256-sha256 --out to-b.key\n  penstock keygen --psk"
)]
pub(crate) struct Keygen {
    /// The transform of the SA that the key is for
    #[arg(long, default_value = "aes128gcm16")]
    algorithm: String,
    /// A pre-shared key for IKE instead: 256 random bits
    #[arg(long, conflicts_with = "algorithm")]
    psk: bool,
    /// A new file, of mode 0600, instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Keygen {
    pub(crate) fn run(&self) -> ExitCode {
        let length_bytes = if self.psk {
            32
        } else {
            match self.algorithm.parse::<Transform>() {
                Ok(transform) => transform.key_bytes(),
                Err(error) => {
                    eprintln!("penstock: {:?}: {error}", self.algorithm);
                    return ExitCode::Usage;
                }
            }
        };
        let written = secret_file::random(length_bytes).and_then(|bytes| {
            let text = format!("{}\n", secret_file::hexadecimal(&bytes));
            match &self.out {
                Some(path) => secret_file::create(path, &text),
                None => {
                    print!("{text}");
                    Ok(())
                }
            }
        });
        match written {
            Ok(()) => ExitCode::Done,
            Err(error) => {
                eprintln!("penstock: {error}");
                ExitCode::Usage
            }
        }
    }
}
