//! Puts what the files say about labels together.

use std::collections::BTreeMap;

use southbound::{ClassMapId, IpPrefix};

use super::super::file::File;
use super::super::gateway::Builder;
use super::super::source::Source;
use super::{ClassMap, Fpm, LabelAction, Names, RouteTarget, StaticLabel, StaticRoute};

impl Builder {
    /// Reads the tables about labels, once everything that they name is known.
    pub(in super::super) fn labels(&mut self, files: &[(&Source, File)]) {
        let class_maps = self.class_maps(files);
        for (source, file) in files {
            if let Some(section) = &file.fpm
                && self.take(source, "section", "fpm", section.span())
            {
                self.gateway.fpm = Fpm::new(source, section.get_ref());
            }
            self.vrf_labels(source, file);
        }
        let vrfs = self.gateway.vrfs.clone();
        let ports: Vec<_> = self
            .gateway
            .ports
            .iter()
            .map(|port| port.interface.clone())
            .collect();
        let tunnels: Vec<_> = self
            .gateway
            .tunnels
            .iter()
            .map(|tunnel| tunnel.name.clone())
            .collect();
        let names = Names {
            vrfs: &vrfs,
            class_maps: &class_maps,
            is_port: &|name| ports.iter().any(|port| port == name),
            is_tunnel: &|name| tunnels.iter().any(|tunnel| tunnel == name),
        };
        for (source, file) in files {
            self.leaks(source, file, &names);
            for section in &file.route {
                if let Some(route) = StaticRoute::new(source, section, &names) {
                    self.route(source, route, section.prefix.span());
                }
            }
            for section in &file.label {
                if let Some(label) = StaticLabel::new(source, section, &names) {
                    self.label(source, label, section.label.span());
                }
            }
        }
    }

    fn class_maps(&mut self, files: &[(&Source, File)]) -> BTreeMap<String, ClassMapId> {
        let mut found = BTreeMap::new();
        for (source, file) in files {
            for section in &file.class_map {
                if !self.name(source, "class map", &section.name) {
                    continue;
                }
                let Some(id) = u8::try_from(found.len() + 1)
                    .ok()
                    .filter(|number| *number <= ClassMapId::MAX.0)
                    .map(ClassMapId)
                else {
                    source.problem(
                        section.name.span(),
                        format!("found more class maps: expected at most {}", ClassMapId::MAX.0),
                    );
                    break;
                };
                found.insert(section.name.get_ref().clone(), id);
                self.gateway.class_maps.push(ClassMap::new(source, section, id));
            }
        }
        found
    }

    fn vrf_labels(&mut self, source: &Source, file: &File) {
        for section in &file.vrf {
            let Some(vrf) = self.gateway.vrfs.get(section.name.get_ref()).copied() else {
                continue;
            };
            if let Some(label) = &section.label
                && let Some(bound) = StaticLabel::of_vrf(source, vrf, label)
            {
                self.label(source, bound, label.span());
            }
        }
    }

    fn leaks(&mut self, source: &Source, file: &File, names: &Names<'_>) {
        for section in &file.vrf {
            let Some(vrf) = self.gateway.vrfs.get(section.name.get_ref()).copied() else {
                continue;
            };
            for name in &section.import {
                if let Some(other) = names.vrf(source, name) {
                    self.gateway.imports.insert((vrf, other));
                }
            }
            for leak in &section.leak {
                let prefix: Option<IpPrefix> = source.value(&leak.prefix, "a prefix, such as 10.9.0.0/16");
                let other = names.vrf(source, &leak.vrf);
                let (Some(prefix), Some(other)) = (prefix, other) else {
                    continue;
                };
                if other == vrf {
                    source.problem(leak.vrf.span(), "found the vrf itself: expected another");
                    continue;
                }
                let route = StaticRoute {
                    vrf,
                    prefix,
                    target: RouteTarget::Vrf(other),
                };
                self.route(source, route, leak.prefix.span());
            }
        }
    }

    fn route(&mut self, source: &Source, route: StaticRoute, span: std::ops::Range<usize>) {
        let name = format!("{} in table {}", route.prefix, route.vrf.0);
        if self.take(source, "route", &name, span) {
            self.gateway.routes.push(route);
        }
    }

    fn label(&mut self, source: &Source, label: StaticLabel, span: std::ops::Range<usize>) {
        let name = format!("{} in space {}", label.label, label.space.0);
        let is_free = self.take(source, "label", &name, span.clone());
        if let LabelAction::Forward(hops) = &label.action
            && hops.is_empty()
        {
            source.problem(span, "found no way: expected at least one");
        } else if is_free {
            self.gateway.labels.push(label);
        }
    }
}
