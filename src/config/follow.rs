//! Notices that files have changed by their content: a swapped symlink, as in Kubernetes, an editor's
//! rename and a plain overwrite all look the same, on any file system.

use std::path::PathBuf;

use sha2::{Digest, Sha256};

type Content = [u8; 32];

/// Files that are read as a unit.
#[derive(Debug)]
pub(crate) struct Followed {
    paths: Vec<PathBuf>,
    /// The content that was last taken.
    taken: Content,
    /// The content at the last look.
    seen: Content,
}

impl Followed {
    /// The present content counts as taken.
    pub(crate) fn new(paths: Vec<PathBuf>) -> Followed {
        let taken = content(&paths);
        Followed { paths, taken, seen: taken }
    }

    /// Whether to read the files: when told to, or for new content, which must be the same at two looks,
    /// since a file may be half written, or the other file of a pair not yet written. The content then counts
    /// as taken.
    pub(crate) fn is_due(&mut self, is_told: bool) -> bool {
        let now = content(&self.paths);
        let is_settled = now == self.seen;
        self.seen = now;
        let is_due = is_told || is_settled && now != self.taken;
        if is_due {
            self.taken = now;
        }
        is_due
    }
}

fn content(paths: &[PathBuf]) -> Content {
    let mut hash = Sha256::new();
    for path in paths {
        match std::fs::read(path) {
            Ok(bytes) => hash.update(Sha256::digest(bytes)),
            // A file that cannot be read counts as content, too.
            Err(error) => hash.update(error.kind().to_string()),
        }
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_settled_is_taken_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        std::fs::write(&path, "one").expect("written");
        let mut followed = Followed::new(vec![path.clone()]);
        let mut check = |content: Option<&str>, expected: &[bool]| {
            match content {
                Some(text) => std::fs::write(&path, text).expect("written"),
                None => std::fs::remove_file(&path).expect("removed"),
            }
            let looks: Vec<bool> = expected.iter().map(|_| followed.is_due(false)).collect();
            assert_eq!(looks, expected, "{content:?}");
        };
        check(Some("one"), &[false, false]);
        check(Some("two"), &[false, true, false]);
        check(Some("thr"), &[false]);
        check(Some("three"), &[false, true, false]);
        check(None, &[false]);
        check(Some("three"), &[false, false]);
        check(None, &[false, true, false]);
    }
}
