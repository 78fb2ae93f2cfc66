//! The validated configuration of a gateway.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use southbound::{IpPrefix, PolicyDefault, VrfId};
use toml::Spanned;

use super::connection::{Connection, IkeSettings, RadiusServer};
use super::file::{DefaultAction, File};
use super::key_file::KeyAccess;
use super::metrics::Metrics;
use super::mpls::{ClassMap, Fpm, StaticLabel, StaticRoute};
use super::policy::{Policy, PolicyTarget};
use super::port::{Port, is_interface_name};
use super::problem::Problems;
use super::source::Source;
use super::tunnel::{ManualSa, Tunnel};

/// Longest name of a tunnel, policy or VRF, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// The kernel's main, local and default tables, and "unspecified": none is a VRF's.
const RESERVED_TABLES: [u32; 4] = [0, 253, 254, 255];

/// The socket behind the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where it is.
    pub socket: PathBuf,
    /// The group that may connect and read.
    pub group: Option<String>,
    /// The users that may change things, besides root and the daemon's own.
    pub users: Vec<String>,
}

/// Everything that the configuration says.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// The gateway's name for people.
    pub name: String,
    /// The dataplane's socket.
    pub dataplane_socket: PathBuf,
    /// What must survive a restart.
    pub state_directory: PathBuf,
    /// The interface of the host's own traffic.
    pub tap: String,
    /// The command line's socket.
    pub admin: Admin,
    /// The metrics, where wanted.
    pub metrics: Option<Metrics>,
    /// Routing tables by name.
    pub vrfs: BTreeMap<String, VrfId>,
    /// Interfaces.
    pub ports: Vec<Port>,
    /// Tunnels, those of connections too.
    pub tunnels: Vec<Tunnel>,
    /// What is negotiated by IKEv2.
    pub connections: Vec<Connection>,
    /// What concerns all connections.
    pub ike: IkeSettings,
    /// Servers that authenticate EAP peers, asked in turn.
    pub radius: Vec<RadiusServer>,
    /// What proves identities; shows no secret.
    pub credentials: ike::Credentials,
    /// Remarks that are no faults.
    pub notes: Vec<String>,
    /// Rules of the SPD besides those of policy-based tunnels.
    pub policies: Vec<Policy>,
    /// What becomes of packets that no rule of a table matches, where the configuration says so.
    pub policy_defaults: BTreeMap<VrfId, PolicyDefault>,
    /// The listener for FRR, where wanted.
    pub fpm: Option<Fpm>,
    /// From which table (second) routes that FRR tells may lead into which (first) other.
    pub imports: BTreeSet<(VrfId, VrfId)>,
    /// Routes besides those of tunnels.
    pub routes: Vec<StaticRoute>,
    /// Labels.
    pub labels: Vec<StaticLabel>,
    /// Mappings of traffic classes.
    pub class_maps: Vec<ClassMap>,
}

/// A configuration and what was noticed on the way.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub gateway: Gateway,
    /// The files it was read from, in order.
    pub files: Vec<PathBuf>,
    /// Remarks that are no faults.
    pub notes: Vec<String>,
}

impl Gateway {
    /// Reads `path` and `conf.d/*.toml` beside it.
    ///
    /// # Errors
    /// Every fault with its place.
    pub fn load(path: &Path, keys: KeyAccess) -> Result<Loaded, Problems> {
        let mut paths = vec![path.to_owned()];
        paths.extend(fragments(path)?);
        let sources = paths
            .iter()
            .map(|path| Source::read(path))
            .collect::<Result<Vec<_>, _>>()?;
        let gateway = Self::from_sources(sources, keys)?;
        let mut notes = gateway.notes.clone();
        for tunnel in &gateway.tunnels {
            if tunnel
                .sas
                .iter()
                .any(|sa| sa.key_in.is_none() || sa.key_out.is_none())
            {
                notes.push(format!(
                    "tunnel {:?}: keys were not checked: their files are not here or not readable",
                    tunnel.name
                ));
            }
        }
        notes.extend(gateway.undecided_tables());
        Ok(Loaded {
            gateway,
            files: paths,
            notes,
        })
    }

    /// Remarks on tables with rules beside routes into tunnels that no rule covers, and no word on what then holds.
    fn undecided_tables(&self) -> Vec<String> {
        let by_route = |vrf| {
            self.tunnels.iter().find(|tunnel| {
                tunnel.inner_vrf == vrf && tunnel.policy_priority.is_none() && !tunnel.routes.is_empty()
            })
        };
        let ruled: BTreeSet<VrfId> = (self.policies.iter().map(|policy| policy.vrf))
            .chain(
                (self.tunnels.iter())
                    .filter(|tunnel| tunnel.policy_priority.is_some())
                    .map(|tunnel| tunnel.inner_vrf),
            )
            .collect();
        ruled
            .into_iter()
            .filter(|vrf| !self.policy_defaults.contains_key(vrf))
            .filter_map(|vrf| Some((vrf, by_route(vrf)?)))
            .map(|(vrf, tunnel)| {
                format!(
                    "table {} has policies, so what none of them matches is discarded, also what routes lead into \
                     tunnel {:?}: policy_default = \"bypass\" lets routes decide, \"discard\" says that this is meant",
                    vrf.0, tunnel.name
                )
            })
            .collect()
    }

    fn from_sources(sources: Vec<Source>, keys: KeyAccess) -> Result<Self, Problems> {
        let mut builder = Builder::new(keys);
        // All names first, so that the order of files and tables does not matter.
        let files: Vec<(&Source, File)> = sources
            .iter()
            .filter_map(|source| Some((source, source.parse()?)))
            .collect();
        for (source, file) in &files {
            builder.vrfs(source, file);
        }
        for (source, file) in &files {
            builder.secrets(source, file);
        }
        for (source, file) in &files {
            builder.sections(source, file);
        }
        for (source, file) in &files {
            builder.connections(source, file);
        }
        for (source, file) in &files {
            builder.policies(source, file);
        }
        builder.labels(&files);
        let gateway = builder.gateway;
        let problems: Vec<_> = sources.into_iter().flat_map(Source::into_problems).collect();
        if problems.is_empty() {
            Ok(gateway)
        } else {
            Err(Problems(problems))
        }
    }
}

/// `conf.d/*.toml` beside the main file, in byte order of their names.
fn fragments(path: &Path) -> Result<Vec<PathBuf>, Problems> {
    let folder = path.parent().unwrap_or(Path::new("")).join("conf.d");
    let fault = |error: io::Error| {
        let source = Source::new(&folder, String::new());
        source.problem(0..0, format!("the folder cannot be read: {error}"));
        Problems(source.into_problems())
    };
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fault(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(fault)?.path();
        let hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort_by(|a, b| {
        a.as_os_str()
            .as_encoded_bytes()
            .cmp(b.as_os_str().as_encoded_bytes())
    });
    Ok(paths)
}

/// Puts the files together; names that were taken are remembered with their places.
pub(super) struct Builder {
    pub(super) gateway: Gateway,
    pub(super) keys: KeyAccess,
    /// Name of a table or a uniqueness, to where it stands.
    pub(super) taken: HashMap<(&'static str, String), String>,
    /// Counter-mode keys in use, to where they stand. Held as the SAs hold them: redacted and zeroed.
    /// By a keyed hash of theirs, so that the keys need no order.
    counter_keys: HashMap<u64, Vec<(southbound::KeyMaterial, String)>>,
    hasher: RandomState,
}

impl Builder {
    fn new(keys: KeyAccess) -> Self {
        Self {
            gateway: Gateway {
                name: "penstock".into(),
                dataplane_socket: "/run/penstock/dataplane.sock".into(),
                state_directory: "/var/lib/penstock".into(),
                tap: "penstock0".into(),
                admin: Admin {
                    socket: "/run/penstock/admin.sock".into(),
                    group: None,
                    users: Vec::new(),
                },
                metrics: None,
                vrfs: BTreeMap::new(),
                ports: Vec::new(),
                tunnels: Vec::new(),
                connections: Vec::new(),
                ike: IkeSettings::default(),
                radius: Vec::new(),
                credentials: ike::Credentials::new(),
                notes: Vec::new(),
                policies: Vec::new(),
                policy_defaults: BTreeMap::new(),
                fpm: None,
                imports: BTreeSet::new(),
                routes: Vec::new(),
                labels: Vec::new(),
                class_maps: Vec::new(),
            },
            keys,
            taken: HashMap::new(),
            counter_keys: HashMap::new(),
            hasher: RandomState::new(),
        }
    }

    /// Notes a problem where `name` was taken before.
    pub(super) fn take(
        &mut self,
        source: &Source,
        kind: &'static str,
        name: &str,
        span: Range<usize>,
    ) -> bool {
        let place = source.place(span.clone());
        match self.taken.get(&(kind, name.to_owned())) {
            Some(before) => {
                source.problem(
                    span,
                    format!("found {kind} {name:?} again: expected it once, and it stands at {before}"),
                );
                false
            }
            None => {
                self.taken.insert((kind, name.to_owned()), place);
                true
            }
        }
    }

    pub(super) fn name(&mut self, source: &Source, kind: &'static str, name: &Spanned<String>) -> bool {
        let text = name.get_ref();
        if text.is_empty() || text.len() > MAX_NAME_BYTES || text.chars().any(char::is_control) {
            source.problem(
                name.span(),
                format!(
                    "found {kind} name {:?}: expected 1 to {MAX_NAME_BYTES} bytes without control characters",
                    text.chars().take(64).collect::<String>()
                ),
            );
            return false;
        }
        self.take(source, kind, text, name.span())
    }

    fn vrfs(&mut self, source: &Source, file: &File) {
        for vrf in &file.vrf {
            let table = *vrf.table.get_ref();
            if RESERVED_TABLES.contains(&table) {
                source.problem(
                    vrf.table.span(),
                    format!("found table {table}: expected the table of a VRF, which is none of 0, 253, 254 and 255"),
                );
            }
            if vrf.name.get_ref() == "main" {
                source.problem(
                    vrf.name.span(),
                    "found vrf \"main\": expected another name, for that is the main table's",
                );
            }
            let named = self.name(source, "vrf", &vrf.name);
            if self.take(source, "vrf table", &table.to_string(), vrf.table.span()) && named {
                self.gateway.vrfs.insert(vrf.name.get_ref().clone(), VrfId(table));
                self.policy_default(VrfId(table), vrf.policy_default);
            }
        }
    }

    fn policy_default(&mut self, vrf: VrfId, default: Option<DefaultAction>) {
        let default = match default {
            Some(DefaultAction::Bypass) => PolicyDefault::Bypass,
            Some(DefaultAction::Discard) => PolicyDefault::Discard,
            None => return,
        };
        self.gateway.policy_defaults.insert(vrf, default);
    }

    pub(super) fn vrf(&self, source: &Source, name: Option<&Spanned<String>>) -> Option<VrfId> {
        let Some(name) = name else {
            return Some(VrfId::MAIN);
        };
        let vrf = self.gateway.vrfs.get(name.get_ref()).copied();
        if vrf.is_none() {
            let known: Vec<_> = self.gateway.vrfs.keys().map(String::as_str).collect();
            source.problem(
                name.span(),
                format!(
                    "found vrf {:?}: expected the name of a [[vrf]] table ({})",
                    name.get_ref(),
                    if known.is_empty() {
                        "there is none".to_owned()
                    } else {
                        known.join(", ")
                    }
                ),
            );
        }
        vrf
    }

    fn sections(&mut self, source: &Source, file: &File) {
        self.process(source, file);
        for section in &file.port {
            let vrf = self.vrf(source, section.vrf.as_ref());
            let unique = self.take(
                source,
                "port",
                section.interface.get_ref(),
                section.interface.span(),
            );
            if let (true, Some(port)) = (unique, Port::new(source, section, vrf)) {
                self.gateway.ports.push(port);
            }
        }
        for section in &file.tunnel {
            let section = section.get_ref();
            let inner_vrf = self.vrf(source, section.vrf.as_ref());
            let outer_vrf = self.vrf(source, section.outer_vrf.as_ref());
            let named = self.name(source, "tunnel", &section.name);
            let tunnel = Tunnel::new(source, section, self.keys, inner_vrf, outer_vrf);
            let Some(tunnel) = tunnel else { continue };
            for (sa, place) in tunnel.sas.iter().zip(&section.sa) {
                self.unique_sa(source, &tunnel, sa, place.span());
            }
            self.unique_routes(source, &tunnel, section.routes.as_deref());
            if named {
                self.gateway.tunnels.push(tunnel);
            }
        }
    }

    fn process(&mut self, source: &Source, file: &File) {
        if let Some(section) = &file.gateway
            && self.take(source, "section", "gateway", section.span())
        {
            let section = section.get_ref();
            if let Some(name) = &section.name
                && self.name(source, "gateway", name)
            {
                self.gateway.name = name.get_ref().clone();
            }
            self.policy_default(VrfId::MAIN, section.policy_default);
            if let Some(path) = &section.dataplane_socket {
                self.gateway.dataplane_socket = source.resolve(path);
            }
            if let Some(path) = &section.state_directory {
                self.gateway.state_directory = source.resolve(path);
            }
            if let Some(tap) = &section.tap {
                if is_interface_name(tap.get_ref()) {
                    self.gateway.tap = tap.get_ref().clone();
                } else {
                    source.problem(
                        tap.span(),
                        format!("found {:?}: expected an interface name", tap.get_ref()),
                    );
                }
            }
        }
        if let Some(section) = &file.admin
            && self.take(source, "section", "admin", section.span())
        {
            let section = section.get_ref();
            if let Some(path) = &section.socket {
                self.gateway.admin.socket = source.resolve(path);
            }
            self.gateway.admin.group = section.group.as_ref().map(|group| group.get_ref().clone());
            self.gateway.admin.users = section.users.iter().map(|user| user.get_ref().clone()).collect();
        }
        if let Some(section) = &file.metrics
            && self.take(source, "section", "metrics", section.span())
        {
            self.gateway.metrics = Metrics::new(source, section.get_ref());
        }
    }

    /// Inbound SPIs are unique here, outbound ones towards one peer; a counter-mode key belongs to one SA
    /// (RFC 4106 section 2 and section 9: one key, one sequence of nonces).
    fn unique_sa(&mut self, source: &Source, tunnel: &Tunnel, sa: &ManualSa, span: Range<usize>) {
        self.take(source, "spi_in", &format!("{:#010x}", sa.spi_in), span.clone());
        self.take(
            source,
            "spi_out",
            &format!("{:#010x} to {}", sa.spi_out, tunnel.remote),
            span.clone(),
        );
        if !sa.transform.encryption().is_counter_mode() {
            return;
        }
        for (key, direction) in [(&sa.key_in, "key_in_file"), (&sa.key_out, "key_out_file")] {
            let Some(key) = key else { continue };
            let alike = self
                .counter_keys
                .entry(self.hasher.hash_one(key.expose()))
                .or_default();
            if let Some((_, before)) = alike.iter().find(|(known, _)| known == key) {
                source.problem(
                    span.clone(),
                    format!(
                        "found in {direction} the key that is used at {before}: expected a key of its own for \
                         each direction of each SA, since {} repeats nonces otherwise",
                        sa.transform
                    ),
                );
            } else {
                alike.push((
                    key.clone(),
                    format!("{} ({direction})", source.place(span.clone())),
                ));
            }
        }
    }

    pub(super) fn unique_routes(
        &mut self,
        source: &Source,
        tunnel: &Tunnel,
        texts: Option<&[Spanned<String>]>,
    ) {
        for text in texts.unwrap_or_default() {
            if let Ok(prefix) = text.get_ref().parse::<IpPrefix>() {
                let name = format!("{prefix} in table {}", tunnel.inner_vrf.0);
                self.take(source, "route", &name, text.span());
            }
        }
    }

    fn policies(&mut self, source: &Source, file: &File) {
        for section in &file.policy {
            let section = section.get_ref();
            let vrf = self.vrf(source, section.vrf.as_ref());
            let named = self.name(source, "policy", &section.name);
            let Some(policy) = Policy::new(source, section, vrf) else {
                continue;
            };
            if let (PolicyTarget::Protect(name), Some(text)) = (&policy.target, &section.tunnel)
                && !self.taken.contains_key(&("tunnel", name.clone()))
            {
                source.problem(
                    text.span(),
                    format!("found tunnel {name:?}: expected the name of a [[tunnel]] table"),
                );
            }
            if named {
                self.gateway.policies.push(policy);
            }
        }
    }
}
