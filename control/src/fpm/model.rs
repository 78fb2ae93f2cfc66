//! What zebra has told, over all its sessions.
//!
//! Everything bears the number of the session that told it last. When a session ends, what it told stays: the
//! routers beyond still send us traffic. The next session tells everything anew but never says that it is
//! done, and routing daemons that restarted with zebra take their time, so what no session has confirmed
//! goes only when [`Model::sweep`] is called, at the end of the stale timer.

use std::collections::{BTreeMap, BTreeSet};

use southbound::Label;

use super::message::{Change, MAX_WAYS, NextHopObject, RouteKey, Target, Way};

/// Most entries of each kind. What is beyond is refused and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Routes over all tables.
    pub routes: usize,
    /// Labels.
    pub labels: usize,
    /// Next-hop objects.
    pub next_hops: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            routes: 2_000_000,
            labels: 1 << 20,
            next_hops: 262_144,
        }
    }
}

/// Something that the dataplane may have to be told about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    /// A route.
    Route(RouteKey),
    /// A label.
    Label(Label),
}

/// Where an item leads, next-hop objects looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// By these ways, 1 to [`MAX_WAYS`].
    Ways(Vec<Way>),
    /// Dropped in silence.
    Blackhole,
    /// Dropped, and the sender told.
    Unreachable,
}

/// How much is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Routes.
    pub routes: u64,
    /// Labels.
    pub labels: u64,
    /// Next-hop objects.
    pub next_hops: u64,
    /// Routes and labels that the present session has not confirmed.
    pub stale: u64,
    /// Changes that found their table full.
    pub refused: u64,
}

#[derive(Debug)]
struct Held<T> {
    value: T,
    session: u64,
}

/// What a next-hop object is used by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum User {
    Route(RouteKey),
    Group(u32),
}

/// The tables.
#[derive(Debug, Default)]
pub struct Model {
    limits: Limits,
    routes: BTreeMap<RouteKey, Held<Target>>,
    labels: BTreeMap<Label, Held<Vec<Way>>>,
    next_hops: BTreeMap<u32, Held<NextHopObject>>,
    users: BTreeMap<u32, BTreeSet<User>>,
    changed: BTreeSet<Item>,
    session: u64,
    /// How many entries no longer are the present session's.
    stale: usize,
    refused: u64,
}

impl Model {
    /// Empty tables of these sizes.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// A session begins: what it does not tell is stale from now on.
    pub fn begin_session(&mut self) {
        self.session += 1;
        // A zebra that was started anew numbers its next-hop objects anew: what the old ones said is kept in
        // the routes themselves, or the next object of that number would lead them elsewhere.
        let by_number: Vec<_> = self
            .routes
            .iter()
            .filter(|(_, held)| matches!(held.value, Target::NextHop(_)))
            .map(|(key, _)| (*key, self.route_target(key)))
            .collect();
        for (key, target) in by_number {
            let Some(held) = self.routes.get_mut(&key) else {
                continue;
            };
            held.value = match target {
                Some(Resolved::Ways(ways)) => Target::Ways(ways),
                Some(Resolved::Blackhole) => Target::Blackhole,
                Some(Resolved::Unreachable) | None => Target::Unreachable,
            };
        }
        self.next_hops.clear();
        self.users.clear();
        self.stale = self.routes.len() + self.labels.len();
    }

    /// Takes a change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Route(key, target) => self.route(key, target),
            Change::RouteGone(key) => self.route_gone(key),
            Change::Label(label, ways) => {
                let is_full = self.labels.len() >= self.limits.labels && !self.labels.contains_key(&label);
                if is_full {
                    self.refused += 1;
                    return;
                }
                let held = self.held(ways);
                let before = self.labels.insert(label, held);
                let before = self.forgotten(before);
                if before.as_ref() != self.labels.get(&label).map(|held| &held.value) {
                    self.changed.insert(Item::Label(label));
                }
            }
            Change::LabelGone(label) => {
                let before = self.labels.remove(&label);
                if self.forgotten(before).is_some() {
                    self.changed.insert(Item::Label(label));
                }
            }
            Change::NextHop(number, object) => self.next_hop(number, object),
            Change::NextHopGone(number) => self.next_hop_gone(number),
            Change::Nothing => {}
        }
    }

    fn held<T>(&self, value: T) -> Held<T> {
        Held {
            value,
            session: self.session,
        }
    }

    /// What an entry held that was taken out or replaced.
    fn forgotten<T>(&mut self, held: Option<Held<T>>) -> Option<T> {
        let held = held?;
        if held.session != self.session {
            self.stale -= 1;
        }
        Some(held.value)
    }

    fn bind(&mut self, number: u32, user: User) {
        self.users.entry(number).or_default().insert(user);
    }

    fn unbind(&mut self, number: u32, user: User) {
        if let Some(users) = self.users.get_mut(&number) {
            users.remove(&user);
            if users.is_empty() {
                self.users.remove(&number);
            }
        }
    }

    fn route(&mut self, key: RouteKey, target: Target) {
        if self.routes.len() >= self.limits.routes && !self.routes.contains_key(&key) {
            self.refused += 1;
            return;
        }
        let held = self.held(target.clone());
        let before = self.routes.insert(key, held);
        let before = self.forgotten(before);
        if before.as_ref() == Some(&target) {
            return;
        }
        if let Some(Target::NextHop(number)) = before {
            self.unbind(number, User::Route(key));
        }
        if let Target::NextHop(number) = target {
            self.bind(number, User::Route(key));
        }
        self.changed.insert(Item::Route(key));
    }

    fn route_gone(&mut self, key: RouteKey) {
        let before = self.routes.remove(&key);
        match self.forgotten(before) {
            None => return,
            Some(Target::NextHop(number)) => self.unbind(number, User::Route(key)),
            Some(_) => {}
        }
        self.changed.insert(Item::Route(key));
    }

    fn next_hop(&mut self, number: u32, object: NextHopObject) {
        if self.next_hops.len() >= self.limits.next_hops && !self.next_hops.contains_key(&number) {
            self.refused += 1;
            return;
        }
        let held = self.held(object.clone());
        let before = self.next_hops.insert(number, held);
        let before = self.forgotten(before);
        if before.as_ref() == Some(&object) {
            return;
        }
        self.unbind_members(number, before);
        if let NextHopObject::Group(members) = object {
            for (member, _) in members {
                self.bind(member, User::Group(number));
            }
        }
        self.mark_users(number);
    }

    fn next_hop_gone(&mut self, number: u32) {
        let before = self.next_hops.remove(&number);
        let before = self.forgotten(before);
        if before.is_some() {
            self.unbind_members(number, before);
            self.mark_users(number);
        }
    }

    fn unbind_members(&mut self, group: u32, object: Option<NextHopObject>) {
        if let Some(NextHopObject::Group(members)) = object {
            for (member, _) in members {
                self.unbind(member, User::Group(group));
            }
        }
    }

    /// Everything that a next-hop object leads, itself or in a group, is another now.
    fn mark_users(&mut self, number: u32) {
        let mut numbers = vec![number];
        for user in self.users.get(&number).into_iter().flatten() {
            // Groups are of single objects only, so there is nothing beyond their routes.
            if let User::Group(group) = user {
                numbers.push(*group);
            }
        }
        for number in numbers {
            for user in self.users.get(&number).into_iter().flatten() {
                if let User::Route(key) = user {
                    self.changed.insert(Item::Route(*key));
                }
            }
        }
    }

    /// Forgets what the present session has not told.
    pub fn sweep(&mut self) {
        let session = self.session;
        let routes: Vec<_> = stale(&self.routes, session).collect();
        for key in routes {
            self.route_gone(key);
        }
        let labels: Vec<_> = stale(&self.labels, session).collect();
        for label in labels {
            self.apply(Change::LabelGone(label));
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.begin_session();
        self.sweep();
    }

    /// What changed since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<Item> {
        std::mem::take(&mut self.changed)
    }

    /// Marks everything as changed: interfaces mean something else now.
    pub fn mark_all(&mut self) {
        self.changed
            .extend(self.routes.keys().map(|key| Item::Route(*key)));
        self.changed
            .extend(self.labels.keys().map(|label| Item::Label(*label)));
    }

    /// Where a route leads; `None` where it is not there, or its next-hop object is not.
    #[must_use]
    pub fn route_target(&self, key: &RouteKey) -> Option<Resolved> {
        Some(match &self.routes.get(key)?.value {
            Target::Ways(ways) => Resolved::Ways(ways.clone()),
            Target::Blackhole => Resolved::Blackhole,
            Target::Unreachable => Resolved::Unreachable,
            Target::NextHop(number) => match &self.next_hops.get(number)?.value {
                NextHopObject::Single(way) => Resolved::Ways(vec![*way]),
                NextHopObject::Blackhole => Resolved::Blackhole,
                NextHopObject::Group(members) => {
                    let ways: Vec<_> = members
                        .iter()
                        .filter_map(|(member, weight)| match self.next_hops.get(member)?.value {
                            NextHopObject::Single(way) => Some(Way {
                                weight: *weight,
                                ..way
                            }),
                            _ => None,
                        })
                        .take(MAX_WAYS)
                        .collect();
                    if ways.is_empty() {
                        return None;
                    }
                    Resolved::Ways(ways)
                }
            },
        })
    }

    /// Where a label leads; `None` where it is not bound.
    #[must_use]
    pub fn label_ways(&self, label: Label) -> Option<&[Way]> {
        self.labels.get(&label).map(|held| held.value.as_slice())
    }

    /// The routes, in order, with whether they are stale.
    pub fn routes(&self) -> impl Iterator<Item = (RouteKey, bool)> {
        let session = self.session;
        self.routes
            .iter()
            .map(move |(key, held)| (*key, held.session != session))
    }

    /// The labels, in order, with whether they are stale.
    pub fn labels(&self) -> impl Iterator<Item = (Label, bool)> {
        let session = self.session;
        self.labels
            .iter()
            .map(move |(label, held)| (*label, held.session != session))
    }

    /// How much is held.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            routes: self.routes.len() as u64,
            labels: self.labels.len() as u64,
            next_hops: self.next_hops.len() as u64,
            stale: self.stale as u64,
            refused: self.refused,
        }
    }
}

fn stale<K: Copy, V>(table: &BTreeMap<K, Held<V>>, session: u64) -> impl Iterator<Item = K> {
    table
        .iter()
        .filter(move |(_, held)| held.session != session)
        .map(|(key, _)| *key)
}
