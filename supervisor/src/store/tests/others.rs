//! What is of other tasks.

use super::*;

#[tokio::test]
async fn another_tasks_rows_are_told_apart() {
    let place = Place::new();
    place
        .store
        .describe(Task {
            id: "ww-1".into(),
            ..Task::default()
        })
        .await
        .unwrap();
    place
        .store
        .append(batch("main", None, "1", vec![turn(0, AT, "shared")]))
        .await
        .unwrap();
    let mut other = batch("main", None, "1", vec![turn(0, AT, "shared")]);
    other.origin.task = Some("ww-2".into());
    place.store.append(other).await.unwrap();
    let tasks = async |everywhere| {
        let query = Query {
            everywhere,
            ..words("shared")
        };
        let answer = place.store.search(query).await.unwrap();
        let found = answer.results.into_iter().map(|hit| hit.task);
        let mut found: Vec<Option<String>> = found.collect();
        found.sort();
        assert_eq!(answer.total, found.len() as u64);
        found
    };
    assert_eq!(tasks(false).await, [None]);
    assert_eq!(tasks(true).await, [None, Some("ww-2".to_owned())]);
    assert_eq!(place.store.others().await.unwrap(), ["ww-2"]);
    // Its own task is not forgotten by this way.
    for id in ["ww-2", "ww-1"] {
        place.store.forget_task(id.to_owned()).await.unwrap();
    }
    assert_eq!(tasks(true).await, [None]);
    assert_eq!(place.store.count().await.unwrap(), 1);
}
