//! The file: whose it is, and what becomes of one that is old, spoiled or gone.

use std::os::unix::fs::PermissionsExt;

use super::*;

#[tokio::test]
async fn the_file_is_ours_alone_and_outlives_its_handle() {
    let place = Place::new();
    place
        .store
        .append(batch("main", None, "1", vec![turn(0, AT, "kept")]))
        .await
        .unwrap();
    for end in ["", "-wal", "-shm"] {
        let path = format!("{}{end}", place.path().display());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{path}");
    }
    let again = Store::new(&place.path()).unwrap();
    assert_eq!(again.count().await.unwrap(), 1);
    assert_eq!(again.begun(), 0);
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_set_aside() {
    type Spoil = fn(&Path);
    let later: Spoil = |path| {
        let connection = rusqlite::Connection::open(path).unwrap();
        connection
            .pragma_update(None, "user_version", schema::VERSION + 1)
            .unwrap();
    };
    let rubbish: Spoil = |path| std::fs::write(path, "no database ".repeat(1000)).unwrap();
    for (spoil, kept) in [(later, true), (rubbish, true)] {
        let place = Place::new();
        place
            .store
            .append(batch("main", None, "1", vec![turn(0, AT, "lost")]))
            .await
            .unwrap();
        let path = place.path();
        drop(place.store);
        // The thread closes the file after its last handle is gone.
        while path.with_file_name("store.db-wal").exists() {
            tokio::task::yield_now().await;
        }
        spoil(&path);
        let again = Store::new(&path).unwrap();
        assert_eq!(again.count().await.unwrap(), 0);
        assert_eq!(again.begun(), 1);
        assert_eq!(schema::aside(&path).exists(), kept);
    }
}

#[tokio::test]
async fn an_earlier_version_is_begun_anew() {
    for version in 0..schema::VERSION {
        let place = Place::new();
        let path = place.path();
        // Ours but for the version, and with other tables.
        drop(schema::Db::open(&path).unwrap());
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection
            .pragma_update(None, "user_version", version)
            .unwrap();
        let other = "DROP TABLE found; ALTER TABLE texts DROP COLUMN facets;";
        connection.execute_batch(other).unwrap();
        drop(connection);
        assert_eq!(place.store.count().await.unwrap(), 0);
        assert_eq!(place.store.begun(), 1);
        assert!(!schema::aside(&path).exists());
        let rows = vec![turn(0, AT, "found again")];
        let read_again = batch("main", None, "1", rows);
        place.store.append(read_again).await.unwrap();
        assert_eq!(place.found("again").await.len(), 1);
    }
}

#[tokio::test]
async fn a_file_that_is_destroyed_while_it_is_open_is_begun_anew() {
    type Destroy = fn(&Path);
    let removed: Destroy = |path| std::fs::remove_file(path).unwrap();
    let emptied: Destroy = |path| drop(std::fs::File::create(path).unwrap());
    let replaced: Destroy = |path| {
        std::fs::remove_file(path).unwrap();
        std::fs::write(path, "rubbish ".repeat(1000)).unwrap();
    };
    for (destroy, kept) in [(removed, false), (emptied, false), (replaced, true)] {
        let place = Place::new();
        let store = &place.store;
        let rows = |from: u64| {
            (from..from + 300)
                .map(|n| turn(n, AT, "some words"))
                .collect()
        };
        store
            .append(batch("main", None, "300", rows(0)))
            .await
            .unwrap();
        // Else the log would still have all of it, and nothing would be lost.
        let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
        let flushed = store.ask(|db| Ok(db.connection.execute_batch(checkpoint)?));
        flushed.await.unwrap();
        let begun = store.begun();
        destroy(&place.path());
        assert_eq!(store.cursor(&origin("main")).await.unwrap(), None);
        assert_eq!(store.begun(), begun + 1);
        assert_eq!(schema::aside(&place.path()).exists(), kept);
        store
            .append(batch("main", None, "300", rows(0)))
            .await
            .unwrap();
        assert_eq!(store.count().await.unwrap(), 300);
    }
}

#[tokio::test]
async fn damage_that_shows_later_is_set_aside_too() {
    use std::os::unix::fs::FileExt;
    let place = Place::new();
    let store = &place.store;
    let rows = (0..3000)
        .map(|n| turn(n, AT, &format!("word{n} ").repeat(20)))
        .collect();
    store.append(batch("main", None, "1", rows)).await.unwrap();
    store
        .ask(|db| {
            let checkpoint =
                "PRAGMA wal_checkpoint(TRUNCATE); PRAGMA cache_size = 10; PRAGMA shrink_memory;";
            Ok(db.connection.execute_batch(checkpoint)?)
        })
        .await
        .unwrap();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(place.path())
        .unwrap();
    let length = file.metadata().unwrap().len();
    for page in 1..length / 4096 {
        file.write_all_at(&[0xff; 4096], page * 4096).unwrap();
    }
    let begun = store.begun();
    let answer = store.search(words("word7")).await;
    assert!(answer.is_err(), "{answer:?}");
    assert_eq!(store.begun(), begun + 1);
    assert_eq!(store.count().await.unwrap(), 0);
    assert!(schema::aside(&place.path()).exists());
}
