//! From the bytes of a session to changes of the model.

use super::frame::{Decoder, Frame, StreamError};
use super::message::{Change, MessageError};
use super::model::Model;
use crate::netlink::frames;

/// What a session, or all of them, brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Bytes.
    pub bytes: u64,
    /// FPM frames.
    pub frames: u64,
    /// Frames of another encoding than netlink.
    pub foreign_frames: u64,
    /// Netlink messages.
    pub messages: u64,
    /// Messages that say nothing that is looked at.
    pub ignored: u64,
    /// Messages that could not be read, and frames whose messages do not fill them.
    pub malformed: u64,
    /// Messages about labels that cannot be bound.
    pub bad_labels: u64,
    /// Routes told, and routes taken back.
    pub routes: [u64; 2],
    /// Labels bound, and labels taken back.
    pub labels: [u64; 2],
}

impl Statistics {
    fn count(&mut self, change: &Change) {
        match change {
            Change::Route(..) => self.routes[0] += 1,
            Change::RouteGone(_) => self.routes[1] += 1,
            Change::Label(..) => self.labels[0] += 1,
            Change::LabelGone(_) => self.labels[1] += 1,
            Change::Nothing => self.ignored += 1,
            Change::NextHop(..) | Change::NextHopGone(_) => {}
        }
    }
}

/// Reads one session.
#[derive(Debug, Default)]
pub struct Receiver {
    decoder: Decoder,
}

impl Receiver {
    /// Takes a piece of the stream and applies what it completes to `model`.
    ///
    /// A message that cannot be read is counted and passed over: the frames tell where the next one begins.
    ///
    /// # Errors
    /// Where the stream itself is broken; the session has to end.
    pub fn receive(
        &mut self,
        piece: &[u8],
        model: &mut Model,
        statistics: &mut Statistics,
    ) -> Result<(), StreamError> {
        statistics.bytes += piece.len() as u64;
        self.decoder.feed(piece);
        while let Some(frame) = self.decoder.next()? {
            statistics.frames += 1;
            match frame {
                Frame::Netlink(body) => messages(body, model, statistics),
                Frame::Other(_) => statistics.foreign_frames += 1,
            }
        }
        Ok(())
    }
}

fn messages(body: &[u8], model: &mut Model, statistics: &mut Statistics) {
    let mut read_bytes = 0;
    for frame in frames(body) {
        read_bytes += frame.bytes.len().next_multiple_of(4);
        statistics.messages += 1;
        match Change::parse(&frame) {
            Ok(change) => {
                statistics.count(&change);
                model.apply(change);
            }
            Err(MessageError::Malformed) => statistics.malformed += 1,
            Err(MessageError::Label) => statistics.bad_labels += 1,
        }
    }
    if read_bytes < body.len() {
        statistics.malformed += 1;
    }
}
