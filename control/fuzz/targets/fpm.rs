//! FPM: whatever a stream brings, the tables stay within their bounds and can be emptied.
#![no_main]

use control::fpm::{Limits, Model, Receiver, Statistics};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits {
    routes: 16,
    labels: 8,
    next_hops: 8,
};

fuzz_target!(|data: &[u8]| {
    let mut model = Model::new(LIMITS);
    let mut receiver = Receiver::default();
    let mut statistics = Statistics::default();
    model.begin_session();
    let (first, second) = data.split_at(data.len() / 2);
    let _ = receiver
        .receive(first, &mut model, &mut statistics)
        .and_then(|()| receiver.receive(second, &mut model, &mut statistics));
    let counts = model.counts();
    assert!(counts.routes <= 16 && counts.labels <= 8 && counts.next_hops <= 8);
    for (key, _) in model.routes() {
        let _ = model.route_target(&key);
    }
    model.clear();
    assert_eq!(model.counts().routes + model.counts().labels + model.counts().next_hops, 0);
    assert_eq!(model.counts().stale, 0);
});
