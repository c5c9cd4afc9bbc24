//! x
use crate::args::DemoArgs;
use crate::failure::Result;
/// x
pub(crate) fn demo(_args: &DemoArgs) -> Result<u8> {
    Ok(0)
}
