//! Long lives: of kills, lost indices and clocks that jump.

use proptest::prelude::*;

use super::*;

#[tokio::test]
async fn clocks_that_jump_lose_and_reorder_nothing() {
    let disk = Disk::new();
    let minute = 60_000_i64;
    let day = 24 * 60 * minute;
    let mut boot = 0_u64;
    let mut written = String::new();
    let mut expected = Vec::new();
    // Right, a day back, a year ahead, and right again; and with each jump, but for the first time of each, a supervisor
    // that does not know of the one before.
    for (round, offset) in [0, -day, 0, 365 * day, 0, -day, 365 * day, 0]
        .into_iter()
        .enumerate()
    {
        let mut engine = disk.engine();
        for n in 0..10 {
            // In the middle of a life, and at its beginning.
            let off = if n < 5 && round % 2 == 1 { 0 } else { offset };
            boot += minute.unsigned_abs();
            let wall = 1_795_000_000_000 + i64::try_from(boot).unwrap() + off;
            CLOCKS.set(Some(Now {
                wall: jiff::Timestamp::from_millisecond(wall).unwrap().into(),
                boot: crate::state::moment::Moment::from_millis(boot),
            }));
            disk.append(TRANSCRIPT, &line(expected.len()));
            written.push_str(&line(expected.len()));
            let done = disk.backup(&mut engine).await;
            assert!(done.taken && done.owed.is_none(), "{done:?}");
            expected.push(written.len() as u64);
            assert_eq!(disk.content(TRANSCRIPT).await, written);
        }
    }
    // Eighty minutes, of which all are young: none is expired, and they are listed as they were taken.
    let store = disk.store();
    retention::tidy(&store, retention::UNUSED).await.unwrap();
    let mut found = Vec::new();
    for id in store.list_manifests().await.unwrap() {
        let manifest = store.get_manifest(&id).await.unwrap();
        found.push(manifest.files[0].bytes);
        let verified = crate::backup::verify::verify(&store, Some(&id)).await;
        assert!(verified.unwrap().unwrap().ok, "{id}");
    }
    assert_eq!(found, expected);
}

#[derive(Clone, Debug)]
enum Step {
    Append(u8, String),
    Torn(u8),
    Backup,
    /// A supervisor that was killed after the snapshot was put and before the index was written.
    Killed,
    LostIndex,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u8..3, "[a-z\"\\\\é]{0,20}").prop_map(|(file, text)| Step::Append(file, text)),
        1 => (0_u8..3).prop_map(Step::Torn),
        4 => Just(Step::Backup),
        2 => Just(Step::Killed),
        1 => Just(Step::LostIndex),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn whatever_happens_every_complete_record_is_in_the_newest_snapshot(steps in proptest::collection::vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let disk = Disk::new();
            let mut engine = disk.engine();
            let mut written: std::collections::BTreeMap<String, (String, bool)> = std::collections::BTreeMap::new();
            let mut number = 0;
            for step in steps.into_iter().chain([Step::Backup]) {
                match step {
                    Step::Append(file, text) => {
                        let path = format!(".codex/sessions/{file}.jsonl");
                        let (so_far, torn) = written.entry(path.clone()).or_default();
                        number += 1;
                        let begin = if std::mem::take(torn) { "" } else { "{\"n\":" };
                        let rest = format!("{number},\"text\":{}}}\n", serde_json::json!(text));
                        disk.append(&path, &format!("{begin}{rest}"));
                        so_far.push_str(&format!("{{\"n\":{rest}"));
                    }
                    Step::Torn(file) => {
                        let path = format!(".codex/sessions/{file}.jsonl");
                        let (_, torn) = written.entry(path.clone()).or_default();
                        if !std::mem::replace(torn, true) {
                            disk.append(&path, "{\"n\":");
                        }
                    }
                    Step::Backup => {
                        disk.backup(&mut engine).await;
                        for (path, (content, _)) in written.iter().filter(|(_, (content, _))| !content.is_empty()) {
                            prop_assert_eq!(&disk.content(path).await, content);
                        }
                    }
                    Step::Killed => {
                        let index = disk.state("backup/index.json.zst");
                        let stale = fs::read(&index).ok();
                        disk.backup(&mut engine).await;
                        match stale {
                            Some(stale) => fs::write(&index, stale).unwrap(),
                            None => drop(fs::remove_file(&index)),
                        }
                        engine = disk.engine();
                    }
                    Step::LostIndex => {
                        drop(fs::remove_file(disk.state("backup/index.json.zst")));
                        engine = disk.engine();
                    }
                }
            }
            let ids = disk.store().list_manifests().await.unwrap();
            for id in &ids {
                let manifest = disk.store().get_manifest(id).await.unwrap();
                for file in &manifest.files {
                    disk.store().read_file(&manifest, file, u64::MAX).await.unwrap();
                }
            }
            Ok(())
        })?;
    }
}
