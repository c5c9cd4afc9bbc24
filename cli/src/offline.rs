//! x
use crate::args::{InspectArgs, StatusArgs};
use crate::failure::Result;
/// x
pub fn status(_args: &StatusArgs) -> Result<()> {
    Ok(())
}
/// x
pub fn inspect(_args: &InspectArgs) -> Result<()> {
    Ok(())
}
