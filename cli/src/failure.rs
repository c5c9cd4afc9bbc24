//! Why a command ends without success, as one sentence and an exit code.

use std::fmt;

/// Exit code of a run that failed or broke a promise.
pub(crate) const FAILED: u8 = 1;
/// Exit code of wrong usage and bad input; nothing was changed.
pub(crate) const BAD_INPUT: u8 = 2;
/// Exit code of a run that saw too little to say anything.
pub(crate) const NOTHING_MEASURED: u8 = 5;

/// A sentence for stderr and the code to exit with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub code: u8,
    /// The sentence.
    pub text: String,
}

impl Failure {
    /// Something did not work.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { code: FAILED, text: text.into() }
    }

    /// The user gave something that cannot be used.
    pub(crate) fn bad_input(text: impl Into<String>) -> Self {
        Self { code: BAD_INPUT, text: text.into() }
    }

    /// The same code, with what was being done in front.
    #[must_use]
    pub(crate) fn context(mut self, doing: &str) -> Self {
        self.text = format!("{doing}: {}", self.text);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

impl From<cutover::Error> for Failure {
    fn from(err: cutover::Error) -> Self {
        use cutover::ErrorKind as Kind;
        let code = match err.kind() {
            Kind::InvalidInput | Kind::Locked | Kind::Foreign | Kind::NotFound => BAD_INPUT,
            _ => FAILED,
        };
        Self { code, text: err.to_string() }
    }
}

/// The result of everything in this program that can fail.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;
