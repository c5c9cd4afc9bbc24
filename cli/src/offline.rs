//! x
use crate::args::{InspectArgs, StatusArgs};
use crate::failure::Result;
/// x
pub(crate) fn status(_args: &StatusArgs) -> Result<()> {
    Ok(())
}
/// x
pub(crate) fn inspect(_args: &InspectArgs) -> Result<()> {
    Ok(())
}
