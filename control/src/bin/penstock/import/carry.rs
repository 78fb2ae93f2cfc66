//! What of a swanctl configuration becomes what of Penstock's.

use std::fmt::Write;

use super::swanctl::Section;

/// The result.
#[derive(Debug, Default)]
pub(super) struct Carried {
    /// The configuration.
    pub(super) text: String,
    /// Names of files beside it, and what belongs into them.
    pub(super) secrets: Vec<(String, String)>,
    /// What has no counterpart, and what to do.
    pub(super) notes: Vec<String>,
}

/// Settings of a connection that are carried over, or say nothing that matters here.
const CONNECTION: &[&str] = &[
    "version",
    "local_addrs",
    "remote_addrs",
    "proposals",
    "rekey_time",
    "reauth_time",
    "dpd_delay",
    "fragmentation",
    "mobike",
    "encap",
    "unique",
    "pools",
    "over_time",
    "rand_time",
    "send_cert",
    "keyingtries",
    "dscp",
    "childless",
];

/// The same, of a child.
const CHILD: &[&str] = &[
    "local_ts",
    "remote_ts",
    "esp_proposals",
    "rekey_time",
    "rekey_bytes",
    "rekey_packets",
    "mode",
    "start_action",
    "replay_window",
    "copy_df",
    "copy_dscp",
    "copy_ecn",
    "life_time",
    "rand_time",
    "dpd_action",
    "close_action",
    "hw_offload",
];

pub(super) fn carry(root: &Section) -> Carried {
    let mut out = Carried {
        text: "# Made by `penstock import swanctl`. `penstock check` reads it as the daemon would.\n".into(),
        ..Carried::default()
    };
    for (name, connection) in root
        .section("connections")
        .into_iter()
        .flat_map(Section::sections)
    {
        out.connection(name, connection, root);
    }
    out.authorities(root);
    out.secrets(root);
    for (name, _) in root.sections() {
        if !matches!(
            name,
            "connections" | "secrets" | "pools" | "authorities" | "templates"
        ) {
            out.notes.push(format!("section {name}"));
        }
    }
    out
}

/// A TOML string; its escapes are JSON's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn list(text: &str) -> Vec<&str> {
    text.split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .collect()
}

fn array(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!("[{}]", words.join(", "))
}

fn is_yes(text: &str) -> bool {
    matches!(text, "yes" | "1" | "true" | "on" | "accept" | "force")
}

impl Carried {
    // Writing to a String cannot fail.
    fn line(&mut self, name: &str, value: &str) {
        let _ = writeln!(self.text, "{name} = {value}");
    }

    fn unknown(&mut self, place: &str, section: &Section, known: &[&str]) {
        for (name, value) in section.settings().filter(|(name, _)| !known.contains(name)) {
            self.notes.push(format!("{place}.{name} = {value}"));
        }
    }

    fn connection(&mut self, name: &str, section: &Section, root: &Section) {
        let place = format!("connections.{name}");
        if section.get("version") == Some("1") {
            self.notes
                .push(format!("{place}: it is IKEv1, which Penstock does not speak"));
            return;
        }
        let _ = write!(self.text, "\n[[connection]]\nname = {}\n", quoted(name));
        let addresses = |key: &str| {
            list(section.get(key).unwrap_or_default())
                .into_iter()
                .filter(|address| !address.starts_with('%'))
                .collect::<Vec<_>>()
        };
        let (local, remote) = (addresses("local_addrs"), addresses("remote_addrs"));
        if !local.is_empty() {
            self.line("local", &array(&local));
        }
        let (networks, hosts): (Vec<&str>, Vec<&str>) =
            remote.into_iter().partition(|address| address.contains('/'));
        if !hosts.is_empty() {
            self.line("remote", &array(&hosts));
        }
        if !networks.is_empty() {
            self.line("remote_networks", &array(&networks));
        }
        self.ends(&place, section);
        if let Some(proposals) = section.get("proposals") {
            let words: Vec<_> = list(proposals)
                .into_iter()
                .filter(|word| *word != "default")
                .collect();
            if !words.is_empty() {
                self.line("proposals", &array(&words));
            }
        }
        if let Some(after) = section.get("rekey_time") {
            self.line("rekey", &format!("{{ after = {} }}", quoted(after)));
        }
        if let Some(after) = section.get("reauth_time").filter(|after| *after != "0") {
            self.line("reauthenticate_after", &quoted(after));
        }
        if let Some(delay) = section.get("dpd_delay").filter(|delay| *delay != "0") {
            self.line("dpd", &quoted(delay));
        }
        for (from, to) in [
            ("fragmentation", "fragmentation"),
            ("mobike", "mobike"),
            ("encap", "force_udp_encapsulation"),
        ] {
            if let Some(value) = section.get(from) {
                self.line(to, if is_yes(value) { "true" } else { "false" });
            }
        }
        if let Some(unique) = section.get("unique") {
            self.line("unique", if unique == "never" { "false" } else { "true" });
        }
        self.pools(&place, section, root);
        self.unknown(&place, section, CONNECTION);
        for (child, settings) in section
            .section("children")
            .into_iter()
            .flat_map(Section::sections)
        {
            self.child(&format!("{place}.children.{child}"), child, settings);
        }
    }

    /// `local*` and `remote*`: one round of each is carried over.
    fn ends(&mut self, place: &str, section: &Section) {
        for side in ["local", "remote"] {
            let rounds: Vec<_> = section
                .sections()
                .filter(|(name, _)| name.starts_with(side))
                .collect();
            if rounds.len() > 1 {
                self.notes.push(format!(
                    "{place}: more than one round of authentication of {side}"
                ));
            }
            let Some((_, round)) = rounds.first() else {
                continue;
            };
            if let Some(id) = round.get("id").filter(|id| *id != "%any") {
                self.line(&format!("{side}_id"), &quoted(id));
            }
            let auth = round.get("auth").unwrap_or("pubkey");
            let carried = match auth {
                "psk" => Some("psk"),
                "eap-mschapv2" => Some("eap-mschapv2"),
                _ if auth.starts_with("pubkey") || auth.starts_with("rsa") || auth.starts_with("ecdsa") => {
                    Some("certificate")
                }
                _ => None,
            };
            match carried {
                Some(word) => self.line(&format!("{side}_auth"), &quoted(word)),
                None => self.notes.push(format!("{place}.{side}.auth = {auth}")),
            }
            if let (Some(certificates), "local") = (round.get("certs"), side) {
                let name = list(certificates).first().copied().unwrap_or_default().to_owned();
                self.line("credential", &quoted(&name));
                self.notes.push(format!(
                    "{place}.local.certs = {certificates}: write a [[credential]] of the name {name:?} with \
                     certificate_file and key_file"
                ));
            }
            if let Some(eap) = round.get("eap_id") {
                if side == "local" {
                    self.line("eap_user", &quoted(eap));
                } else if eap != "%any" {
                    self.notes.push(format!("{place}.{side}.eap_id = {eap}"));
                }
            }
            self.unknown(
                &format!("{place}.{side}"),
                round,
                &["id", "auth", "certs", "eap_id", "cacerts", "round"],
            );
        }
    }

    fn pools(&mut self, place: &str, section: &Section, root: &Section) {
        let (mut addresses, mut dns) = (Vec::new(), Vec::new());
        for name in list(section.get("pools").unwrap_or_default()) {
            match root.section("pools").and_then(|pools| pools.section(name)) {
                Some(pool) => {
                    addresses.extend(list(pool.get("addrs").unwrap_or_default()));
                    dns.extend(list(pool.get("dns").unwrap_or_default()));
                    self.unknown(&format!("pools.{name}"), pool, &["addrs", "dns"]);
                }
                None => self.notes.push(format!("{place}.pools: no pool {name:?}")),
            }
        }
        if !addresses.is_empty() {
            self.line("pools", &array(&addresses));
        }
        if !dns.is_empty() {
            self.line("dns", &array(&dns));
        }
    }

    fn child(&mut self, place: &str, name: &str, section: &Section) {
        let _ = write!(self.text, "\n[[connection.child]]\nname = {}\n", quoted(name));
        match section.get("mode") {
            None | Some("tunnel") => {}
            Some("transport") => self.line("mode", "\"transport\""),
            Some(other) => self.notes.push(format!("{place}.mode = {other}")),
        }
        for side in ["local_ts", "remote_ts"] {
            let selectors: Vec<_> = list(section.get(side).unwrap_or_default())
                .into_iter()
                .filter(|selector| *selector != "dynamic")
                .collect();
            if !selectors.is_empty() {
                self.line(side, &array(&selectors));
                if side == "remote_ts" {
                    // strongSwan protects what the selectors match.
                    self.line("policy", "true");
                }
            }
        }
        if let Some(proposals) = section.get("esp_proposals") {
            let words: Vec<_> = list(proposals)
                .into_iter()
                .filter(|word| *word != "default")
                .collect();
            if !words.is_empty() {
                self.line("proposals", &array(&words));
            }
        }
        let limits: Vec<String> = [
            ("rekey_time", "after"),
            ("rekey_bytes", "bytes"),
            ("rekey_packets", "packets"),
        ]
        .iter()
        .filter_map(|(from, to)| {
            let value = section.get(from).filter(|value| *value != "0")?;
            Some(if *to == "after" {
                format!("{to} = {}", quoted(value))
            } else {
                format!("{to} = {value}")
            })
        })
        .collect();
        if !limits.is_empty() {
            self.line("rekey", &format!("{{ {} }}", limits.join(", ")));
        }
        if let Some(window) = section.get("replay_window") {
            self.line("replay_window", window);
        }
        for action in section.get("start_action").unwrap_or("none").split('|') {
            match action {
                "trap" => self.line("start", "\"traffic\""),
                "start" => self.line("start", "\"start\""),
                "none" => self.line("start", "\"none\""),
                other => self.notes.push(format!("{place}.start_action = {other}")),
            }
        }
        if section.get("copy_df") == Some("no") {
            self.line("df", "\"clear\"");
        }
        if matches!(section.get("copy_dscp"), Some("no" | "in")) {
            self.line("dscp", "0");
        }
        self.unknown(place, section, CHILD);
    }

    fn authorities(&mut self, root: &Section) {
        for (name, authority) in root
            .section("authorities")
            .into_iter()
            .flat_map(Section::sections)
        {
            if let Some(file) = authority.get("cacert").or(authority.get("file")) {
                let _ = write!(
                    self.text,
                    "\n[[authority]]\ncertificate_file = {}\n",
                    quoted(file)
                );
            }
            self.unknown(&format!("authorities.{name}"), authority, &["cacert", "file"]);
        }
    }

    fn secrets(&mut self, root: &Section) {
        for (name, secret) in root.section("secrets").into_iter().flat_map(Section::sections) {
            let kind = if name.starts_with("ike") {
                "psk"
            } else if name.starts_with("eap") {
                "eap"
            } else if name.starts_with("ppk") {
                "ppk"
            } else {
                self.notes.push(format!("secrets.{name}"));
                continue;
            };
            let Some(text) = secret.get("secret") else {
                self.notes.push(format!("secrets.{name}: it has no secret"));
                continue;
            };
            let file = format!("swanctl-{name}.{kind}");
            let ids: Vec<&str> = secret
                .settings()
                .filter(|(name, _)| name.starts_with("id"))
                .map(|(_, value)| value)
                .collect();
            let _ = write!(self.text, "\n[[secret]]\nkind = {}\n", quoted(kind));
            if !ids.is_empty() {
                self.line("id", &array(&ids));
            }
            self.line("file", &quoted(&file));
            self.secrets.push((file, format!("{text}\n")));
        }
    }
}
