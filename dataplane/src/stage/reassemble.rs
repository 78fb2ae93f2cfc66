//! Fragments addressed to this gateway become whole packets again.

use southbound::DropReason;

use super::Context;
use crate::batch::{Batch, Next, Slots};

/// Runs the stage.
pub fn run<'u>(batch: &mut Batch<'u>, _context: &mut Context<'_, 'u>) {
    for slot in Slots::of(batch.take(Next::Reassemble)) {
        batch.discard(slot, DropReason::FragmentTableFull);
    }
}
