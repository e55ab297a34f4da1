use proptest::prelude::*;

use super::*;

fn time(text: &str) -> Time {
    text.parse().unwrap()
}

fn sha(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn file(path: &str, pieces: Vec<Piece>) -> File {
    File {
        place: Place::Home,
        path: path.into(),
        kind: Kind::Conversation,
        agent: Some("claude".into()),
        mode: 0o600,
        bytes: pieces.iter().map(|piece| piece.2).sum(),
        sha256: sha('b'),
        pieces,
        damaged_copy_of: None,
    }
}

fn manifest(files: Vec<File>) -> Manifest {
    Manifest {
        version: VERSION,
        task: "ww-12".into(),
        id: "20261122T030405.678Z-0123abcd".parse().unwrap(),
        taken_at: time("2026-11-22T03:04:05.678Z"),
        reason: "now".into(),
        whim: "0.1.0".into(),
        places: Places::default(),
        sessions: Vec::new(),
        segments: vec![Segment {
            name: sha('a'),
            bytes: 50,
            content_bytes: 100,
        }],
        files,
        code: None,
    }
}

/// As [`encode`], without its check: what somebody else may have put there.
fn forged(manifest: &impl Serialize) -> Vec<u8> {
    zstd::bulk::compress(&serde_json::to_vec(manifest).unwrap(), 1).unwrap()
}

#[test]
fn what_is_written_is_read() {
    let whole = manifest(vec![
        file(".claude/projects/-app-repo/a.jsonl", vec![Piece(0, 0, 10)]),
        file("empty", Vec::new()),
    ]);
    assert_eq!(decode(&encode(&whole).unwrap()).unwrap(), whole);
}

#[test]
fn fields_of_later_versions_are_passed_over() {
    let mut value = serde_json::to_value(manifest(Vec::new())).unwrap();
    value["surprise"] = serde_json::json!({"a": 1});
    assert!(decode(&forged(&value)).is_ok());
}

#[test]
fn manifests_that_lie_are_refused() {
    use ManifestError as E;
    let one = |path: &str| manifest(vec![file(path, Vec::new())]);
    for path in [
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a//b",
        "",
        ".",
        "a/.",
        "a/",
        "a\0b",
    ] {
        let error = decode(&forged(&one(path))).unwrap_err();
        assert!(matches!(error, E::Path { .. }), "{path:?}: {error}");
    }
    let long = one(&"a/".repeat(3000));
    assert!(matches!(decode(&forged(&long)), Err(E::Path { .. })));
    for pieces in [
        vec![Piece(1, 0, 1)],
        vec![Piece(0, 0, 101)],
        vec![Piece(0, u64::MAX, 2)],
        vec![Piece(0, 100, 1)],
        vec![Piece(0, 0, 0)],
        vec![Piece(0, 0, 10), Piece(0, 9, 10)],
        vec![Piece(0, 5, 10), Piece(0, 0, 6)],
    ] {
        let mut lying = manifest(vec![file("a", Vec::new())]);
        lying.files[0].bytes = pieces
            .iter()
            .fold(0, |sum: u64, piece| sum.wrapping_add(piece.2));
        lying.files[0].pieces = pieces.clone();
        let error = decode(&forged(&lying)).unwrap_err();
        assert!(matches!(error, E::Piece { .. }), "{pieces:?}: {error}");
    }
    type Spoil = fn(&mut Manifest);
    let spoils: [(&str, Spoil); 10] = [
        ("version", |m| m.version = 2),
        ("task", |m| m.task = "../x".into()),
        ("segment's name", |m| m.segments[0].name = "../../x".into()),
        ("segment's size", |m| {
            m.segments[0].content_bytes = MAX_SEGMENT + 1
        }),
        ("segment's stored size", |m| m.segments[0].bytes = u64::MAX),
        ("length", |m| m.files[0].bytes = 11),
        ("checksum", |m| m.files[0].sha256 = "x".into()),
        ("mode", |m| m.files[0].mode = 0o4755),
        ("twice", |m| m.files.push(m.files[0].clone())),
        ("below a file", |m| m.files.push(file("a/b/c", Vec::new()))),
    ];
    for (what, spoil) in spoils {
        let mut lying = manifest(vec![file("a", vec![Piece(0, 0, 10)])]);
        assert!(decode(&forged(&lying)).is_ok());
        spoil(&mut lying);
        assert!(decode(&forged(&lying)).is_err(), "{what}");
        assert!(encode(&lying).is_err(), "{what} is written");
    }
    let mut many = manifest(Vec::new());
    many.files = (0..=MAX_FILES)
        .map(|n| file(&n.to_string(), Vec::new()))
        .collect();
    assert!(matches!(
        decode(&forged(&many)),
        Err(E::TooMany { what: "files", .. })
    ));
}

#[test]
fn a_manifest_that_blows_up_is_refused() {
    let bomb = zstd::bulk::compress(&vec![b' '; MAX_JSON + 1], 1).unwrap();
    assert!(bomb.len() < 100_000);
    assert_eq!(decode(&bomb), Err(ManifestError::Compression));
    assert!(decode(b"").is_err() && decode(b"not zstd").is_err());
}

#[test]
fn ids_rise_whatever_the_clock_does() {
    let first = SnapshotId::after(None, time("2026-11-22T03:04:05.678Z"), "0123abcd");
    assert_eq!(first.as_str(), "20261122T030405.678Z-0123abcd");
    let back = SnapshotId::after(Some(&first), time("1999-01-01T00:00:00.000Z"), "00000000");
    assert!(back > first, "{back}");
    let same = SnapshotId::after(Some(&back), time("2026-11-22T03:04:05.678Z"), "00000000");
    assert!(same > back);
    let later = SnapshotId::after(Some(&same), time("2030-01-01T00:00:00.000Z"), "ffffffff");
    assert!(
        later.as_str().starts_with("20300101T000000.000Z"),
        "{later}"
    );
    for bad in [
        "",
        "x",
        "20261122T030405.678Z-xyz",
        "20261322T030405.678Z-0123abcd",
        "../20261122T030405.678Z-0123abcd",
    ] {
        assert!(bad.parse::<SnapshotId>().is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn ids_sort_as_their_times(one in 0_i64..4_000_000_000_000, other in 0_i64..4_000_000_000_000) {
        let id = |at: i64| SnapshotId::after(None, Timestamp::from_millisecond(at).unwrap().into(), "0123abcd");
        prop_assert_eq!(one.cmp(&other), id(one).cmp(&id(other)));
        prop_assert_eq!(id(one).milliseconds(), one);
        prop_assert_eq!(&id(one).as_str().parse::<SnapshotId>().unwrap(), &id(one));
    }

    #[test]
    fn no_path_that_is_taken_leads_outside(path in "[a./\\\\~\0é]{0,12}") {
        if check_path(&path).is_ok() {
            let joined = std::path::Path::new("/place").join(&path);
            let plain = joined.components().skip(2).all(|part| matches!(part, std::path::Component::Normal(_)));
            prop_assert!(joined.starts_with("/place") && plain, "{path:?}");
        }
    }

    #[test]
    fn anything_is_handled(bytes: Vec<u8>, json in "\\PC{0,200}") {
        prop_assert!(decode(&bytes).is_err());
        prop_assert!(decode(&zstd::bulk::compress(json.as_bytes(), 1).unwrap()).is_err());
    }
}
