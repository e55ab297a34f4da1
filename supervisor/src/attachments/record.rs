//! What is remembered of attachments: one small file, replaced at each change. No links: they are permissions.

use std::io;
use std::path::Path;

use whim_wire::attachment::Attachment;
use whim_wire::time::Time;

/// Failures that are remembered, the newest.
const FAILURES: usize = 20;
/// A record stays far below this; a larger file is not ours.
const LIMIT: u64 = 1024 * 1024;

/// All that is told about attachments, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Record(Vec<Attachment>);

impl Record {
    /// What was remembered. A record that cannot be read costs the list, not the files.
    pub(super) fn read(path: &Path) -> Self {
        let read = || -> io::Result<Vec<Attachment>> {
            if std::fs::metadata(path)?.len() > LIMIT {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            Ok(serde_json::from_slice(&std::fs::read(path)?)?)
        };
        match read() {
            Ok(all) => Self(all),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "the list of attachments is begun anew");
                Self::default()
            }
        }
    }

    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        crate::files::write(path, 0o600, &serde_json::to_vec(&self.0)?)
    }

    pub(super) fn all(&self) -> &[Attachment] {
        &self.0
    }

    pub(super) fn stored(&self) -> impl Iterator<Item = &Attachment> {
        self.0.iter().filter(|known| known.error.is_none())
    }

    /// Forgets files that somebody deleted: those that were not there when it was looked.
    pub(super) fn retain(&mut self, present: &[String], looked: Time) {
        self.0.retain(|known| {
            known.error.is_some() || known.at >= looked || present.contains(&known.name)
        });
    }

    pub(super) fn add(&mut self, new: Attachment) {
        // A file that came at last is no failure any more, and one failure of a name is enough.
        self.0.retain(|known| {
            known.error.is_none() || known.given != new.given || known.origin != new.origin
        });
        self.0.push(new);
        let failures = self.0.iter().filter(|known| known.error.is_some()).count();
        let mut surplus = failures.saturating_sub(FAILURES);
        self.0.retain(|known| {
            let drop = known.error.is_some() && surplus > 0;
            surplus -= usize::from(drop);
            !drop
        });
    }
}

#[cfg(test)]
mod tests {
    use whim_wire::attachment::Origin;

    use super::*;

    fn attachment(name: &str, fails: bool) -> Attachment {
        Attachment {
            name: name.into(),
            given: name.into(),
            path: None,
            bytes: None,
            at: crate::clock::now(),
            origin: Origin::Api,
            error: fails.then(|| "expired".into()),
            word: None,
        }
    }

    #[test]
    fn it_outlives_its_reader_and_forgets_what_was_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("attachments.json");
        assert!(Record::read(&path).all().is_empty());
        let mut record = Record::default();
        record.add(attachment("01-a", false));
        record.add(attachment("02-b", false));
        record.write(&path).unwrap();
        let mut again = Record::read(&path);
        assert_eq!(again.all(), record.all());
        let before: Time = "2020-01-01T00:00:00.000Z".parse().unwrap();
        let later: Time = "2100-01-01T00:00:00.000Z".parse().unwrap();
        again.retain(&["02-b".into()], before);
        assert_eq!(again.stored().count(), 2, "stored after it was looked");
        again.retain(&["02-b".into()], later);
        assert_eq!(again.stored().count(), 1);
        std::fs::write(&path, "{").unwrap();
        assert!(Record::read(&path).all().is_empty());
    }

    #[test]
    fn failures_are_few_and_end_with_a_success() {
        let mut record = Record::default();
        for number in 0..50 {
            record.add(attachment(&format!("f{number}"), true));
            record.add(attachment(&format!("f{number}"), true));
        }
        assert_eq!(record.all().len(), FAILURES);
        assert_eq!(record.all()[0].name, "f30");
        record.add(attachment("f40", false));
        assert_eq!(record.all().len(), FAILURES);
        assert_eq!(record.stored().count(), 1);
    }
}
