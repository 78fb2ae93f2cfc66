//! Key Exchange payload (RFC 7296 section 3.4).
//!
//! ```text
//!                      1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |   Key Exchange Method         |           RESERVED            |
//! +-------------------------------+-------------------------------+
//! |                       Key Exchange Data                       ~
//! ```

use crate::error::Result;
use crate::reader::Reader;

/// A public value of some key exchange method; neither was checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KePayload {
    /// Transform type 4 identifier.
    pub method: u16,
    /// The public value.
    pub data: Vec<u8>,
}

impl KePayload {
    pub(crate) fn parse(body: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        let method = reader.u16("key exchange method")?;
        reader.u16("key exchange reserved")?;
        Ok(Self {
            method,
            data: reader.finish().to_vec(),
        })
    }

    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.method.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&self.data);
    }
}
