//! Configuration: TOML files in, a validated [`Gateway`] out, and every fault told with its file, line and
//! column, what was found and what was expected.
//!
//! The main file is `/etc/penstock/penstock.toml`; the files `conf.d/*.toml` beside it follow in the byte
//! order of their names. A table that stands once (`[gateway]`) or a name that must be unique is an error
//! when it stands twice, and the error names both places.

mod connection;
mod file;
mod gateway;
mod key_file;
mod metrics;
mod mpls;
mod policy;
mod port;
mod problem;
mod secret_file;
mod selector;
mod source;
mod tunnel;

pub use connection::{ChildTunnel, Connection, IkeSettings, RadiusServer, Remote};
pub use gateway::{Admin, Gateway, Loaded};
pub use key_file::KeyAccess;
pub use metrics::{Metrics, MetricsTls, MetricsUser};
pub use mpls::{ClassMap, Fpm, Hop, LabelAction, RouteTarget, StaticLabel, StaticRoute, Via};
pub use policy::{Policy, PolicyTarget};
pub use port::Port;
pub use problem::{Problem, Problems};
pub use tunnel::{ManualSa, Tunnel};

/// Where the configuration is, unless the command line says otherwise.
pub const DEFAULT_PATH: &str = "/etc/penstock/penstock.toml";
