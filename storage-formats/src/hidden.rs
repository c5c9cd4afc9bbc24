//! Payloads in texts that end up in logs: their length, never their bytes.

use std::fmt;

/// Shows how many bytes there are and none of them. For the `Debug` of whatever holds a payload: bodies, inputs, outputs and results
/// belong to the users of a workflow, and a log is read by others.
pub struct Hidden<'b>(pub &'b [u8]);

impl fmt::Debug for Hidden<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}
