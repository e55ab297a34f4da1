use std::sync::Arc;

use object_store::memory::InMemory;

use super::*;
use crate::backup::manifest::{Kind, Place, Places, VERSION};

fn manifest(id: &str, segments: Vec<Segment>, files: Vec<File>) -> Manifest {
    Manifest {
        version: VERSION,
        task: "t".into(),
        id: id.parse().unwrap(),
        taken_at: crate::clock::now(),
        reason: "now".into(),
        whim: "0".into(),
        places: Places::default(),
        sessions: Vec::new(),
        segments,
        files,
        code: None,
    }
}

/// A segment of this content, put.
async fn put(store: &Store, content: &[u8]) -> Segment {
    let stored = zstd::bulk::compress(content, 1).unwrap();
    let segment = Segment {
        name: segment_name(&stored),
        bytes: stored.len() as u64,
        content_bytes: content.len() as u64,
    };
    store
        .put_segment(&segment.name, stored.into())
        .await
        .unwrap();
    segment
}

fn file(content: &[u8], pieces: Vec<Piece>) -> File {
    File {
        place: Place::Home,
        path: "a".into(),
        kind: Kind::Conversation,
        agent: None,
        mode: 0o600,
        bytes: content.len() as u64,
        sha256: segment_name(content),
        pieces,
        damaged_copy_of: None,
    }
}

const ID: &str = "20261122T030405.678Z-0123abcd";

async fn comes_back(store: Store) {
    assert!(tasks(store.objects(), None).await.unwrap().is_empty());
    let segments = vec![put(&store, b"one two ").await, put(&store, b"three").await];
    let pieces = vec![Piece(0, 0, 4), Piece(0, 4, 4), Piece(1, 0, 5)];
    let file = file(b"one two three", pieces);
    let written = manifest(ID, segments.clone(), vec![file]);
    store.put_manifest(&written).await.unwrap();
    let again = store.put_manifest(&written).await;
    assert!(matches!(again, Err(StoreError::Exists(_))));
    let read = store.newest().await.unwrap().unwrap();
    assert_eq!(read, written);
    let content = store.read_file(&read, &read.files[0], 100).await.unwrap();
    assert_eq!(content, b"one two three");
    let listed = store.list_segments().await.unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!(tasks(store.objects(), None).await.unwrap(), ["t"]);
    store.delete_manifest(&read.id).await.unwrap();
    store.delete_segment(&segments[0].name).await.unwrap();
    store.delete_segment(&segments[0].name).await.unwrap();
    assert!(store.newest().await.unwrap().is_none());
    assert_eq!(store.list_segments().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_snapshot_comes_back_from_memory() {
    comes_back(Store::of(Objects::of(Arc::new(InMemory::new())), "t").unwrap()).await;
}

#[tokio::test]
async fn a_snapshot_comes_back_from_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let objects = Objects::directory(directory.path().join("a b")).unwrap();
    comes_back(Store::of(objects, "t").unwrap()).await;
}

#[tokio::test]
async fn what_was_changed_in_the_store_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let objects = Objects::directory(directory.path().to_owned()).unwrap();
    let store = Store::of(objects, "t").unwrap();
    let segment = put(&store, b"what was said").await;
    let whole = file(b"what was said", vec![Piece(0, 0, 13)]);
    let path = directory
        .path()
        .join("tasks/t/segments")
        .join(&segment.name);
    let good = std::fs::read(&path).unwrap();

    let mut other = whole.clone();
    other.sha256 = segment_name(b"another");
    let lying = manifest(ID, vec![segment.clone()], vec![other]);
    let read = store.read_file(&lying, &lying.files[0], 100).await;
    assert!(matches!(read, Err(StoreError::Checksum { .. })), "{read:?}");

    let read_back = manifest(ID, vec![segment.clone()], vec![whole]);
    let mut turned = good.clone();
    *turned.last_mut().unwrap() ^= 1;
    for bad in [turned, good[1..].to_vec(), Vec::new()] {
        std::fs::write(&path, bad).unwrap();
        let read = store.read_file(&read_back, &read_back.files[0], 100).await;
        assert!(matches!(read, Err(StoreError::Segment { .. })), "{read:?}");
    }
    std::fs::remove_file(&path).unwrap();
    let read = store.read_file(&read_back, &read_back.files[0], 100).await;
    assert!(matches!(
        read,
        Err(StoreError::Object(ObjectError::NotFound { .. }))
    ));
    let large = store.read_file(&read_back, &read_back.files[0], 12).await;
    assert!(matches!(large, Err(StoreError::TooLarge { .. })));
}

#[tokio::test]
async fn a_snapshot_under_another_name_or_of_another_task_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let objects = Objects::directory(directory.path().to_owned()).unwrap();
    let store = Store::of(objects.clone(), "t").unwrap();
    store
        .put_manifest(&manifest(ID, Vec::new(), Vec::new()))
        .await
        .unwrap();
    let manifests = directory.path().join("tasks/t/manifests");
    let from = manifests.join(format!("{ID}.json.zst"));
    std::fs::copy(
        &from,
        manifests.join("20301122T030405.678Z-0123abcd.json.zst"),
    )
    .unwrap();
    assert!(store.newest().await.is_err());
    std::fs::create_dir_all(directory.path().join("tasks/u/manifests")).unwrap();
    std::fs::copy(
        &from,
        directory
            .path()
            .join(format!("tasks/u/manifests/{ID}.json.zst")),
    )
    .unwrap();
    let other = Store::of(objects.clone(), "u").unwrap();
    assert!(matches!(
        other.newest().await,
        Err(StoreError::Manifest { .. })
    ));
    assert!(Store::of(objects, "../t").is_err());
}
