//! An authority that signs with RSASSA-PSS, which is OpenSSL's work.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use bench::namespace::run;
use bench::pki::Issued;

/// In a folder of its own, removed on drop.
pub(crate) struct PssAuthority {
    folder: PathBuf,
}

/// With SHA-256 and a salt of its length, as RFC 4055 section 3.1 recommends.
const SIGN: &str = "-sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32 -days 30";

impl PssAuthority {
    pub(crate) fn new(stem: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("penstock-{stem}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let authority = Self { folder };
        authority.openssl(&format!(
            "req -x509 -newkey rsa:2048 -nodes {SIGN} -subj /CN=PSS -keyout ca.key -out ca.pem \
             -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign"
        ));
        authority
    }

    pub(crate) fn certificate(&self) -> String {
        self.read("ca.pem")
    }

    pub(crate) fn issue(&self, name: &str, serial: u64) -> Issued {
        let extensions = format!("subjectAltName=DNS:{name}\nextendedKeyUsage=serverAuth,clientAuth\n");
        fs::write(self.folder.join("extensions"), extensions).unwrap();
        self.openssl(&format!(
            "req -newkey rsa:2048 -nodes -subj /CN={name} -keyout own.key -out own.csr"
        ));
        self.openssl(&format!(
            "x509 -req -in own.csr -CA ca.pem -CAkey ca.key -set_serial {serial} {SIGN} -extfile extensions \
             -out own.pem"
        ));
        Issued {
            certificate: self.read("own.pem"),
            key: self.read("own.key"),
            serial,
        }
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        command
            .args(arguments.split_whitespace())
            .current_dir(&self.folder);
        run(&mut command).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).unwrap()
    }
}

impl Drop for PssAuthority {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
