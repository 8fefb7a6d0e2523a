//! Which engine opens which source.

use super::{Access, Address, Source, SourceError};

/// Connects to the source that the URL names, and looks at its table.
///
/// # Errors
/// [`SourceError::Final`] where the file is missing or the server takes no such login, [`SourceError::Statement`] where
/// the table cannot be exported.
pub fn open(access: &Access) -> Result<Box<dyn Source>, SourceError> {
    Ok(match &access.url {
        Address::Server(address) => Box::new(super::mysql::connect(address, access)?),
        Address::File(path) => Box::new(super::sqlite::open(path, access)?),
    })
}
