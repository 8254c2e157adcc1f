//! Why the disk cannot be used.

use std::io::{self, ErrorKind};

use super::owner::Owner;

/// Why the disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{0} uses it; each process needs a folder of its own")]
    InUse(Owner),
    #[error("a newer hookbridge wrote it (format {0}); use that version or a newer one")]
    Newer(u32),
    #[error("it is damaged: {0}")]
    Damaged(String),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Other(String),
}

impl StoreError {
    pub(super) fn is_disk_full(&self) -> bool {
        let StoreError::Io(error) = self else { return false };
        matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
    }
}
