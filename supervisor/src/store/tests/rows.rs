//! Rows, their cursors and their sources.

use super::*;

#[tokio::test]
async fn rows_and_their_cursor_go_in_together_or_not_at_all() {
    let place = Place::new();
    let store = &place.store;
    store
        .append(batch("main", None, "10", vec![turn(0, AT, "first")]))
        .await
        .unwrap();
    // Repeated after a crash, or by one who began before a rebuild.
    let again = store
        .append(batch("main", None, "10", vec![turn(0, AT, "first")]))
        .await;
    assert!(matches!(again, Err(StoreError::Elsewhere(_))), "{again:?}");
    let jumped = store
        .append(batch("main", Some("7"), "20", vec![turn(15, AT, "lost")]))
        .await;
    assert!(matches!(jumped, Err(StoreError::Elsewhere(_))));
    store
        .append(batch(
            "main",
            Some("10"),
            "20",
            vec![turn(10, AT, "second")],
        ))
        .await
        .unwrap();
    assert_eq!(
        store.cursor(&origin("main")).await.unwrap().as_deref(),
        Some("20")
    );
    assert_eq!(store.count().await.unwrap(), 2);
    assert_eq!(place.found("lost").await, []);
}

#[tokio::test]
async fn a_rewritten_source_replaces_what_was_taken_from_it_only() {
    let place = Place::new();
    let store = &place.store;
    store
        .append(batch("main", None, "10", vec![turn(0, AT, "old words")]))
        .await
        .unwrap();
    store
        .append(batch("s2", None, "10", vec![turn(0, AT, "other words")]))
        .await
        .unwrap();
    let anew = Batch {
        anew: true,
        ..batch("main", None, "5", vec![turn(0, AT, "new words")])
    };
    store.append(anew).await.unwrap();
    assert_eq!(place.found("old").await, []);
    assert_eq!(place.found("words").await.len(), 2);
    assert_eq!(store.count().await.unwrap(), 2);
    let check = store
        .ask(|db| {
            let check = "INSERT INTO found (found, rank) VALUES ('integrity-check', 1)";
            Ok(db.connection.execute(check, [])?)
        })
        .await;
    check.expect("the index and the texts agree");
}

#[tokio::test]
async fn clearing_forgets_everything() {
    let place = Place::new();
    let store = &place.store;
    store
        .append(batch("main", None, "1", vec![turn(0, AT, "gone")]))
        .await
        .unwrap();
    let begun = store.begun();
    store.clear().await.unwrap();
    assert_eq!(store.begun(), begun + 1);
    assert_eq!(store.cursor(&origin("main")).await.unwrap(), None);
    assert_eq!(place.found("gone").await, []);
}

#[tokio::test]
async fn sources_that_rows_name_are_remembered() {
    let place = Place::new();
    let mut first = batch("main", None, "1", Vec::new());
    first.names = vec!["transcript/a".into()];
    place.store.append(first).await.unwrap();
    let known = place.store.sources(&origin("main")).await.unwrap();
    assert_eq!(known, ["transcript", "transcript/a"]);
    assert_eq!(
        place.store.sources(&origin("s2")).await.unwrap(),
        Vec::<String>::new()
    );
}
